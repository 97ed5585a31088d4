//! When the parts of this start ended, kept until the last mark tells them, so that no mark costs the start a wake-up.

use isolab_bare::sys::{Errno, clock, process, tsc};
use isolab_wire::fault::{ERRNO, Fault};
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

    /// A subphase ends here, otherwise than it does where the job tests that.
    pub(crate) fn end(&mut self, job: &Job<'_>, subphase: Subphase) -> Result<(), Errno> {
        fault(job, subphase)?;
        if self.wanted
            && let Some(slot) = self.ends.get_mut(self.len)
        {
            *slot = (subphase as u32, tsc());
            self.len += 1;
        }
        Ok(())
    }

    /// Those that were told of.
    pub(crate) fn ends(&self) -> &[(u32, u64)] {
        self.ends.get(..self.len).unwrap_or_default()
    }
}

/// Makes the fault of a subphase where the job tests it.
pub(crate) fn fault(job: &Job<'_>, subphase: Subphase) -> Result<(), Errno> {
    let (number, fault) = job.header.fault;
    match Fault::decode(fault).filter(|_| number == subphase as u8) {
        None => Ok(()),
        Some(Fault::Delay(ms)) => {
            let _ = clock::sleep_until_ns(clock::monotonic_ns() + u64::from(ms) * 1_000_000);
            Ok(())
        }
        Some(Fault::Error) => Err(Errno(ERRNO)),
        Some(Fault::Panic) => panic!(),
        Some(Fault::Kill) => die(),
    }
}

/// Ends this process as `SIGKILL` would.
fn die() -> ! {
    const SIGKILL: u8 = 9;
    let _ = process::kill(process::pid(), SIGKILL);
    // Process 1 of a namespace is deaf to its own signals.
    process::exit(128 + i32::from(SIGKILL))
}
