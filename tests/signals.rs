//! Ctrl-C and SIGTERM: a bounded end, the right status, nothing left.

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process_group};
use support::leaks::Oracle;
use support::random::Random;
use support::{GUESTS, busybox, ends_within, home, isolab, pid, run, send};

/// What "at once" is allowed to take on a busy machine; the grace of a workload is 2 s.
const AT_ONCE: Duration = Duration::from_millis(1500);
/// The lab's isolab gets some seconds of its own.
const IN_LAB: Duration = Duration::from_secs(8);

const OBEYS: &str = "echo started; exec sleep 1000";
const IGNORES: &str = "trap '' INT TERM; echo started; while :; do sleep 0.1; done";
const HEARS: &str = "trap 'echo heard' INT TERM; echo started; while :; do sleep 0.1; done";

fn in_background(command: &mut Command) -> (Child, BufReader<ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("isolab starts");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    (child, stdout)
}

/// Starts a shell script at a level and waits until it says that it runs.
fn script(level: &str, script: &str) -> (Child, BufReader<ChildStdout>) {
    let args = ["run", "--level", level, "busybox", "--", "sh", "-c", script];
    let (child, mut stdout) = in_background(&mut isolab(&args));
    hear(&mut stdout, "started");
    (child, stdout)
}

fn hear(stdout: &mut BufReader<ChildStdout>, word: &str) {
    let mut line = String::new();
    stdout.read_line(&mut line).expect("isolab writes");
    assert_eq!(line.trim_end(), word);
}

/// Ended by the signal, told as a shell tells it: as a status, or died of it before it was caught.
fn of_signal(status: ExitStatus, signal: Signal) -> bool {
    status.code() == Some(128 + signal.as_raw()) || status.signal() == Some(signal.as_raw())
}

