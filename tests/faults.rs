//! A fault at each stage of a start: an error, a panic, a kill, and a kill of the launcher while another process is in the stage.
//! One body for all levels; level vm runs it inside of one lab. `ISOLAB_TEST_FULL=1`: each fault in each of a guest's own stages,
//! of which each takes a boot.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::collect::check_and_collect;
use support::leaks::Oracle;
use support::stages::{CONTAINER, PROCESS, Stages, VM, VM_BOOTED, Who, Who::Launcher, Who::Other, arguments};
use support::{Done, ends_within, full, half_in_lab, home, isolab, run};

/// What isolab may take to tell of a fault beyond twice what a whole run takes, as much of which is what else the machine does at
/// that time: a second, and what that adds.
const AT_ONCE: Duration = Duration::from_secs(3);
/// On the clock that counts instructions, hours can pass while the lab waits for a disk of the host's.
const CLOCK: &[&str] = &["--lab-clock", "wall"];
const KINDS: [&str; 3] = ["error", "panic", "kill"];

/// Makes one fault and looks at all that follows from it.
fn check(level: &str, (stage, who): (&str, Who), kind: &str, whole: Duration, oracle: &Oracle) {
    let fault = format!("--test-fault={stage}={kind}");
    let case = format!("{level} {stage}={kind}");
    let start = Instant::now();
    let output = isolab(&arguments(&[level], &fault)).output().expect("isolab starts");
    let took = start.elapsed();
    let signal = output.status.signal();
    let done: Done = support::done(output);

    assert!(took < 2 * whole + AT_ONCE, "{case} took {took:?}, a whole run {whole:?}");
    let said: Vec<&str> = done.stderr.lines().collect();
    match (who, kind) {
        (Launcher, "kill") => assert_eq!((signal, done.stderr.as_str()), (Some(9), ""), "{case}"),
        // From its last mark on the child of level process is the workload.
        (Other, "panic" | "kill") if level == "process" && stage == "exec" => {
            assert_eq!(done.status, Some(if kind == "kill" { 137 } else { 101 }), "{case}");
        }
        _ => {
            let not_executed = (stage, kind) == ("exec", "error");
            assert_eq!(done.status, Some(if not_executed { 126 } else { 125 }), "{case}: {}", done.stderr);
            assert_eq!(said.len(), 1, "{case}: {}", done.stderr);
            assert!(said[0].starts_with("isolab: "), "{case}: {}", done.stderr);
            let named = match kind {
                "error" => said[0].contains(stage) || said[0].to_lowercase().contains("input/output error"),
                "panic" if who == Launcher => said[0].contains("a bug of isolab"),
                _ => true,
            };
            assert!(named, "{case}: {}", done.stderr);
        }
    }
    if who == Launcher && kind != "error" {
        check_and_collect(oracle, &case);
    } else {
        oracle.assert_nothing(&case);
    }
}

/// Whether a process of an isolab sleeps in the delay of a test: `clock_nanosleep`, which nothing else here calls.
fn is_delayed(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let calls = tasks.filter_map(|task| fs::read_to_string(task.path().join("syscall")).ok());
    calls.into_iter().any(|call| call.starts_with("230 "))
}

/// Kills the launcher while another process is in this stage.
fn kill_launcher(level: &str, stage: &str, oracle: &Oracle) {
    let case = format!("{level}, launcher killed in {stage}");
    let fault = format!("--test-fault={stage}=delay:10000");
    let mut command = isolab(&arguments(&[level], &fault));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("isolab starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    // That a process has come to a system call has no event for others.
    while !oracle.processes().into_iter().any(is_delayed) {
        assert!(!ends_within(&child, Duration::from_millis(1)), "{case}: ended before");
        assert!(Instant::now() < deadline, "{case}: not reached");
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    check_and_collect(oracle, &case);
}

/// All faults in all of these stages.
fn all(level: &str, stages: Stages) -> usize {
    let oracle = Oracle::new(&home());
    run(&["gc"]);
    let start = Instant::now();
    let whole = run(&["run", "--on", "host", "--level", level, "demo"]);
    let took = start.elapsed();
    assert_eq!(whole.status, Some(0), "{}", whole.stderr);
    oracle.assert_nothing("a whole run");
    for stage in stages {
        for kind in KINDS {
            check(level, *stage, kind, took, &oracle);
        }
    }
    // A guest's own delays can't be seen from outside; `tests/killed.rs` kills its launcher at any moment.
    let others = stages.iter().filter(|(_, who)| *who == Other && stages != VM_BOOTED);
    let n = others.map(|(stage, _)| kill_launcher(level, stage, &oracle)).count();
    println!("{level}: {} faults, {n} kills of the launcher beside", stages.len() * KINDS.len());
    stages.len()
}

#[test]
fn a_fault_at_any_stage_of_a_process_is_told_at_once_and_leaves_nothing() {
    all("process", PROCESS);
}

#[test]
fn a_fault_at_any_stage_of_a_container_is_told_at_once_and_leaves_nothing() {
    all("container", CONTAINER);
}

#[test]
fn a_fault_at_any_stage_of_a_guest_is_told_at_once_and_leaves_nothing() {
    let half = if full() { "inside_the_lab_each_fault_at_any_stage" } else { "inside_the_lab_most_faults" };
    half_in_lab(CLOCK, half);
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_most_faults() {
    all("vm", VM);
    let oracle = Oracle::new(&home());
    for (stage, kind) in [("root_mounts", "kill"), ("pivot", "error"), ("caps_seccomp", "panic")] {
        check("vm", (stage, Other), kind, Duration::from_secs(60), &oracle);
    }
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_each_fault_at_any_stage() {
    all("vm", VM);
    all("vm", VM_BOOTED);
}

#[test]
fn a_fault_that_could_not_be_made_is_refused() {
    for (level, fault, why) in [
        ("process", "pivot=kill", "level process has no stage pivot"),
        ("container", "workload_run=kill", "no code of isolab's runs in workload_run"),
        ("container", "pivot=50", "give delay:MS, error, panic or kill"),
        ("container", "nosuch=kill", "there is no stage"),
    ] {
        let done = run(&arguments(&[level], &format!("--test-fault={fault}")));
        assert_eq!(done.status, Some(125), "{fault}");
        assert!(done.stderr.contains(why) && done.stderr.lines().count() == 1, "{fault}: {}", done.stderr);
    }
}
