//! The surface of the host's kernel that each level offers and uses: the record of a traced run.
//!
//! Numbers that are shown together, because each alone misleads: what may be *asked* of the host's kernel, what was *reached* in it by
//! a benign workload, and at vm what of the monitor and of KVM the guest touched (the *door*). They are no measure of safety: what
//! was reached says nothing of what an attacker could reach, and calls with arguments of isolab's own choice are not calls with an
//! attacker's.

use serde::{Deserialize, Serialize};

use crate::environment::Host;
use crate::record::Tool;

/// Name and version of the record.
pub const SCHEMA: &str = "isolab.surface/1";

/// Who makes system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// The command and what it starts, from its `execve` on.
    Workload,
    /// Threads of the monitor's processors, from the guest's first instruction on.
    Processors,
    /// The monitor's device thread, from then on.
    Devices,
    /// isolab: the launcher, process 1 of a container, and the monitor before the guest runs.
    Isolab,
}

impl Party {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Processors => "monitor, processors",
            Self::Devices => "monitor, devices",
            Self::Isolab => "isolab",
        }
    }
}

/// Which calls a filter lets through. Offline: from the filter itself, not from a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// Whose calls.
    pub party: Party,
    /// Only who has taken the party over may ask for them: its own program asks for what it was written to.
    pub after_takeover: bool,
    /// There is a filter.
    pub filtered: bool,
    /// With any arguments.
    pub always: Vec<String>,
    /// With some arguments.
    pub by_argument: Vec<String>,
}

/// What one party asked for in all runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// Whose calls.
    pub party: Party,
    /// Calls that entered the kernel, each once.
    pub calls: Vec<String>,
    /// Of calls that are many in one (`ioctl`, `fcntl`, `futex`...): each with its request.
    pub requests: Vec<String>,
    /// Calls that a filter refused before they entered.
    pub refused: Vec<String>,
    /// Distinct calls in each run.
    pub distinct: Vec<usize>,
    /// Calls in each run, repetitions counted.
    pub total: Vec<u64>,
    /// Distinct calls of each run that none before it had: the set still grows where the last is not 0.
    pub new: Vec<usize>,
}

/// What the guest touched in the monitor and in KVM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// Why the guest's processors left it, for KVM or for the monitor, as the hardware names it.
    pub exits: Vec<String>,
    /// Exits in each run.
    pub exit_counts: Vec<u64>,
    /// Why the guest came out to the monitor.
    pub reasons: Vec<String>,
    /// How often, in each run.
    pub reason_counts: Vec<u64>,
    /// Ports that were read or written.
    pub ports: Vec<String>,
    /// Addresses of device registers that were read or written, in KVM or in the monitor.
    pub registers: Vec<String>,
}

/// The static tracepoints of the host's kernel that one party passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Points {
    /// Who.
    pub party: Party,
    /// Each once, as `part:name`.
    pub tracepoints: Vec<String>,
}

/// How deep it went in one more run. Coarse: code between two tracepoints is not seen, and interrupts count for whom they meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depth {
    /// Tracepoints that were on.
    pub known: usize,
    /// What was passed.
    pub passed: Vec<Points>,
    /// Why there is nothing.
    pub not_measured: Option<String>,
}

/// One level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelSurface {
    /// Its name.
    pub level: String,
    /// What may be asked of the host's kernel.
    pub allowed: Vec<Allowed>,
    /// What was.
    pub reached: Vec<Reached>,
    /// Of a guest.
    pub door: Option<Door>,
    /// Status of each run.
    pub statuses: Vec<u8>,
    /// Where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
}

impl LevelSurface {
    /// What this party reached.
    #[must_use]
    pub fn of(&self, party: Party) -> Option<&Reached> {
        self.reached.iter().find(|reached| reached.party == party)
    }
}

/// A run of `isolab surface`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurfaceRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// This program.
    pub tool: Tool,
    /// When it began, nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// The command line.
    pub argv: Vec<String>,
    /// The machine whose kernel it is.
    pub host: Host,
    /// Name of the image.
    pub image: String,
    /// The command; nothing where each call of the kernel was tried in turn.
    pub command: Vec<String>,
    /// Runs of each level.
    pub runs: u32,
    /// How many calls the host's kernel is known to have.
    pub known_calls: usize,
    /// The levels, in order.
    pub levels: Vec<LevelSurface>,
    /// What is in none of these numbers.
    pub blind_spots: Vec<String>,
}

/// What a trace of system calls can't see.
pub const BLIND_SPOTS: &[&str] = &[
    "what the vDSO answers (clock_gettime, getcpu): no call",
    "page faults, exceptions and interrupts",
    "operations that io_uring takes from shared memory (level process; a container has none)",
    "calls of the 32-bit table, which are told by the names of the 64-bit one (level process; a container has none)",
    "work of kernel threads on behalf of a level (writeback, KVM's own threads, softirq)",
    "what KVM does for a guest without leaving it for the monitor: its counters are the door's",
    "everything below the host's kernel: firmware, a hypervisor that it runs under",
];

impl SurfaceRecord {
    /// From its JSON.
    ///
    /// # Errors
    /// It is not of this form, or of another version.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Self = serde_json::from_slice(bytes)?;
        let other = || serde::de::Error::custom(format!("a record of {:?}, not {SCHEMA}", record.schema));
        if record.schema == SCHEMA { Ok(record) } else { Err(other()) }
    }

    /// As JSON, with its last newline.
    ///
    /// # Errors
    /// Never for a record of this form.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        isolab_images::escape::json(self).map(|json| json + "\n")
    }
}
