//! The port: what a level is. Small on purpose; a new level is one file in `src/levels/` and one registry line.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use isolab_images::job::Job;
use isolab_wire::mark::{Code, Exit, Failure};
use isolab_wire::trace::Subphase;
use serde::{Deserialize, Serialize};

use crate::run_report::Detail;

/// A level of isolation.
pub trait Level {
    /// Its name on the command line and in records.
    fn name(&self) -> &'static str;

    /// Whether this host can run it.
    ///
    /// # Errors
    /// Why not, and what to do about it.
    fn check(&self) -> Result<(), Unavailable>;

    /// Starts the job; dropping the running thing kills it and frees what it held.
    ///
    /// # Errors
    /// The step that failed; nothing is left behind.
    fn start(&self, job: &Job, stdio: HostStdio) -> Result<Box<dyn Running>, StartError>;
}

/// Any level's own error, shown as a chain.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// One sentence on why a level can't run here, and one on the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unavailable {
    /// What is missing.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// The host's ends, given to the instance: any kind of descriptor.
#[derive(Debug)]
pub struct HostStdio {
    /// Read for the workload's standard input; nothing: /dev/null.
    pub stdin: Option<OwnedFd>,
    /// Gets standard output.
    pub stdout: OwnedFd,
    /// Gets standard error.
    pub stderr: OwnedFd,
}

/// A started instance.
pub trait Running {
    /// What to poll for reading; whenever one is readable, call [`Running::advance`].
    fn events(&self) -> Vec<BorrowedFd<'_>>;
    /// Takes in what happened: stamps marks, reads the charge when the workload is ready. True once it has ended.
    ///
    /// # Errors
    /// The instance broke in a way that is not the workload's.
    fn advance(&mut self) -> Result<bool, StartError>;
    /// Whether the workload's command runs (before that there is nobody to signal).
    fn executing(&self) -> bool;
    /// When a moment came that it has told, `CLOCK_MONOTONIC` ns; nothing before [`Running::advance`] took it in.
    fn at(&self, code: Code) -> Option<u64>;
    /// What its cgroup is charged now; nothing where it has none.
    ///
    /// # Errors
    /// A counter can't be read.
    fn charge(&self) -> Result<Option<MemoryReading>, StartError>;
    /// CPU time of its processes so far, in nanoseconds; nothing where that is not known.
    fn cpu_ns(&self) -> Option<u64>;
    /// Sends a signal to the workload.
    fn signal(&mut self, signal: u8);
    /// Tells the workload's terminal its new size.
    fn resize(&mut self, rows: u16, cols: u16);
    /// Ends everything at once.
    fn kill(&mut self);
    /// Waits for the end and frees everything.
    ///
    /// # Errors
    /// The instance broke in a way that is not the workload's.
    fn wait(self: Box<Self>) -> Result<Outcome, StartError>;
}

/// How an instance ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The end.
    pub end: End,
    /// Its moments, in order of arrival.
    pub stamps: Vec<Stamp>,
    /// Ends of the subphases that it stamped, on `CLOCK_MONOTONIC` in nanoseconds, in no order.
    pub subphases: Vec<(Subphase, u64)>,
    /// What its cgroup was charged.
    pub memory: Option<MemoryReading>,
    /// CPU time in nanoseconds, by the record's key, when it was ready.
    pub cpu_ns: BTreeMap<String, u64>,
    /// Counters by the record's key, when it was ready.
    pub counters: BTreeMap<String, u64>,
    /// `CLOCK_MONOTONIC` ns when everything was freed.
    pub clean_ns: u64,
    /// What the level knows of the instance besides numbers.
    pub detail: Detail,
}

/// The end of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The workload ended by itself or by a signal.
    Workload(Exit),
    /// The kernel killed it for memory (cgroup or guest): status 137.
    OutOfMemory,
    /// A step before the workload failed.
    Failed(Failure),
    /// Killed by us ([`Running::kill`]).
    Killed,
}

/// One moment on the host's `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which.
    pub code: Code,
    /// When, in nanoseconds.
    pub at_ns: u64,
}

/// What the instance's own cgroup was charged, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReading {
    /// Cgroup version that gave the numbers: `v1` or `v2`.
    pub source: String,
    /// Charge when the workload was ready (or had ended, if it never said so).
    pub current_bytes: u64,
    /// Anonymous part.
    pub anon_bytes: Option<u64>,
    /// Page cache part.
    pub file_bytes: Option<u64>,
    /// Kernel part.
    pub kernel_bytes: Option<u64>,
    /// High-water mark.
    pub peak_bytes: u64,
    /// What else is known, by the record's key: parts of the parts, and what the processes say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, u64>,
}
