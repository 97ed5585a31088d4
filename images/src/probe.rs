//! What isolab and its probe program say to each other: one [`Spec`] as a line of JSON on the program's standard input,
//! then [`Line`]s on its standard output.
//!
//! The program (`images/probe/`) includes this file: it is built on its own and can't depend on this package. What it says
//! comes out of a level that may be hostile: nothing of it is believed that can be checked, and every length is bounded.

use serde::{Deserialize, Serialize};

/// Longest line, in bytes.
pub const MAX_LINE: usize = 64 << 10;
/// Most lines of one run.
pub const MAX_LINES: usize = 20_000;
/// Most bytes of what an item has seen.
pub const MAX_SEEN: usize = 8 << 10;

/// So much of a program is hashed.
pub const HASHED: u64 = 1 << 20;

/// Told to the planted process on its standard input: make load ([`LOAD_SHAPE`]).
pub const LOAD_ON: u8 = b'l';
/// Make none.
pub const LOAD_OFF: u8 = b'q';
/// Threads that run where there is load.
pub const LOAD_THREADS: u32 = 12;
/// In which steps there is load, again and again: a shape that is like itself at no other moment.
pub const LOAD_SHAPE: [bool; 7] = [true, true, true, false, true, false, false];

/// Bytes of output with which the program floods whoever takes it.
pub const FLOOD_BYTES: u64 = 32 << 20;

/// What to look for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Which probes, by id.
    pub probes: Vec<String>,
    /// Time of each probe, in milliseconds.
    pub limit_ms: u32,
    /// What was planted on the host.
    pub planted: Planted,
    /// Files to read, of all probes that compare files.
    pub files: Vec<FileWanted>,
    /// Where on the host the image's file is.
    pub image_file: String,
    /// The host's isolab: its length, and the hash ([`fnv`]) of its first [`HASHED`] bytes. Numbers of devices and inodes mean
    /// nothing in another kernel.
    pub isolab: (u64, String),
    /// Size limit of each tmpfs of the level.
    pub tmpfs_bytes: u64,
    /// Names of the environment that the job gives.
    pub env_names: Vec<String>,
}

/// What was planted on the host, each with the run's random text in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planted {
    /// The random text that is part of all of these.
    pub nonce: String,
    /// A file.
    pub file: String,
    /// A socket in the file system that listens.
    pub socket_file: String,
    /// An abstract socket that listens.
    pub abstract_name: String,
    /// A port of 127.0.0.1 that listens.
    pub port: u16,
    /// The name of a process.
    pub process: String,
    /// Its number.
    pub pid: i32,
    /// A System V shared memory segment.
    pub shm_id: i32,
    /// A file of POSIX shared memory.
    pub shm_file: String,
    /// A file that is named as files of secrets are, and closed to others.
    pub secret_file: String,
    /// A variable of the process's environment that is named as secrets are.
    pub secret_variable: String,
    /// How many threads sleep on the host.
    pub threads: u32,
    /// Milliseconds of a step of the load ([`LOAD_SHAPE`]).
    pub load_step_ms: u32,
    /// The variable of the environment of isolab itself and of the process.
    pub variable: String,
}

/// A file to read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileWanted {
    /// Of which probe.
    pub probe: String,
    /// Its item.
    pub item: String,
    /// Path.
    pub path: String,
    /// Which line: the first that begins so.
    pub prefix: String,
}

/// What the program says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Line {
    /// First: which program this is.
    Program {
        /// FNV-1a, 64 bits, of its own file as the level shows it.
        fnv: String,
    },
    /// Something was tried.
    Item(Item),
    /// A probe has ended.
    End {
        /// Which.
        probe: String,
        /// How long it took.
        ns: u64,
        /// The signal that ended it.
        signal: Option<i32>,
        /// It was ended because its time was over.
        late: bool,
    },
    /// Last.
    Done,
}

/// Something that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Probe.
    pub probe: String,
    /// What of it.
    pub item: String,
    /// How it went.
    pub found: Found,
    /// The kernel's error number.
    pub errno: Option<i32>,
    /// The signal that ended the attempt.
    pub signal: Option<i32>,
    /// The system call: number and the low halves of its first three arguments.
    pub call: Option<(u32, [u32; 3])>,
    /// What was seen.
    pub seen: Option<String>,
}

/// How an attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It worked: the thing was seen, or the call got past every check.
    Reached,
    /// It was refused, or the thing is hidden.
    Blocked,
    /// There is no such thing here.
    Absent,
    /// Something was read; what it means is told by comparing it with the host's.
    Told,
    /// The attempt itself failed.
    Unknown,
}

/// FNV-1a, 64 bits: tells programs apart, proves nothing.
#[must_use]
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
