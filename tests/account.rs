//! The account: known answers at each level, and parts that add up.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;
use support::{in_lab, run};

const MIB: u64 = 1 << 20;

/// An account by key, and the counters beside it.
type Account = BTreeMap<String, u64>;

/// Command line of one comparison of one level, whose samples are the accounts.
fn compare<'a>(level: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common = ["compare", "--on", "host", "--levels", level, "--pairs", "1", "--quiet", "--json", "-"];
    [&common, more].concat()
}

/// What the first guest of a lab is charged for warms all later ones up, too; each takes a boot.
const COLD: [&str; 2] = ["--warmup", "0"];

/// The accounts of a record: memory in bytes, CPU time and counters, each by its key.
fn accounts(json: &str) -> Vec<Account> {
    let record: Value = serde_json::from_str(json).expect("a record");
    for check in record["crosschecks"].as_array().expect("crosschecks") {
        assert_eq!(check["status"], "pass", "{check}");
    }
    let samples = record["samples"].as_array().expect("samples").iter();
    samples
        .map(|sample| {
            assert_eq!(
                (&sample["ok"], &sample["mem_bytes"]["at"]),
                (&true.into(), &"ready".into()),
                "{sample}"
            );
            let objects = [&sample["mem_bytes"], &sample["cpu_ns"], &sample["counters"]];
            let entries = objects.into_iter().filter_map(Value::as_object).flatten();
            entries.filter_map(|(key, value)| Some((key.clone(), value.as_u64()?))).collect()
        })
        .collect()
}

/// A comparison whose statistics the kernel had added up: on a busy machine those of another CPU can be some pages behind the charge
/// (`memory.stat` is added up every two seconds, or after so many changes), and then a part is larger than the whole.
fn added_up(args: &[&str]) -> support::Done {
    const TRIES: u32 = 4;
    let mut done = run(args);
    for _ in 1..TRIES {
        let record: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        let checks = record["crosschecks"].as_array().cloned().unwrap_or_default();
        if !checks.iter().any(|check| check["id"] == "part-of-whole" && check["status"] == "fail") {
            break;
        }
        println!("once more: {checks:?}");
        done = run(args);
    }
    done
}

/// The accounts of these command lines: at process and container here, at vm in one lab.
fn at(level: &str, commands: &[Vec<&str>]) -> Vec<Account> {
    let mut with: Vec<Vec<&str>> = commands.iter().map(|more| compare(level, more)).collect();
    let done: Vec<support::Done> = if level == "vm" {
        with.iter_mut().skip(1).for_each(|args| args.splice(1..1, COLD).for_each(drop));
        in_lab(&[], &[], &with)
    } else {
        with.iter().map(|args| added_up(args)).collect()
    };
    let last = |done: &support::Done| {
        // A busy machine may refuse the comparison, whose samples are what is looked at here.
        assert!(matches!(done.status, Some(0 | 3)), "{}", done.stderr);
        accounts(&done.stdout).pop().expect("a sample")
    };
    done.iter().map(last).collect()
}

fn work<'a>(options: &[&'a str], workload: &[&'a str]) -> Vec<&'a str> {
    [options, &["demo", "--", "/isolab-work"], workload].concat()
}

#[test]
fn sixty_four_mib_touched_are_sixty_four_mib_charged_and_a_small_run_after_it_has_a_small_peak() {
    for level in ["process", "container", "vm"] {
        // A guest first takes what its own start had touched and freed again, so that the first MiB cost nothing.
        let memory = ["--memory", "512M"];
        let commands =
            [["touch", "64"], ["touch", "128"], ["touch", "64"]].map(|workload| work(&memory, &workload));
        let [small, big, after] = &at(level, &commands)[..] else { panic!("three runs") };
        let grown = |key: &str| big[key].saturating_sub(small[key]);
        let known = 64 * MIB..=65 * MIB + MIB / 2;
        assert!(known.contains(&grown("memcg_current")), "{level}: {small:?} {big:?}");
        assert!(after["peak"] < big["peak"] - 32 * MIB, "{level}: {after:?}");
        for account in [small, big, after] {
            let named: u64 = ["anon", "file", "kernel", "remainder"].iter().map(|key| account[*key]).sum();
            let named = named + account.get("sock").copied().unwrap_or(0);
            assert_eq!(named, account["memcg_current"], "{level}: {account:?}");
            assert!(account["remainder"] * 50 < account["memcg_current"], "{level}: {account:?}");
            assert!(account["instance"] > 0 && account["minflt"] > 0, "{level}: {account:?}");
        }
        if level == "vm" {
            // What is not guest RAM are the tables that map it, twice, and what KVM keeps for each page.
            assert!(grown("memcg_current") - grown("guest_ram_resident") < MIB, "{small:?} {big:?}");
        }
    }
}

#[test]
fn the_vmm_costs_the_same_whatever_memory_its_guest_has_and_port_writes_are_counted() {
    let commands = [
        work(&["--memory", "128M"], &["null"]),
        work(&["--memory", "1G"], &["null"]),
        work(&[], &["pio", "1"]),
        work(&[], &["pio", "1001"]),
    ];
    let [small, large, one, more] = &at("vm", &commands)[..] else { panic!("four runs") };
    // Tables of pages grow with what the guest's kernel touches, which keeps a record of each page of its memory.
    let of_ram = ["guest_ram_resident", "host_page_tables", "secondary_page_tables"];
    let overhead =
        |account: &Account| account["memcg_current"] - of_ram.map(|part| account[part]).iter().sum::<u64>();
    let (a, b) = (overhead(small), overhead(large));
    assert!(a.abs_diff(b) * 20 <= a, "{a} bytes at 128 MiB, {b} at 1 GiB");
    let exits = |account: &Account| account["io_exits_after_ready"];
    assert_eq!(exits(more) - exits(one), 1000);
    assert!(more["kvm_exits"] > more["io_exits"] && more["io_exits"] > 0, "{more:?}");
}

/// Makes an image with a shell and the measuring workload.
fn shell_and_work() -> &'static str {
    let dir = tempfile::tempdir().expect("a directory");
    let tar = dir.path().join("demo.tar");
    let exported = run(&["image", "export", "demo", "-o", tar.to_str().expect("plain")]);
    assert_eq!(exported.status, Some(0), "{}", exported.stderr);
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("bin")).expect("a directory");
    fs::copy("/bin/busybox", root.join("bin/sh")).expect("busybox-static");
    let unpacked = Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&root).arg("isolab-work").status();
    assert!(unpacked.is_ok_and(|status| status.success()), "tar");
    support::import(&root, "shell-and-work")
}

#[test]
fn a_workload_that_a_shell_starts_is_read_and_goes_on_at_once() {
    let command = ["--warmup", "0", shell_and_work(), "--", "/bin/sh", "-c", "/isolab-work null; :"];
    for level in ["process", "container"] {
        let result = run(&compare(level, &command));
        assert!(matches!(result.status, Some(0 | 3)), "{}", result.stderr);
        let record: Value = serde_json::from_str(&result.stdout).expect("a record");
        for sample in record["samples"].as_array().expect("samples") {
            assert_eq!(sample["mem_bytes"]["at"], "ready", "{sample}");
            let ns = sample["t_ns"]["clean"].as_u64().expect("a time");
            // It gives up waiting after ten seconds.
            assert!(ns < 5_000_000_000, "{sample}");
        }
    }
}
