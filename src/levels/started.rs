//! The port's running thing over an [`Instance`], the same for every level.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

use isolab_bench::port::{End, MemoryReading, Outcome, Running, Stamp, StartError};
use isolab_bench::run_report::Detail;
use isolab_container::account::Numbers;
use isolab_container::instance::{self, Instance, InstanceError};
use isolab_images::store::Scratch;
use isolab_wire::mark::Code;
use rustix::event::{PollFd, PollFlags, poll};

use crate::terminal;

/// A started instance with what must live as long as it.
#[derive(Debug)]
pub(super) struct Started {
    instance: Instance,
    /// The private copy of the image, removed when the instance is gone.
    scratch: Option<Scratch>,
    /// Where a VMM process says why it failed.
    complaint: Option<std::fs::File>,
    /// The workload's terminal where no init has it.
    terminal: Option<OwnedFd>,
    detail: Detail,
}

impl Started {
    pub(super) const fn new(instance: Instance, scratch: Option<Scratch>, detail: Detail) -> Self {
        Self { instance, scratch, complaint: None, terminal: None, detail }
    }

    /// With the read end of a pipe on which the instance's own process says why it failed.
    pub(super) fn with_complaint(mut self, complaint: std::fs::File) -> Self {
        self.complaint = Some(complaint);
        self
    }

    /// With a terminal that the workload has directly.
    pub(super) fn with_terminal(mut self, terminal: Option<OwnedFd>) -> Self {
        self.terminal = terminal;
        self
    }
}

impl Running for Started {
    fn events(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.instance.ended()).chain(self.instance.marks()).collect()
    }

    fn advance(&mut self) -> Result<bool, StartError> {
        self.instance.read_marks();
        let ended = self.instance.ended();
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(ended, PollFlags::IN)];
        match poll(&mut fds, Some(&now)) {
            Ok(n) => Ok(n > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn executing(&self) -> bool {
        self.instance.has(Code::Exec)
    }

    fn at(&self, code: Code) -> Option<u64> {
        self.instance.at(code)
    }

    fn charge(&self) -> Result<Option<MemoryReading>, StartError> {
        let read = self.instance.cgroup().map(isolab_container::cgroup::Cgroup::read_memory).transpose()?;
        Ok(read.flatten().map(reading))
    }

    fn cpu_ns(&self) -> Option<u64> {
        self.instance.cpu_ns()
    }

    fn signal(&mut self, signal: u8) {
        self.instance.signal(signal);
    }

    fn resize(&mut self, rows: u16, cols: u16) {
        match &self.terminal {
            // It fails only where the terminal is gone.
            Some(terminal) => drop(terminal::resize(terminal, rows, cols)),
            None => self.instance.resize(rows, cols),
        }
    }

    fn kill(&mut self) {
        self.instance.kill();
    }

    fn wait(self: Box<Self>) -> Result<Outcome, StartError> {
        let Self { instance, scratch, complaint, terminal, detail } = *self;
        // Or the end of its output would never come.
        drop(terminal);
        let outcome = match (instance.wait(), complaint) {
            (Err(InstanceError::Vanished(_) | InstanceError::Unborn(_)), Some(mut complaint)) => {
                let mut text = String::new();
                complaint.by_ref().take(8192).read_to_string(&mut text)?;
                let text =
                    if text.is_empty() { "the virtual machine ended without a word".into() } else { text };
                return Err(text.into());
            }
            (outcome, _) => outcome?,
        };
        if let Some(leftover) = outcome.leftover {
            return Err(leftover.into());
        }
        drop(scratch);
        let account = outcome.account.unwrap_or_default();
        Ok(Outcome {
            end: match outcome.end {
                instance::End::Workload(exit) => End::Workload(exit),
                instance::End::OutOfMemory => End::OutOfMemory,
                instance::End::Failed(failure) => End::Failed(failure),
                instance::End::Killed => End::Killed,
            },
            stamps: outcome.stamps.iter().map(|s| Stamp { code: s.code, at_ns: s.at_ns }).collect(),
            subphases: outcome.subphases,
            cpu_ns: named(&account.cpu_ns),
            counters: named(&account.counters),
            memory: account.memory.map(reading),
            clean_ns: outcome.clean_ns,
            detail,
        })
    }
}

fn named(numbers: &Numbers) -> BTreeMap<String, u64> {
    numbers.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect()
}

fn reading(memory: isolab_container::cgroup::MemoryReading) -> MemoryReading {
    MemoryReading {
        source: memory.source.to_owned(),
        current_bytes: memory.current_bytes,
        anon_bytes: memory.anon_bytes,
        file_bytes: memory.file_bytes,
        kernel_bytes: memory.kernel_bytes,
        peak_bytes: memory.peak_bytes,
        parts: named(&memory.parts),
    }
}
