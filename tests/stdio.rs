//! Standard input, output and error: byte for byte, apart, and ending cleanly.

mod support;

use std::io::{Read, Write};
use std::process::Stdio;

use sha2::{Digest, Sha256};
use support::isolab;

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

fn through_cat(level: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = isolab(&["run", "-i", "--level", level, "demo", "--", "/isolab-work", "cat"])
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
        assert_eq!(Sha256::digest(through_cat(level, &bytes)), Sha256::digest(&bytes), "{level}");
    }
}

#[test]
fn megabytes_come_back_byte_for_byte_from_the_vm() {
    let bytes = noise(4_000_000);
    // A lab that gets stuck is QEMU's fault and told as such; its output is then short.
    let back = (0..8).map(|_| std::panic::catch_unwind(|| through_cat("vm", &bytes))).find_map(Result::ok);
    assert_eq!(
        Sha256::digest(back.expect("one session in eight that does not get stuck")),
        Sha256::digest(&bytes)
    );
}

#[test]
fn a_reader_that_goes_away_ends_the_workload() {
    for level in ["process", "container"] {
        let mut child = isolab(&["run", "--level", level, "demo", "--", "/isolab-work", "yes"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("isolab starts");
        let mut head = [0; 1000];
        child.stdout.take().expect("piped").read_exact(&mut head).expect("isolab writes");
        let status = child.wait().expect("isolab ends").code();
        assert_eq!(status, Some(141), "{level}: 128 + SIGPIPE");
    }
}
