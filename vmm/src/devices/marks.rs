//! The mark device: two ports where the guest says which moment it has reached.

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use isolab_wire::mark::{CODE_PORT, Clock, Code, HOLDS, Mark, VALUE_PORT};
use isolab_wire::trace::When;
use rustix::time::{ClockId, clock_gettime};

use crate::statistics::Statistics;

/// Marks that one guest may send; its last one always passes.
const MAX_MARKS: u32 = 4096;

/// The device. The value port belongs to whoever writes the code next: init and workload do not mark at once.
#[derive(Debug)]
pub(crate) struct Marks {
    pipe: OwnedFd,
    value: AtomicU32,
    sent: AtomicU32,
    /// Given up with the first time that the guest is ready.
    hold: Mutex<Option<OwnedFd>>,
    statistics: Statistics,
    /// A template is made of this guest.
    making: bool,
}

/// A mark at which a processor leaves its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// The guest's last one.
    Last(Mark),
    /// The guest waits for its job, and a template is made of it.
    Template,
}

/// The host's monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos.unwrap_or(0))
}

impl Marks {
    pub(crate) const fn new(
        pipe: OwnedFd,
        hold: Option<OwnedFd>,
        statistics: Statistics,
        making: bool,
    ) -> Self {
        Self {
            pipe,
            value: AtomicU32::new(0),
            sent: AtomicU32::new(0),
            hold: Mutex::new(hold),
            statistics,
            making,
        }
    }

    /// A write of the guest; returns the mark that ends the run, which the caller sends when output is drained.
    pub(crate) fn write(&self, port: u16, data: &[u8]) -> Option<Stopping> {
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
        // What only the host may say is ignored, and so are moments on a clock that is not the host's.
        let code = Code::from_byte(*byte).filter(|&code| !code.is_of_host() && code != Code::Subphase)?;
        if matches!(code, Code::Exit | Code::Failed) {
            self.statistics.read(When::End);
            return Some(Stopping::Last(Mark { code, clock: Clock::Monotonic, value, stamp }));
        }
        if code == Code::Template {
            return self.making.then_some(Stopping::Template);
        }
        let hold = match code {
            Code::Ready => self.hold.lock().unwrap_or_else(PoisonError::into_inner).take(),
            _ => None,
        };
        let value = match code {
            Code::Ram | Code::FreeRam => value,
            _ if hold.is_some() => HOLDS,
            _ => 0,
        };
        let mark = Mark { code, clock: Clock::Monotonic, value, stamp };
        if hold.is_some() {
            self.statistics.read(When::Ready);
        }
        if self.sent.fetch_add(1, Ordering::SeqCst) < MAX_MARKS {
            // A launcher that does not listen any more is about to end this process.
            let _gone = self.send(mark);
        }
        if let Some(hold) = hold {
            // Or the end of a launcher that has gone.
            let _released = rustix::io::retry_on_intr(|| rustix::io::read(&hold, &mut [0; 1]));
        }
        None
    }

    /// Sends a record; the pipe takes it whole.
    pub(crate) fn send(&self, mark: Mark) -> rustix::io::Result<()> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.pipe, &mark.encode())).map(|_| ())
    }
}
