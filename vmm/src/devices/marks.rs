//! The mark device: two ports where the guest says which moment it has reached.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use isolab_wire::mark::{CODE_PORT, Clock, Code, Mark, VALUE_PORT};
use rustix::time::{ClockId, clock_gettime};

/// Marks that one guest may send; its last one always passes.
const MAX_MARKS: u32 = 4096;

/// The device. The value port belongs to whoever writes the code next: init and workload do not mark at once.
#[derive(Debug)]
pub(crate) struct Marks {
    pipe: OwnedFd,
    value: AtomicU32,
    sent: AtomicU32,
}

/// The host's monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos.unwrap_or(0))
}

impl Marks {
    pub(crate) const fn new(pipe: OwnedFd) -> Self {
        Self { pipe, value: AtomicU32::new(0), sent: AtomicU32::new(0) }
    }

    /// A write of the guest; returns the mark that ends the run, which the caller sends when output is drained.
    pub(crate) fn write(&self, port: u16, data: &[u8]) -> Option<Mark> {
        if port == VALUE_PORT {
            if let Ok(value) = data.try_into().map(u32::from_le_bytes) {
                self.value.store(value, Ordering::SeqCst);
            }
            return None;
        }
        let [byte] = data else { return None };
        if port != CODE_PORT {
            return None;
        }
        let stamp = now_ns();
        let value = self.value.swap(0, Ordering::SeqCst);
        // The beginning is the host's to say.
        let code = Code::from_byte(*byte).filter(|&code| code != Code::RunBegin)?;
        let mark = Mark { code, clock: Clock::Monotonic, value, stamp };
        if matches!(code, Code::Exit | Code::Failed) {
            return Some(mark);
        }
        if self.sent.fetch_add(1, Ordering::SeqCst) < MAX_MARKS {
            // A launcher that does not listen any more is about to end this process.
            let _gone = self.send(mark);
        }
        None
    }

    /// Sends a record; the pipe takes it whole.
    pub(crate) fn send(&self, mark: Mark) -> rustix::io::Result<()> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.pipe, &mark.encode())).map(|_| ())
    }
}
