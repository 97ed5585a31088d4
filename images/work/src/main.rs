//! The workloads: one static program that does one known thing, the same bytes at every level.
//!
//! `isolab-work NAME ARGS...`, or a link whose name is the workload's. With `ISOLAB_MARK` in the environment it
//! writes mark W at its first instructions and R when it is ready. Measuring workloads print one JSON line
//! ([`measure`]). Nothing runs before the entry.
#![no_std]
#![no_main]

mod app;
mod fault;
mod files;
mod lifecycle;
mod measure;
mod memory;
mod micro;
mod show;
mod stream;
mod switch;
mod tree;

use core::ffi::CStr;

use isolab_bare::mark::Marks;
use isolab_bare::start::Start;
use isolab_bare::sys::{Errno, Fd, clock, io, process};
use isolab_bare::text::{self, Text};
use isolab_wire::mark::Code;
use isolab_wire::trace::Subphase;
use isolab_wire::{DELAY_ENV, MARK_ENV};

#[allow(unsafe_code)]
mod entry {
    isolab_bare::entry!(super::main);
}

pub(crate) const STDIN: Fd = Fd(0);
pub(crate) const STDOUT: Fd = Fd(1);
pub(crate) const STDERR: Fd = Fd(2);

/// How a workload ends: its exit status, or the error that stopped it (status 1).
pub(crate) type End = Result<u8, Errno>;

/// A workload: name, arguments, what it does in words, what it does.
type Workload = (&'static str, &'static str, &'static str, fn(&Run) -> End);

static WORKLOADS: &[Workload] = &[
    ("null", "", "ready at once, then ends", lifecycle::null),
    ("true", "", "the same", lifecycle::null),
    ("exit", "CODE", "ends with this status", lifecycle::exit),
    ("crash", "[SIGNAL]", "ends by this signal (11)", lifecycle::crash),
    ("spin", "[SECONDS]", "keeps a CPU busy", lifecycle::spin),
    ("pause", "", "waits for a signal", lifecycle::pause),
    ("ready-after", "MS", "ready so long after its start", lifecycle::ready_after),
    ("serve", "PORT|PATH [REQUESTS]", "echo server on a port or socket", stream::serve),
    ("cat", "", "input to output", stream::cat),
    ("echo", "WORDS...", "prints its arguments", stream::echo),
    ("yes", "MIB", "so much output", stream::yes),
    ("args", "", "its arguments, one a line", show::args),
    ("env", "", "its environment", show::env),
    ("id", "", "user, group, groups", show::id),
    ("uname", "", "kernel name, host name, release", show::uname),
    ("mounts", "", "what is mounted", show::mounts),
    ("cwd", "", "working directory", show::cwd),
    ("fresh", "", "random numbers, an address and the time", show::fresh),
    ("ttysize", "", "size of the terminal", show::ttysize),
    ("inherited", "", "descriptors and signals it started with", show::inherited),
    ("touch", "MIB", "writes so much memory", memory::touch),
    ("touch-read", "MIB", "writes and reads it", memory::touch_read),
    ("touch-free", "MIB", "writes it, frees it at a byte of input", memory::touch_free),
    ("fault", "anon|anon-again|file N [REPS]", "page faults", fault::fault),
    ("chase", "KIB N [REPS]", "dependent loads in so much memory", memory::chase),
    ("stream", "KIB N [REPS]", "loads in order, 1 KiB each", memory::stream),
    ("alu", "N [REPS]", "arithmetic", micro::alu),
    ("clock", "N [REPS]", "reads the clock", micro::clock),
    ("sys", "null|open|stat|readdir|neglookup N [REPS]", "one system call, many times", files::sys),
    ("pingpong", "pipe|futex N [REPS]", "to another process and back", switch::pingpong),
    ("proc", "fork|exec|thread N [REPS]", "starts processes or threads", micro::proc),
    ("timer", "N [REPS]", "sleeps 1 ms, many times", micro::timer),
    ("rand", "N [REPS]", "random numbers of the kernel", micro::rand),
    ("pio", "N [REPS]", "port writes (guest only)", micro::pio),
    ("blk", "read|write|fsync N [REPS]", "blocks of 4 KiB", files::blk),
    ("console", "N [REPS]", "lines of 64 bytes to standard error", stream::console),
    ("hash", "N [REPS]", "hash of 4 KiB", app::hash),
    ("compress", "N [REPS]", "repeated strings in 4 KiB", app::compress),
    ("kv", "N [REPS]", "sets and gets in a table", app::kv),
    ("tree", "[DIR [N [REPS]]]", "reads all files below a directory", tree::tree),
];

/// One run of a workload.
pub(crate) struct Run {
    pub(crate) start: Start,
    marks: Marks,
    /// Index of the workload's first argument.
    first: usize,
}

impl Run {
    /// Says that the workload is ready: all that its name promises to set up is there.
    pub(crate) fn ready(&self) {
        self.delay(Subphase::WorkloadReady);
        self.marks.ready();
        self.delay(Subphase::WorkloadRun);
    }

    /// Waits inside a subphase of our own where the timeline is tested.
    fn delay(&self, subphase: Subphase) {
        let asked = self.start.var(DELAY_ENV).and_then(|v| v.strip_prefix(subphase.key().as_bytes()));
        if let Some(ms) = asked.and_then(|v| text::parse(v.strip_prefix(b"=")?)) {
            let _ = clock::sleep_until_ns(clock::monotonic_ns().saturating_add(ms.saturating_mul(1_000_000)));
        }
    }

    /// An argument of the workload.
    pub(crate) fn arg(&self, i: usize) -> Option<&'static CStr> {
        self.start.arg(self.first + i)
    }

    /// A number among the arguments, or the default where there is none.
    pub(crate) fn number(&self, i: usize, default: u64) -> Result<u64, Errno> {
        match self.arg(i) {
            None => Ok(default),
            Some(text) => text::parse(text.to_bytes()).ok_or(Errno::INVAL),
        }
    }
}

