//! One table for all levels: exit status, output, identity, limits.

mod support;

use support::{at_every_level, run};

#[test]
fn exit_status_is_the_same_at_every_level() {
    let table: &[(&[&str], i32)] = &[
        (&["demo"], 0),
        (&["demo", "--", "/isolab-work", "exit", "1"], 1),
        (&["demo", "--", "/isolab-work", "exit", "42"], 42),
        (&["demo", "--", "/isolab-work", "exit", "124"], 124),
        (&["demo", "--", "/isolab-work", "exit", "125"], 125),
        (&["demo", "--", "/isolab-work", "exit", "127"], 127),
        (&["demo", "--", "/isolab-work", "exit", "137"], 137),
        (&["demo", "--", "/isolab-work", "exit", "255"], 255),
        (&["demo", "--", "/isolab-work", "crash", "11"], 139),
        (&["demo", "--", "/isolab-work", "crash", "15"], 143),
        (&["demo", "--", "/no/such/command"], 127),
        (&["demo", "--", "no-such-command"], 127),
        (&["demo", "--", "/etc/passwd"], 126),
        (&["--timeout", "3s", "demo", "--", "/isolab-work", "spin"], 124),
    ];
    let commands: Vec<Vec<&str>> = table.iter().map(|(args, _)| args.to_vec()).collect();
    for (level, results) in at_every_level(&commands) {
        for ((args, expected), result) in table.iter().zip(results) {
            assert_eq!(result.status, Some(*expected), "{level} {args:?}: {}", result.stderr);
        }
    }
}

#[test]
fn output_identity_and_root_are_what_was_asked_for_at_every_level() {
    let work = "/isolab-work";
    let commands = [
        vec!["demo", "--", work, "echo", "one", "two"],
        vec!["--hostname", "classroom", "demo", "--", work, "uname"],
        vec!["--workdir", "/tmp", "demo", "--", work, "cwd"],
        vec!["--user", "12:34", "demo", "--", work, "id"],
        vec!["--env", "COLOUR=blue", "demo", "--", work, "env"],
        vec!["demo", "--", work, "mounts"],
    ];
    for (level, results) in at_every_level(&commands) {
        let [echo, uname, cwd, id, env, mounts] = &results[..] else { panic!("six results") };
        assert_eq!(echo.stdout, "one two\n", "{level}");
        assert_eq!(echo.stderr, "", "{level}");
        assert!(level == "process" || uname.stdout.contains("classroom"), "{level}: {}", uname.stdout);
        assert_eq!(cwd.stdout.trim(), "/tmp", "{level}");
        assert!(id.stdout.contains("12") && id.stdout.contains("34"), "{level}: {}", id.stdout);
        assert!(env.stdout.lines().any(|line| line == "COLOUR=blue"), "{level}: {}", env.stdout);
        assert!(level == "process" || mounts.stdout.starts_with("overlay / "), "{level}: {}", mounts.stdout);
        assert!(level == "process" || mounts.stdout.contains(" erofs ro,"), "{level}: {}", mounts.stdout);
    }
}

#[test]
fn only_the_vm_has_a_kernel_of_its_own() {
    let results = at_every_level(&[vec!["demo", "--", "/isolab-work", "uname"]]);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    for (level, result) in results {
        let same = result[0].stdout.contains(release.trim());
        assert_eq!(same, level != "vm", "{level}: {}", result[0].stdout);
    }
}

#[test]
fn too_much_memory_ends_with_137_in_container_and_vm() {
    let command = vec!["--memory", "64M", "demo", "--", "/isolab-work", "touch", "128"];
    for (level, results) in at_every_level(&[command]) {
        let expected = if level == "process" { 0 } else { 137 };
        assert_eq!(results[0].status, Some(expected), "{level}: {}", results[0].stderr);
    }
}

#[test]
fn the_vm_is_refused_on_a_host_without_hardware_kvm_in_one_sentence() {
    let doctor = run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&doctor.stdout).expect("JSON");
    if matches!(report["host_class"].as_str(), Some("hardware" | "nested" | "shadow")) {
        println!("skipped: this host's KVM runs guests, nothing to refuse");
        return;
    }
    let start = std::time::Instant::now();
    let result = run(&["run", "--on", "host", "--level", "vm", "demo"]);
    assert_eq!(result.status, Some(125));
    assert!(result.stderr.contains("--on lab") && result.stderr.lines().count() == 1, "{}", result.stderr);
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
}
