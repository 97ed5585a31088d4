//! When the parts of this start ended, kept until the last mark tells them, so that no mark costs the start a wake-up.

use isolab_bare::sys::{clock, tsc};
use isolab_wire::job::{Job, flag};
use isolab_wire::trace::Subphase;

const MAX: usize = 8;

/// Ends of subphases so far, by number and time stamp counter.
#[derive(Default)]
pub(crate) struct Timeline {
    wanted: bool,
    ends: [(u32, u64); MAX],
    len: usize,
}

impl Timeline {
    /// Whether anybody measures, the job says.
    pub(crate) fn begin(&mut self, job: &Job<'_>) {
        self.wanted = job.has(flag::MARKS);
    }

    /// Whether anybody does.
    pub(crate) const fn wanted(&self) -> bool {
        self.wanted
    }

    /// A subphase ends here, later where the job tests that.
    pub(crate) fn end(&mut self, job: &Job<'_>, subphase: Subphase) {
        if !self.wanted {
            return;
        }
        delay(job, subphase);
        if let Some(slot) = self.ends.get_mut(self.len) {
            *slot = (subphase as u32, tsc());
            self.len += 1;
        }
    }

    /// Those that were told of.
    pub(crate) fn ends(&self) -> &[(u32, u64)] {
        self.ends.get(..self.len).unwrap_or_default()
    }
}

/// Waits inside a subphase where the job tests it.
pub(crate) fn delay(job: &Job<'_>, subphase: Subphase) {
    let (number, ms) = job.header.delay;
    if ms > 0 && number == subphase as u8 {
        let _ = clock::sleep_until_ns(clock::monotonic_ns() + u64::from(ms) * 1_000_000);
    }
}
