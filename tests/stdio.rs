//! Standard input, output and error: byte for byte, apart, and ending cleanly. `ISOLAB_TEST_FULL=1`: a hundred megabytes through guests, too.

mod support;

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};
use support::{GUESTS, OF_LAB, at_every_level, ends_within, isolab, run};

/// Bytes that no pattern in a pump can imitate.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn through_cat(level: &str, more: &[&str], bytes: &[u8]) -> Vec<u8> {
    let args = [&["run", "-i", "--lab-clock", "wall", "--level", level], more].concat();
    let mut child = isolab(&[&args[..], &["demo", "--", "/isolab-work", "cat"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("isolab starts");
    let mut stdin = child.stdin.take().expect("piped");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let mut out = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut out).expect("isolab writes");
    writer.join().expect("no panic").expect("isolab reads everything");
    assert!(child.wait().expect("isolab ends").success());
    out
}

#[test]
fn a_hundred_megabytes_come_back_byte_for_byte_from_process_and_container() {
    let bytes = noise(100_000_000);
    for level in ["process", "container"] {
        assert_eq!(Sha256::digest(through_cat(level, &[], &bytes)), Sha256::digest(&bytes), "{level}");
    }
}

#[test]
fn megabytes_come_back_byte_for_byte_from_the_vm_in_the_lab() {
    // A tenth fills all buffers on the way many times.
    let bytes = noise(if support::full() { 100_000_000 } else { 10_000_000 });
    // A lab that gets stuck is QEMU's fault and told as such; its output is then short.
    for (name, options) in GUESTS {
        let once = |_| std::panic::catch_unwind(|| through_cat("vm", options, &bytes)).ok();
        let back = (0..8).find_map(once).expect("one session in eight that does not get stuck");
        assert_eq!(Sha256::digest(back), Sha256::digest(&bytes), "{name}");
    }
}

/// Levels, with what starts a command there: vm in the lab, and there from a snapshot.
const LEVELS: [(&str, &[&str]); 4] = [
    ("process", &[]),
    ("container", &[]),
    ("vm", &["--on", "lab", "--lab-clock", "wall"]),
    ("vm", &["--on", "lab", "--lab-clock", "wall", "--from-snapshot"]),
];

/// Starts a command with pipes on all three streams.
fn piped(level: &str, place: &[&str], args: &[&str]) -> Child {
    isolab(&[&["run", "-i", "--level", level], place, args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("isolab starts")
}

/// Waits for the end, which must come, and gives status and standard error without the line that says where it ran.
fn end(mut child: Child, context: &str) -> (Option<i32>, String) {
    assert!(ends_within(&child, Duration::from_secs(60)), "{context} hangs");
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
    let lines = stderr.lines().filter(|line| !OF_LAB.iter().any(|said| line.starts_with(said)));
    (child.wait().expect("wait").code(), lines.collect())
}

#[test]
fn a_reader_that_goes_away_ends_the_workload() {
    for (level, place) in LEVELS {
        let mut child = piped(level, place, &["demo", "--", "/isolab-work", "yes"]);
        let mut head = [0; 1000];
        child.stdout.take().expect("piped").read_exact(&mut head).expect("isolab writes");
        let (status, stderr) = end(child, level);
        assert_eq!((status, stderr.as_str()), (Some(141), ""), "{level}: 128 + SIGPIPE, and no noise");
    }
}

#[test]
fn a_workload_that_closes_its_input_does_not_end_isolab_early() {
    support::busybox();
    // How a guest began is nothing to its streams.
    for (level, place) in &LEVELS[..3] {
        let script = "exec <&-; echo closed; echo aside >&2; sleep 0.2; exit 5";
        let mut child = piped(level, place, &["busybox", "--", "sh", "-c", script]);
        let mut stdin = child.stdin.take().expect("piped");
        // More than all buffers on the way hold; it ends with the reader.
        let writer = std::thread::spawn(move || (0..64).try_for_each(|_| stdin.write_all(&[0; 1 << 20])));
        let mut out = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut out).expect("isolab writes");
        let (status, stderr) = end(child, level);
        assert_eq!((status, out.as_str(), stderr.as_str()), (Some(5), "closed\n", "aside"), "{level}");
        assert!(writer.join().expect("no panic").is_err(), "{level}: nobody reads on");
    }
}

#[test]
fn an_input_that_ends_at_once_and_an_output_closed_from_the_start_end_cleanly() {
    // Nor here.
    for (level, place) in &LEVELS[..3] {
        let mut child = piped(level, place, &["demo", "--", "/isolab-work", "cat"]);
        drop(child.stdin.take());
        let mut out = Vec::new();
        child.stdout.take().expect("piped").read_to_end(&mut out).expect("isolab writes");
        let (status, stderr) = end(child, level);
        assert_eq!((status, out.len(), stderr.as_str()), (Some(0), 0, ""), "{level}");

        let mut child = piped(level, place, &["demo", "--", "/isolab-work", "echo", "x"]);
        drop(child.stdout.take());
        let (status, stderr) = end(child, level);
        // The one line may have found room in a pipe whose reader was not known to be gone yet.
        assert!(matches!(status, Some(0 | 1 | 141)), "{level}: {status:?}");
        assert!(!stderr.contains("panic") && !stderr.contains("Broken pipe"), "{level}: {stderr}");
    }
}

#[test]
fn a_run_that_writes_more_than_its_budget_is_ended_at_the_byte_at_every_level() {
    // One of each: as much as the budget, a byte more, far more, and more on standard error.
    let commands = [
        vec!["--max-output", "6", "demo", "--", "/isolab-work", "echo", "hello"],
        vec!["--max-output", "5", "demo", "--", "/isolab-work", "echo", "hello"],
        vec!["--max-output", "64K", "demo", "--", "/isolab-work", "yes", "2"],
        vec!["--max-output", "100", "demo", "--", "/isolab-work", "console", "1000"],
        vec!["--max-output", "0", "demo", "--", "/isolab-work", "null"],
    ];
    let ended = "isolab: ended by the limit of --max-output\n";
    for (level, results) in at_every_level(&commands) {
        let [exact, more, flood, errors, nothing] = &results[..] else { panic!("five runs") };
        assert_eq!((exact.status, exact.stdout.as_str()), (Some(0), "hello\n"), "{level}: {}", exact.stderr);
        assert_eq!((more.status, more.stdout.as_str()), (Some(153), "hello"), "{level}: {}", more.stderr);
        assert_eq!((flood.status, flood.stdout.len()), (Some(153), 64 << 10), "{level}: {}", flood.stderr);
        assert_eq!(errors.status, Some(153), "{level}: {}", errors.stderr);
        let said = errors.stderr.strip_suffix(ended).expect("isolab says why");
        assert_eq!(said.len() + errors.stdout.len(), 100, "{level}: {said}");
        assert_eq!((nothing.status, nothing.stdout.as_str()), (Some(0), ""), "{level}: {}", nothing.stderr);
        for over in [more, flood] {
            assert!(over.stderr.ends_with(ended), "{level}: {}", over.stderr);
        }
    }
}

#[test]
fn output_that_cannot_be_written_is_told_at_every_level() {
    for (level, place) in &LEVELS[..3] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("the full device");
        let args =
            [&["run", "--level", level], *place, &["demo", "--", "/isolab-work", "echo", "lost"]].concat();
        let child = isolab(&args).stdout(full).stderr(Stdio::piped()).spawn().expect("isolab starts");
        let done = child.wait_with_output().expect("isolab ends");
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.code() == Some(125) && told.contains("No space left on device"),
            "{level}: {told}"
        );
    }
}

#[test]
fn a_budget_that_is_no_size_is_refused() {
    for size in ["", "-1", "5x", "9999999999999G"] {
        let refused = run(&["run", "--max-output", size, "demo"]);
        assert_eq!(refused.status, Some(125), "{size}: {}", refused.stderr);
        assert!(refused.stderr.contains("--max-output"), "{size}: {}", refused.stderr);
    }
}
