//! What holds for the wire formats: for the property tests and for the fuzz target `wire`, which includes this file.

use isolab_images::job::{BlockOptions, Job, Stdio};
use isolab_wire::control::{MESSAGE_LEN, Message};
use isolab_wire::job::{Job as Block, flag};
use isolab_wire::mark::{Clock, Code, Exit, Failure, Mark, RECORD_LEN, Step};

fn plain(s: &[u8]) -> String {
    String::from_utf8_lossy(s.strip_suffix(b"\0").expect("every string ends in NUL")).into_owned()
}

/// A job reads back as it was encoded.
pub(crate) fn reads_back(job: &Job, options: &BlockOptions<'_>) {
    let bytes = job.encode(options).expect("small job fits");
    let block = Block::decode(&bytes).expect("what encode makes is a block");
    assert_eq!(block.args().map(plain).collect::<Vec<_>>(), job.argv);
    assert_eq!(block.env().map(plain).collect::<Vec<_>>(), job.env);
    assert_eq!(plain(block.workdir()), job.workdir);
    assert_eq!(plain(block.hostname()), job.hostname);
    assert_eq!((block.header.uid, block.header.gid), (job.user.uid, job.user.gid));
    let groups = if options.no_groups { vec![] } else { job.user.groups.clone() };
    assert_eq!(block.groups().collect::<Vec<_>>(), groups);
    assert_eq!(block.limits().collect::<Vec<_>>(), options.limits);
    assert_eq!(block.filter, options.confine_with.unwrap_or_default());
    assert_eq!((block.header.tmpfs_bytes, block.header.fault), (job.memory_bytes / 2, options.fault));
    let terminal = if let Stdio::Terminal { rows, cols } = job.stdio { Some((rows, cols)) } else { None };
    let expected = [
        (flag::TTY, terminal.is_some()),
        (flag::READ_ONLY, job.read_only),
        (flag::MARKS, job.marks),
        (flag::STDIN, job.stdio != Stdio::Output),
        (flag::CONFINE, options.confine_with.is_some()),
        (flag::ROOT_IS_DIR, options.root_is_dir),
    ];
    for (bit, on) in expected {
        assert_eq!(block.has(bit), on);
    }
    assert_eq!((block.header.rows, block.header.cols), terminal.unwrap_or_default());
}

/// So do messages, and any bytes are one that is encoded as them, or none.
pub(crate) fn messages_read_back(rows: u16, cols: u16, signal: u8, bytes: [u8; MESSAGE_LEN]) {
    for message in [Message::Resize { rows, cols }, Message::Signal(signal)] {
        assert_eq!(Message::decode(&message.encode()), Some(message));
    }
    if let Some(message) = Message::decode(&bytes) {
        assert_eq!(message.encode(), bytes);
    }
}

/// The same for marks.
pub(crate) fn marks_read_back(value: u32, stamp: u64, bytes: [u8; RECORD_LEN]) {
    let codes = [
        Code::RunBegin,
        Code::Init,
        Code::Exec,
        Code::Work,
        Code::Ready,
        Code::Ram,
        Code::FreeRam,
        Code::Exit,
        Code::Failed,
    ];
    for code in codes {
        for clock in [Clock::None, Clock::Monotonic, Clock::Tsc] {
            let mark = Mark { code, clock, value, stamp };
            assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        }
    }
    if let Some(mark) = Mark::decode(&bytes) {
        assert_eq!(mark.encode(), bytes);
    }
}

/// The same for ends.
pub(crate) fn ends_read_back(code: u8, signal: u8, errno: u16, value: u32) {
    for exit in [Exit::Code(code), Exit::Signal(signal)] {
        assert_eq!(Exit::decode(exit.encode()), Some(exit));
    }
    if let Some(exit) = Exit::decode(value) {
        assert_eq!(exit.encode(), value);
    }
    for step in (0..100).filter_map(Step::from_number) {
        let failure = Failure { step, errno };
        assert_eq!(Failure::decode(failure.encode()), Some(failure));
    }
    if let Some(failure) = Failure::decode(value) {
        assert_eq!(failure.encode(), value);
    }
}

/// Every reader over a block, if it is one.
pub(crate) fn read_all(bytes: &[u8]) {
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
