//! Starts that hang: ended by isolab's own deadline, from outside, with an outcome of their own.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::leaks::Oracle;
use support::{half_in_lab, home, run};

/// What a deadline is kept to, on a busy machine.
const SLACK: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(1);

/// A kernel of a few bytes of code that never comes to a process 1: one segment at 16 MiB, and the text by which a kernel is known.
fn kernel(code: &[u8]) -> Vec<u8> {
    const AT: u64 = 0x100_0000;
    let data = [code, b"\0Linux version 0.0.0-hang (nobody@nowhere)\0"].concat();
    let size = u64::try_from(data.len()).expect("small");
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    // Entry, program headers, no sections.
    [AT, 64, 0].iter().for_each(|word| elf.extend_from_slice(&word.to_le_bytes()));
    elf.extend_from_slice(&[0; 4]);
    [64_u16, 56, 1, 0, 0, 0].iter().for_each(|half| elf.extend_from_slice(&half.to_le_bytes()));
    // PT_LOAD, readable and executable.
    [1_u32, 5].iter().for_each(|word| elf.extend_from_slice(&word.to_le_bytes()));
    [120, AT, AT, size, size, 0x1000]
        .iter()
        .for_each(|word: &u64| elf.extend_from_slice(&word.to_le_bytes()));
    elf.extend_from_slice(&data);
    elf
}

/// Runs `demo` with a short deadline for its start, which passes.
fn check(what: &str, options: &[&str], why: &str) {
    let oracle = Oracle::new(&home());
    let start = Instant::now();
    let done =
        run(&[&["run", "--on", "host", "--start-timeout", "1s", "--level"], options, &["demo"]].concat());
    let took = start.elapsed();
    assert_eq!((done.status, done.stdout.as_str()), (Some(125), ""), "{what}: {}", done.stderr);
    let line =
        format!("isolab: the command did not start within 1s: {why}; give more time with --start-timeout\n");
    assert_eq!(done.stderr, line, "{what}");
    assert!((DEADLINE..DEADLINE + SLACK).contains(&took), "{what}: {took:?}");
    oracle.assert_nothing(what);
    println!("{what}: ended after {took:?}");
}

#[test]
fn a_child_that_hangs_before_the_command_is_ended() {
    let why = "the child process did not come to it";
    check("process", &["process", "--test-fault=root_mounts=delay:10000"], why);
    check("container", &["container", "--test-fault=identity=delay:10000"], why);
    check("process 1", &["container", "--test-fault=pivot=delay:10000"], why);
}

#[test]
fn the_time_of_a_command_is_not_the_time_of_its_start() {
    let args = ["--start-timeout", "1s", "demo", "--", "/isolab-work", "ready-after", "1300"];
    for level in ["process", "container"] {
        let done = run(&[&["run", "--level", level], &args[..]].concat());
        assert_eq!((done.status, done.stderr.as_str()), (Some(0), ""), "{level}");
    }
}

#[test]
fn a_guest_that_never_boots_is_ended() {
    half_in_lab(&["--lab-clock", "wall"], "inside_the_lab_a_guest_that_never_boots_is_ended");
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_a_guest_that_never_boots_is_ended() {
    let never_boots = "the guest's kernel did not come to its process 1 (--guest-console shows what it says)";
    let kernels: [(&str, &[u8]); 3] = [
        // cli; hlt
        ("halts", &[0xfa, 0xf4, 0xeb, 0xfd]),
        // cli, then a loop
        ("loops", &[0xfa, 0xeb, 0xfe]),
        // A loop that reads a port which belongs to nothing: in al, 0x61
        ("exits", &[0xfa, 0xe4, 0x61, 0xeb, 0xfc]),
    ];
    for (name, code) in kernels {
        let file = format!("/tmp/{name}");
        fs::write(&file, kernel(code)).expect("write");
        let added = run(&["kernel", "add", &file, "--name", name]);
        assert_eq!(added.status, Some(0), "{}", added.stderr);
        check(name, &["vm", "--kernel", name], never_boots);
    }
    check("monitor", &["vm", "--test-fault=guest_kernel=delay:10000"], never_boots);
    let never_runs = "the monitor did not come to run the guest";
    check("monitor before", &["vm", "--test-fault=devices=delay:10000"], never_runs);
}