#[test]
fn a_signal_ends_the_workload_at_once_and_an_ignoring_one_after_its_grace() {
    busybox();
    let oracle = Oracle::new(&home());
    for level in ["process", "container"] {
        for signal in [Signal::INT, Signal::TERM] {
            let (mut child, _stdout) = script(level, OBEYS);
            send(&child, signal);
            assert!(ends_within(&child, AT_ONCE), "{level} {signal:?}");
            assert_eq!(child.wait().expect("wait").code(), Some(128 + signal.as_raw()), "{level}");
            oracle.assert_nothing(&format!("{signal:?} at {level}"));

            let (mut child, _stdout) = script(level, IGNORES);
            let start = Instant::now();
            send(&child, signal);
            assert!(ends_within(&child, Duration::from_secs(2) + AT_ONCE), "{level} {signal:?}, ignored");
            assert!(start.elapsed() >= Duration::from_millis(1900), "{level}: the grace of 2 s");
            assert_eq!(child.wait().expect("wait").code(), Some(128 + signal.as_raw()), "{level}");
            oracle.assert_nothing(&format!("{signal:?}, ignored, at {level}"));
        }
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    busybox();
    let oracle = Oracle::new(&home());
    for level in ["process", "container"] {
        let (mut child, mut stdout) = script(level, HEARS);
        send(&child, Signal::INT);
        hear(&mut stdout, "heard");
        send(&child, Signal::INT);
        assert!(ends_within(&child, Duration::from_secs(1)), "{level}");
        assert_eq!(child.wait().expect("wait").code(), Some(130), "{level}");
        oracle.assert_nothing(&format!("two signals at {level}"));
    }
}

#[test]
fn a_signal_at_a_random_moment_of_the_start_ends_it() {
    let mut random = Random::seeded("signals");
    let oracle = Oracle::new(&home());
    for level in ["process", "container"] {
        let start = Instant::now();
        assert_eq!(run(&["run", "--level", level, "demo"]).status, Some(0));
        let span_us = u64::try_from(start.elapsed().as_micros()).expect("a short time");
        for (n, us) in random.moments(20, span_us).into_iter().enumerate() {
            let signal = if n % 2 == 0 { Signal::INT } else { Signal::TERM };
            let args = ["run", "--level", level, "demo", "--", "/isolab-work", "pause"];
            let (mut child, _stdout) = in_background(&mut isolab(&args));
            assert!(!ends_within(&child, Duration::from_micros(us)));
            send(&child, signal);
            assert!(ends_within(&child, AT_ONCE), "{level}, {signal:?} after {us} us");
            let status = child.wait().expect("wait");
            assert!(of_signal(status, signal), "{level}, {signal:?} after {us} us: {status}");
            oracle.assert_nothing(&format!("{signal:?} after {us} us at {level}"));
        }
    }
}

#[test]
fn ctrl_c_and_sigterm_end_a_comparison_with_its_runs() {
    let oracle = Oracle::new(&home());
    let args =
        ["compare", "--on", "host", "--levels", "process,container", "--pairs", "100", "busybox", "--"];
    let ignores = ["sh", "-c", "trap '' INT TERM; sleep 1000"];
    let obeys = ["sh", "-c", "exec sleep 1000"];
    busybox();
    for (workload, whole_group) in [(obeys, true), (obeys, false), (ignores, true), (ignores, false)] {
        let mut command = isolab(&[&args[..], &workload].concat());
        let (mut child, _stdout) = in_background(command.process_group(0));
        // The workload runs once it is a process of this name.
        let runs = |found: &std::collections::BTreeSet<support::leaks::Leak>| {
            found.iter().any(|leak| leak.which.ends_with("(sleep)"))
        };
        assert!(runs(&oracle.settled_when(runs)), "the workload starts");
        if whole_group {
            // As the terminal does it.
            kill_process_group(pid(&child), Signal::INT).expect("signal");
        } else {
            send(&child, Signal::TERM);
        }
        assert!(ends_within(&child, AT_ONCE));
        let signal = if whole_group { Signal::INT } else { Signal::TERM };
        let status = child.wait().expect("wait");
        assert!(of_signal(status, signal), "{status}");
        oracle.assert_nothing(&format!("{signal:?} of compare, {workload:?}"));
    }
}

#[test]
fn a_signal_ends_the_lab_while_it_starts() {
    let oracle = Oracle::new(&home());
    let compare = ["compare", "--on", "lab", "demo"];
    let vm = ["run", "--on", "lab", "--level", "vm", "demo"];
    for (args, signal) in [(&compare[..], Signal::INT), (&vm, Signal::TERM)] {
        let (mut child, _stdout) = in_background(&mut isolab(args));
        let runs = |found: &std::collections::BTreeSet<support::leaks::Leak>| {
            found.iter().any(|leak| leak.which.contains("(qemu-system"))
        };
        assert!(runs(&oracle.settled_when(runs)), "QEMU starts");
        send(&child, signal);
        assert!(ends_within(&child, AT_ONCE), "{args:?}");
        assert!(of_signal(child.wait().expect("wait"), signal), "{args:?}");
        oracle.assert_nothing(&format!("{signal:?} in the lab's start"));
    }
}

#[test]
fn signals_reach_the_workload_of_a_vm_in_the_lab() {
    busybox();
    let oracle = Oracle::new(&home());
    let lab = |options, script| {
        let place = ["run", "--on", "lab", "--lab-clock", "wall", "--level", "vm"];
        let args = [&place[..], options, &["busybox", "--", "sh", "-c", script]].concat();
        let (child, mut stdout) = in_background(&mut isolab(&args));
        hear(&mut stdout, "started");
        (child, stdout)
    };
    // How a signal comes into a guest does not depend on how that began.
    let [(name, options), (other_name, other_options)] = GUESTS;
    let (mut child, _stdout) = lab(options, OBEYS);
    send(&child, Signal::TERM);
    assert!(ends_within(&child, IN_LAB), "{name}");
    assert_eq!(child.wait().expect("wait").code(), Some(143), "{name}");
    oracle.assert_nothing(&format!("SIGTERM to a {name} in the lab"));

    let (mut child, mut stdout) = lab(other_options, HEARS);
    send(&child, Signal::INT);
    hear(&mut stdout, "heard");
    send(&child, Signal::INT);
    assert!(ends_within(&child, AT_ONCE), "{other_name}: a second signal");
    assert_eq!(child.wait().expect("wait").code(), Some(130), "{other_name}");
    oracle.assert_nothing(&format!("two signals to a {other_name} in the lab"));
}
