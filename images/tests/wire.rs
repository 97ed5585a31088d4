//! The wire formats: what the encoder makes is read back whole, and no bytes at all make a reader panic.

use isolab_images::job::{BlockOptions, Job, Stdio, User};
use isolab_wire::control::MESSAGE_LEN;
use isolab_wire::job::{HEADER_LEN, Header, Job as Block, JobBlockError, MAX_LEN};
use isolab_wire::mark::RECORD_LEN;
use proptest::collection::vec;
use proptest::prelude::*;

#[path = "wire/invariants.rs"]
mod invariants;
use invariants::{ends_read_back, marks_read_back, messages_read_back, read_all, reads_back};

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,20}"
}

prop_compose! {
    fn stdio()(kind in 0..3, rows: u16, cols: u16) -> Stdio {
        match kind {
            0 => Stdio::Output,
            1 => Stdio::Interactive,
            _ => Stdio::Terminal { rows, cols },
        }
    }
}

prop_compose! {
    fn job()(
        argv in vec(text(), 1..6),
        env in vec(text(), 0..6),
        workdir in text(),
        hostname in text(),
        uid: u32,
        gid: u32,
        groups in vec(any::<u32>(), 0..5),
        memory_bytes: u64,
        read_only: bool,
        marks: bool,
        stdio in stdio(),
    ) -> Job {
        Job {
            image: "sha256:0".to_owned(), argv, env, workdir, hostname, memory_bytes, read_only, marks, stdio,
            user: User { uid, gid, groups }, cpus: 1, pids: 1, timeout: None,
        }
    }
}

proptest! {
    #[test]
    fn job_reads_back_as_it_was_encoded(
        job in job(),
        limits in vec(any::<(u32, u64, u64)>(), 0..4),
        filter in proptest::option::of(vec(any::<[u8; 8]>(), 0..4)),
        root_is_dir: bool,
        program: bool,
        no_groups: bool,
        fault: (u8, u16),
    ) {
        let filter = filter.map(|f| f.concat());
        let options = BlockOptions { confine_with: filter.as_deref(), root_is_dir, program, no_groups, limits: &limits, fault, template: false };
        reads_back(&job, &options);
    }

    #[test]
    fn changed_block_is_refused_or_read_without_panic(job in job(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = job.encode(&BlockOptions::default()).expect("small job fits");
        prop_assert!(Block::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        read_all(&bytes);
    }

    #[test]
    fn any_bytes_are_no_block_or_a_readable_one(head in any::<[[u8; 32]; 2]>(), rest in vec(any::<u8>(), 0..200)) {
        let mut bytes = [head.concat(), rest].concat();
        read_all(&bytes);
        // The same behind a header that says what is needed to get past the first checks.
        let total = u32::try_from(bytes.len()).expect("small");
        bytes[..HEADER_LEN].copy_from_slice(&Header { n_args: 1, ..Header::default() }.encode(total));
        bytes[12..48].copy_from_slice(&head.concat()[12..48]);
        for high in (12..48).filter(|i| i % 4 != 0) {
            bytes[high] = 0;
        }
        read_all(&bytes);
    }

    #[test]
    fn message_is_read_back_and_any_bytes_are_read(rows: u16, cols: u16, signal in 1..=64_u8, bytes: [u8; MESSAGE_LEN]) {
        messages_read_back(rows, cols, signal, bytes);
    }

    #[test]
    fn mark_is_read_back_and_any_bytes_are_read(value: u32, stamp: u64, bytes: [u8; RECORD_LEN]) {
        marks_read_back(value, stamp, bytes);
    }

    #[test]
    fn ends_are_read_back_and_any_value_is_read(code: u8, signal in 1..128_u8, errno: u16, value: u32) {
        ends_read_back(code, signal, errno, value);
    }
}

#[test]
fn header_that_says_too_much_is_refused_before_anything_is_read() {
    let header = |total: usize| Header::default().encode(u32::try_from(total).expect("small"));
    assert_eq!(Header::total_len(&header(MAX_LEN)), Ok(MAX_LEN));
    assert_eq!(Header::total_len(&header(MAX_LEN + 1)), Err(JobBlockError::Length));
    assert_eq!(Header::total_len(&header(HEADER_LEN - 1)), Err(JobBlockError::Length));
}
