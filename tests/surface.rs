//! What `isolab surface` counts, against the filters and what must be so.

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use isolab_bench::surface::{LevelSurface, Party, Reached, SurfaceRecord};
use isolab_container::seccomp::{GROUPS, Verdict};
use serde_json::Value;
use support::{binary, in_lab, run};

fn valid(json: &str) -> SurfaceRecord {
    let value: Value = serde_json::from_str(json).expect("JSON");
    let schema: Value = serde_json::from_str(include_str!("../bench/schema/surface.schema.json"))
        .expect("the schema is JSON");
    let wrong: Vec<String> = jsonschema::validator_for(&schema)
        .expect("a schema")
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    SurfaceRecord::from_json(json.as_bytes()).expect("a record")
}

fn level<'a>(record: &'a SurfaceRecord, name: &str) -> &'a LevelSurface {
    record.levels.iter().find(|level| level.level == name).expect("the level is there")
}

fn of<'a>(record: &'a SurfaceRecord, name: &str, party: Party) -> &'a Reached {
    level(record, name).of(party).expect("a party")
}

fn set(names: &[String]) -> BTreeSet<&str> {
    names.iter().map(String::as_str).collect()
}

#[test]
fn each_call_tried_in_turn_reaches_the_hosts_kernel_where_the_filter_says_so_and_from_a_guest_never() {
    let lab = ["surface", "--on", "lab", "--sweep", "--runs", "2", "--json", "-", "demo"];
    let done = run(&lab);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    let record = valid(&done.stdout);

    let process = of(&record, "process", Party::Workload);
    assert!(process.distinct.iter().all(|distinct| *distinct > 450), "{:?}", process.distinct);
    assert!(process.refused.is_empty(), "{:?}", process.refused);

    // The filter, number by number: what it allows entered the kernel, everything else did not.
    let container = of(&record, "container", Party::Workload);
    let (entered, refused) = (set(&container.calls), set(&container.refused));
    // The probe leaves out what would end or hang it.
    let tried = set(&process.calls);
    for group in GROUPS {
        for (_, name) in group.calls.iter().filter(|(_, name)| tried.contains(name)) {
            match group.verdict {
                Verdict::Allow => assert!(entered.contains(name) && !refused.contains(name), "{name}"),
                Verdict::Errno(_) => assert!(!entered.contains(name) && refused.contains(name), "{name}"),
                Verdict::Check(_) => assert!(entered.contains(name) || refused.contains(name), "{name}"),
            }
        }
    }
    let known: BTreeSet<&str> = GROUPS.iter().flat_map(|group| group.calls).map(|(_, name)| *name).collect();
    assert!(entered.is_subset(&known), "{entered:?}");

    // A guest's calls are its own kernel's: its monitor asks for nothing that it does not ask for with an idle guest, and stays in
    // its filters.
    let idle = run(&["surface", "--on", "lab", "--levels", "vm", "--runs", "2", "--json", "-", "demo"]);
    assert_eq!(idle.status, Some(0), "{}", idle.stderr);
    let idle = valid(&idle.stdout);
    for party in [Party::Processors, Party::Devices] {
        let (swept, idle) = (of(&record, "vm", party), of(&idle, "vm", party));
        // Whether the allocator needs more memory depends on the moment.
        let more = set(&swept.calls)
            .into_iter()
            .filter(|call| !matches!(*call, "brk" | "mmap" | "munmap" | "madvise"));
        let more: Vec<&str> = more.filter(|call| !set(&idle.calls).contains(call)).collect();
        assert!(more.is_empty(), "{party:?}: {more:?}");
        let of_kvm = |reached: &Reached| {
            reached
                .requests
                .iter()
                .filter(|request| request.starts_with("ioctl"))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(of_kvm(swept), of_kvm(idle));
    }
    for allowed in &level(&record, "vm").allowed {
        let reached = of(&record, "vm", allowed.party);
        let may: BTreeSet<&str> = set(&allowed.always).into_iter().chain(set(&allowed.by_argument)).collect();
        assert!(allowed.after_takeover && !reached.calls.is_empty());
        let outside: Vec<&str> = set(&reached.calls).into_iter().filter(|call| !may.contains(call)).collect();
        assert!(outside.is_empty(), "{:?}: {outside:?}", allowed.party);
        assert!(reached.refused.is_empty(), "{reached:?}");
    }
    let door = level(&record, "vm").door.as_ref().expect("a guest has one");
    assert!(door.reasons.iter().any(|reason| reason == "io"), "{door:?}");
    assert!(
        door.exit_counts.iter().zip(&door.reason_counts).all(|(all, out)| all >= out && *out > 0),
        "{door:?}"
    );
}

#[test]
fn a_command_is_told_apart_from_isolab_and_each_run_is_the_same() {
    let of_runs = |more: &[&'static str]| [&["surface", "--on", "host", "--json", "-"], more].concat();
    let done = in_lab(
        &[],
        &[],
        &[
            of_runs(&[
                "--levels",
                "process,container",
                "--runs",
                "3",
                "demo",
                "--",
                "/isolab-work",
                "echo",
                "hello",
            ]),
            of_runs(&["--levels", "container", "--runs", "1", "demo", "--", "/isolab-work", "exit", "127"]),
            of_runs(&["--levels", "container", "--runs", "1", "demo", "--", "/nope"]),
            of_runs(&[
                "--depth",
                "--levels",
                "process,container",
                "--runs",
                "1",
                "demo",
                "--",
                "/isolab-work",
                "echo",
                "hello",
            ]),
        ],
    );
    let [done, ended, absent, deep] = &done[..] else { panic!("four commands") };
    assert_eq!(deep.status, Some(0), "{}", deep.stderr);
    goes_deep(&valid(&deep.stdout));
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    // A status of the command's own is told; where there was no command there is nothing to tell.
    assert_eq!(level(&valid(&ended.stdout), "container").statuses, [127], "{}", ended.stderr);
    assert_eq!(absent.status, Some(125), "{}", absent.stdout);
    assert!(absent.stderr.contains("/nope"), "{}", absent.stderr);
    let record = valid(&done.stdout);
    assert!(record.levels.iter().all(|level| level.depth.is_none()), "nobody asked for it");
    for name in ["process", "container"] {
        let workload = of(&record, name, Party::Workload);
        assert_eq!(workload.calls, ["write", "exit_group"], "{name}");
        assert_eq!((&workload.distinct[..], &workload.new[..]), (&[2, 2, 2][..], &[2, 0, 0][..]), "{name}");
        assert!(workload.total.iter().all(|total| *total == workload.total[0]), "{workload:?}");
        assert_eq!(level(&record, name).statuses, [0, 0, 0]);
        let isolab = of(&record, name, Party::Isolab);
        assert!(set(&isolab.calls).contains("clone3") && isolab.refused.is_empty(), "{isolab:?}");
    }
}

/// Both levels have passed tracepoints, the workload fewer than isolab, and no system call by its name among them.
fn goes_deep(record: &SurfaceRecord) {
    for level in &record.levels {
        let depth = level.depth.as_ref().expect("it was asked for");
        assert_eq!((depth.not_measured.as_deref(), depth.known > 200), (None, true), "{depth:?}");
        let of = |party| {
            let found = depth.passed.iter().find(|points| points.party == party);
            found.map(|points| set(&points.tracepoints)).expect("a party")
        };
        let (workload, isolab) = (of(Party::Workload), of(Party::Isolab));
        assert!(workload.contains("raw_syscalls:sys_enter") && workload.contains("raw_syscalls:sys_exit"));
        // It writes to a pipe, for which isolab waits; and makes no process.
        assert!(
            !workload.contains("task:task_newtask") && isolab.contains("task:task_newtask"),
            "{workload:?}"
        );
        assert!(isolab.len() > workload.len(), "{} and {}", isolab.len(), workload.len());
        let names: Vec<&&str> = isolab.iter().filter(|name| name.starts_with("syscalls:")).collect();
        assert_eq!(names, Vec::<&&str>::new());
    }
}

#[test]
fn without_the_kernels_trace_there_is_one_line_with_the_remedy() {
    let script =
        "umount -l /sys/kernel/tracing 2>/dev/null; exec \"$0\" surface --on host --levels process demo";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(binary())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("mount -t tracefs") && said.trim_end().lines().count() == 1, "{said}");
}
