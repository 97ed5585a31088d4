//! One table for all levels: exit status, output, identity, limits.

mod support;

use std::process::Command;

use support::lab::{WALL, one_lab};
use support::{GUESTS, at_every_level, busybox, import, in_lab, run};

/// Signals whose default is to end the process.
const DEADLY: [u8; 23] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31];
/// What guests are asked for of the 256 statuses: those of isolab's own and their neighbours, where a status could be taken for another.
const EDGES: [u8; 11] = [0, 1, 2, 124, 125, 126, 127, 128, 137, 254, 255];

/// Commands with the status that they end with at every level.
fn table(statuses: &[u8], signals: &[u8]) -> Vec<(Vec<String>, i32)> {
    let owned = |args: &[&str]| args.iter().map(|&arg| arg.to_owned()).collect();
    let mut table = vec![
        (owned(&["demo"]), 0),
        (owned(&["demo", "--", "/no/such/command"]), 127),
        (owned(&["demo", "--", "no-such-command"]), 127),
        (owned(&["demo", "--", "/etc/passwd"]), 126),
        (owned(&["--timeout", "3s", "demo", "--", "/isolab-work", "spin"]), 124),
    ];
    table.extend(passed_on(statuses, signals));
    table
}

/// Those whose status is that of the workload itself.
fn passed_on(statuses: &[u8], signals: &[u8]) -> Vec<(Vec<String>, i32)> {
    let work =
        |name: &str, n: &u8| ["demo", "--", "/isolab-work", name, &n.to_string()].map(str::to_owned).to_vec();
    let exits = statuses.iter().map(|n| (work("exit", n), i32::from(*n)));
    exits.chain(signals.iter().map(|n| (work("crash", n), 128 + i32::from(*n)))).collect()
}

#[test]
fn exit_status_is_the_same_at_every_level() {
    let all: Vec<u8> = (0..=255).collect();
    for level in ["process", "container"] {
        for (args, expected) in table(&all, &DEADLY) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let result = run(&[&["run", "--level", level], &args[..]].concat());
            assert_eq!(result.status, Some(expected), "{level} {args:?}: {}", result.stderr);
            // Its own statuses are told from the workload's by a line.
            let told = args.contains(&"--timeout");
            assert!(
                !told || result.stderr == "isolab: ended by the deadline of --timeout\n",
                "{}",
                result.stderr
            );
        }
    }
    // How a status comes out of a guest does not depend on where its start began, so few of them boot.
    let [booted, restored] = GUESTS;
    check_in_guests(booted, &passed_on(&[255], &[9]));
    check_in_guests(restored, &table(&EDGES, &[1, 9, 11, 31]));
}

#[test]
#[ignore = "256 boots of a guest kernel in the lab: some ten minutes"]
fn each_exit_status_passes_through_a_guest() {
    let all: Vec<u8> = (0..=255).collect();
    GUESTS.into_iter().for_each(|guest| check_in_guests(guest, &table(&all, &DEADLY)));
}

fn check_in_guests((name, options): (&str, &[&str]), table: &[(Vec<String>, i32)]) {
    let run = |(args, _): &'_ (Vec<String>, i32)| -> Vec<String> {
        let first = ["run", "--level", "vm"].into_iter().chain(options.iter().copied());
        first.map(str::to_owned).chain(args.iter().cloned()).collect()
    };
    let commands: Vec<Vec<String>> = table.iter().map(run).collect();
    let commands: Vec<Vec<&str>> =
        commands.iter().map(|args| args.iter().map(String::as_str).collect()).collect();
    let first = [vec!["snapshot", "demo"]];
    let first = if options.is_empty() { &[][..] } else { &first[..] };
    for ((args, expected), result) in table.iter().zip(one_lab(&WALL, first, &commands)) {
        assert_eq!(result.status, Some(*expected), "{name} {args:?}: {}", result.stderr);
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
        // A set-id program of the image has no effect, and a device file of it is none.
        let root = mounts.stdout.lines().rfind(|line| line.split(' ').nth(1) == Some("/")).expect("a root");
        assert!(root.contains("nosuid,nodev"), "{level}: {root}");
    }
}

#[test]
fn only_the_vm_has_a_kernel_of_its_own() {
    let results = at_every_level(&[vec!["demo", "--", "/isolab-work", "uname"]]);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    for (level, result) in results {
        let same = result[0].stdout.contains(release.trim());
        assert_eq!(same, !level.ends_with("vm"), "{level}: {}", result[0].stdout);
    }
}

#[test]
fn nothing_of_the_job_is_on_the_guests_command_line() {
    busybox();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (layout, _) = support::samples::busybox(dir.path());
    let mut hostile = Command::new("umoci");
    hostile.args(["config", "--image", "layout:latest", "--config.workingdir", "/etc/ loglevel=7"]);
    hostile.args(["--config.env", "init=/bin/sh", "--config.label", "quiet=panic=0", "--config.user", "0:0"]);
    assert!(hostile.current_dir(dir.path()).status().expect("umoci starts").success());
    let image = import(&layout, "wordy");
    let options = ["--hostname", "loglevel.7", "--env", "quiet=1 init=/bin/busybox"];
    let cat = ["--", "/bin/busybox", "cat", "/proc/cmdline"];
    let vm = ["run", "--level", "vm"];
    let commands = [[&vm[..], &["busybox"], &cat].concat(), [&vm[..], &options, &[image], &cat].concat()];
    let results = in_lab(&WALL, &["busybox", image], &commands);
    let [plain, wordy] = &results[..] else { panic!("two results") };
    assert_eq!((plain.status, wordy.status), (Some(0), Some(0)), "{}{}", plain.stderr, wordy.stderr);
    assert!(plain.stdout.contains("panic=-1"), "{}", plain.stdout);
    assert_eq!(plain.stdout, wordy.stdout);
    assert_eq!(run(&["image", "rm", image]).status, Some(0));
}

#[test]
fn too_much_memory_ends_with_137_in_container_and_vm() {
    let args = |level| {
        vec!["run", "--level", level, "--memory", "64M", "demo", "--", "/isolab-work", "touch", "128"]
    };
    let container = run(&args("container"));
    assert_eq!(container.status, Some(137), "{}", container.stderr);
    assert!(container.stderr.contains("--memory"), "{}", container.stderr);
    let commands = GUESTS.map(|(_, options)| {
        let (first, rest) = (args("vm"), [&["run"], options].concat());
        [rest, first[1..].to_vec()].concat()
    });
    for ((name, _), vm) in GUESTS.iter().zip(one_lab(&WALL, &[], &commands)) {
        assert_eq!(vm.status, Some(137), "{name}: {}", vm.stderr);
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
    assert!(start.elapsed() < std::time::Duration::from_secs(10));
}
