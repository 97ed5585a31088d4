//! The wire formats: what the encoder makes is read back whole, and no bytes at all make a reader panic.

use isolab_images::job::{BlockOptions, Job, Stdio, User};
use isolab_wire::control::{MESSAGE_LEN, Message};
use isolab_wire::job::{HEADER_LEN, Header, Job as Block, JobBlockError, MAX_LEN, flag};
use isolab_wire::mark::{Clock, Code, Exit, Failure, Mark, RECORD_LEN, Step};
use proptest::collection::vec;
use proptest::prelude::*;

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

fn plain(s: &[u8]) -> String {
    String::from_utf8_lossy(s.strip_suffix(b"\0").expect("every string ends in NUL")).into_owned()
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
        let bytes = job.encode(&options).expect("small job fits");
        let block = Block::decode(&bytes).expect("what encode makes is a block");
        prop_assert_eq!(block.args().map(plain).collect::<Vec<_>>(), job.argv);
        prop_assert_eq!(block.env().map(plain).collect::<Vec<_>>(), job.env);
        prop_assert_eq!(plain(block.workdir()), job.workdir);
        prop_assert_eq!(plain(block.hostname()), job.hostname);
        prop_assert_eq!((block.header.uid, block.header.gid), (job.user.uid, job.user.gid));
        let groups = if no_groups { vec![] } else { job.user.groups };
        prop_assert_eq!(block.groups().collect::<Vec<_>>(), groups);
        prop_assert_eq!(block.limits().collect::<Vec<_>>(), limits);
        prop_assert_eq!(block.filter, filter.as_deref().unwrap_or_default());
        prop_assert_eq!((block.header.tmpfs_bytes, block.header.fault), (job.memory_bytes / 2, fault));
        let terminal = if let Stdio::Terminal { rows, cols } = job.stdio { Some((rows, cols)) } else { None };
        let expected = [
            (flag::TTY, terminal.is_some()),
            (flag::READ_ONLY, job.read_only),
            (flag::MARKS, job.marks),
            (flag::STDIN, job.stdio != Stdio::Output),
            (flag::CONFINE, filter.is_some()),
            (flag::ROOT_IS_DIR, root_is_dir),
        ];
        for (bit, on) in expected {
            prop_assert_eq!(block.has(bit), on);
        }
        prop_assert_eq!((block.header.rows, block.header.cols), terminal.unwrap_or_default());
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
        for message in [Message::Resize { rows, cols }, Message::Signal(signal)] {
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        if let Some(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }

    #[test]
    fn mark_is_read_back_and_any_bytes_are_read(value: u32, stamp: u64, bytes: [u8; RECORD_LEN]) {
        let codes = [Code::RunBegin, Code::Init, Code::Exec, Code::Work, Code::Ready, Code::Ram, Code::FreeRam, Code::Exit, Code::Failed];
        for code in codes {
            for clock in [Clock::None, Clock::Monotonic, Clock::Tsc] {
                let mark = Mark { code, clock, value, stamp };
                prop_assert_eq!(Mark::decode(&mark.encode()), Some(mark));
            }
        }
        if let Some(mark) = Mark::decode(&bytes) {
            prop_assert_eq!(mark.encode(), bytes);
        }
    }

    #[test]
    fn ends_are_read_back_and_any_value_is_read(code: u8, signal in 1..128_u8, errno: u16, value: u32) {
        for exit in [Exit::Code(code), Exit::Signal(signal)] {
            prop_assert_eq!(Exit::decode(exit.encode()), Some(exit));
        }
        if let Some(exit) = Exit::decode(value) {
            prop_assert_eq!(exit.encode(), value);
        }
        for step in (0..100).filter_map(Step::from_number) {
            let failure = Failure { step, errno };
            prop_assert_eq!(Failure::decode(failure.encode()), Some(failure));
        }
        if let Some(failure) = Failure::decode(value) {
            prop_assert_eq!(failure.encode(), value);
        }
    }
}

/// Every reader over a block, if it is one.
fn read_all(bytes: &[u8]) {
    let Ok(block) = Block::decode(bytes) else { return };
    let strings = block.args().count() + block.env().count();
    assert_eq!(strings, block.header.n_args as usize + block.header.n_env as usize);
    assert!(
        block
            .args()
            .chain(block.env())
            .chain([block.workdir(), block.hostname()])
            .all(|s| s.ends_with(b"\0"))
    );
    assert_eq!(block.groups().count(), block.header.n_groups as usize);
    assert_eq!(block.limits().count(), block.header.n_limits as usize);
}

#[test]
fn header_that_says_too_much_is_refused_before_anything_is_read() {
    let header = |total: usize| Header::default().encode(u32::try_from(total).expect("small"));
    assert_eq!(Header::total_len(&header(MAX_LEN)), Ok(MAX_LEN));
    assert_eq!(Header::total_len(&header(MAX_LEN + 1)), Err(JobBlockError::Length));
    assert_eq!(Header::total_len(&header(HEADER_LEN - 1)), Err(JobBlockError::Length));
}