fn main(start: Start) -> ! {
    let marks = Marks::from_env(start.var(MARK_ENV));
    marks.write_at(Code::Work, 0, start.tsc);
    let base = |path: &'static CStr| path.to_bytes().rsplit(|&c| c == b'/').next().unwrap_or_default();
    let find = |name: &[u8]| WORKLOADS.iter().find(|w| w.0.as_bytes() == name);
    let by_link = start.arg(0).and_then(|a| find(base(a))).map(|w| (w, 1));
    let chosen = by_link.or_else(|| start.arg(1).and_then(|a| find(a.to_bytes())).map(|w| (w, 2)));
    let Some((&(name, .., workload), first)) = chosen else {
        let asked = start.arg(1).is_some_and(|a| a == c"help" || a == c"--help");
        usage(if asked { STDOUT } else { STDERR });
        process::exit(if asked { 0 } else { 2 })
    };
    match workload(&Run { start, marks, first }) {
        Ok(code) => process::exit(i32::from(code)),
        Err(errno) => {
            complain(name, errno);
            process::exit(if errno == Errno::INVAL { 2 } else { 1 })
        }
    }
}

fn usage(to: Fd) {
    const COLUMN: usize = 54;
    let _ = io::write_all(to, b"usage: isolab-work NAME [ARGUMENT]..., with these names:\n");
    for (name, arguments, words, _) in WORKLOADS {
        let mut line = Text::<160>::new();
        line.push(b"  ").push(name.as_bytes()).push(b" ").push(arguments.as_bytes());
        while line.bytes().len() < COLUMN {
            line.push(b" ");
        }
        line.push(b" ").push(words.as_bytes()).push(b"\n");
        let _ = io::write_all(to, line.bytes());
    }
}

fn complain(name: &str, errno: Errno) {
    let mut line = Text::<128>::new();
    line.push(b"isolab-work ").push(name.as_bytes()).push(b": ");
    match errno {
        Errno::INVAL => line.push(b"an argument is missing or means nothing"),
        other => line.push(b"error number ").number(u64::from(other.0)),
    };
    let _ = io::write_all(STDERR, line.push(b"\n").bytes());
}
