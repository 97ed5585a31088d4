//! Workload suites: what an operation costs at each level, one fresh instance for each sample.
//!
//! Order of events: [`SuitePlan::new`] draws the order of everything; a batch size for each measuring workload is found
//! once, at the first level; each slot of the plan runs one workload at one level with exactly that size and gives one
//! [`SuiteSample`]; [`summarise`] makes the numbers. The lines of [`lines`] are what is written and read.

pub mod lines;
mod plan;
mod sample;
mod summary;
mod work;

pub use plan::{SuitePlan, SuiteSlot, Task};
pub use sample::SuiteSample;
pub use summary::{Compared, SuiteSummary, summarise};
pub(crate) use work::number as exact;
pub use work::{Numbers, SuiteUnit, WorkLine, WorkLineError};

/// Repetitions of a batch inside one run of a workload; their median counts.
pub const REPETITIONS: u32 = 11;
/// The program that the image must hold.
pub const PROGRAM: &str = "/isolab-work";
/// Pairs on a host when the user names no number.
pub const PAIRS_ON_HOST: u32 = 10;
/// Pairs in the lab: the fewest that have an interval.
pub const PAIRS_IN_LAB: u32 = 6;

/// What a workload tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Its line: the time of an operation.
    Operations,
    /// Its line: how late a sleep ends.
    Lateness,
    /// Nothing itself: the moments of the run count.
    Moments,
    /// Nothing itself: the charge of the run counts.
    Charge,
}

/// A workload of a suite.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The words after the program's name; a measuring workload gets batch size and repetitions besides.
    pub words: &'static [&'static str],
    /// What it tells.
    pub tells: Tells,
    /// Least batch.
    pub least: u64,
}

/// A suite.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Its name.
    pub name: &'static str,
    /// What it exposes.
    pub about: &'static str,
    /// Its workloads.
    pub works: &'static [Work],
}

impl Work {
    const fn ops(words: &'static [&'static str]) -> Self {
        Self { words, tells: Tells::Operations, least: 1 }
    }

    const fn run(words: &'static [&'static str], tells: Tells) -> Self {
        Self { words, tells, least: 1 }
    }

    /// Its name in tables and records.
    #[must_use]
    pub fn name(&self) -> String {
        self.words.join(" ")
    }

    /// Whether it is a measuring one, with batches.
    #[must_use]
    pub const fn has_batches(&self) -> bool {
        matches!(self.tells, Tells::Operations | Tells::Lateness)
    }

    /// The command with this batch size.
    #[must_use]
    pub fn command(&self, batch: Option<u64>) -> Vec<String> {
        let mut command: Vec<String> =
            std::iter::once(&PROGRAM).chain(self.words).map(|&word| word.to_owned()).collect();
        if let Some(n) = batch {
            command.extend([n.to_string(), REPETITIONS.to_string()]);
        }
        command
    }

    /// The command that finds the batch size.
    #[must_use]
    pub fn calibration(&self) -> Vec<String> {
        [self.command(None), vec!["auto".to_owned()]].concat()
    }
}

/// Every suite of workloads, in the order of the method. `density` is not among them: it measures many instances.
pub static SUITES: &[Suite] = &[
    Suite {
        name: "startup",
        about: "from request to the first instruction, to ready and to the last resource freed",
        works: &[Work::run(&["null"], Tells::Moments)],
    },
    Suite {
        name: "memory",
        about: "the charge of an instance, a known amount more, and the latency of loads",
        works: &[
            Work::run(&["null"], Tells::Charge),
            Work::run(&["touch", "32"], Tells::Charge),
            Work::run(&["touch-read", "32"], Tells::Charge),
            Work::ops(&["chase", "32"]),
            Work::ops(&["chase", "1024"]),
            Work::ops(&["chase", "32768"]),
            Work::ops(&["stream", "16384"]),
        ],
    },
    Suite { name: "cpu", about: "execution mode, frequency, steal", works: &[Work::ops(&["alu"])] },
    Suite {
        name: "syscall",
        about: "the way into the kernel and back, the system call filter",
        works: &[Work::ops(&["sys", "null"]), Work::ops(&["rand"])],
    },
    Suite {
        name: "fault",
        about: "page faults: fresh pages, pages touched before, pages of a file",
        works: &[
            Work::ops(&["fault", "anon"]),
            Work::ops(&["fault", "anon-again"]),
            Work::ops(&["fault", "file"]),
        ],
    },
    Suite {
        name: "switch",
        about: "to another process and back on one CPU",
        works: &[Work::ops(&["pingpong", "pipe"]), Work::ops(&["pingpong", "futex"])],
    },
    Suite {
        name: "process",
        about: "making and ending processes and threads",
        works: &[Work::ops(&["proc", "fork"]), Work::ops(&["proc", "exec"]), Work::ops(&["proc", "thread"])],
    },
    Suite {
        name: "timer",
        about: "how late a sleep of 1 ms ends, and what reading the clock costs",
        works: &[Work { words: &["timer"], tells: Tells::Lateness, least: 10 }, Work::ops(&["clock"])],
    },
    Suite {
        name: "file",
        about: "names and files: overlay, image, cache",
        works: &[
            Work::ops(&["sys", "open"]),
            Work::ops(&["sys", "stat"]),
            Work::ops(&["sys", "readdir"]),
            Work::ops(&["sys", "neglookup"]),
            Work::ops(&["blk", "read"]),
            Work::ops(&["blk", "write"]),
            Work::ops(&["blk", "fsync"]),
            Work::ops(&["tree", "/"]),
        ],
    },
    Suite {
        name: "console",
        about: "lines of 64 bytes to standard error",
        works: &[Work::ops(&["console"])],
    },
    Suite {
        name: "app",
        about: "something like applications, so that the small numbers are not over-read",
        works: &[Work::ops(&["hash"]), Work::ops(&["compress"]), Work::ops(&["kv"])],
    },
];

/// The suite of a name.
#[must_use]
pub fn suite(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}
