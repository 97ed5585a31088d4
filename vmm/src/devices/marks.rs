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

    /// Counts an access to what belongs to no device.
    pub(crate) fn count_unowned(&self) {
        self.statistics.count_unowned();
    }

    /// Sends a record; the pipe takes it whole.
    pub(crate) fn send(&self, mark: Mark) -> rustix::io::Result<()> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.pipe, &mark.encode())).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use isolab_wire::mark::{Exit, RECORD_LEN};
    use isolab_wire::trace::Tracer;
    use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

    use super::*;

    /// The device, and the read end of its pipe.
    fn marks() -> (Marks, OwnedFd) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        fcntl_setpipe_size(&write, 1 << 20).unwrap();
        (Marks::new(write, None, Statistics::open(&[], Tracer::OFF), false), read)
    }

    /// The records that were sent since.
    fn sent(read: &OwnedFd) -> Vec<Mark> {
        let mut bytes = vec![0; 1 << 20];
        let n = rustix::io::read(read, &mut bytes).unwrap_or(0);
        let (records, rest) = bytes[..n].as_chunks::<RECORD_LEN>();
        assert!(rest.is_empty());
        records.iter().map(|record| Mark::decode(record).unwrap()).collect()
    }

    #[test]
    fn a_flood_of_marks_ends_and_the_last_one_passes() {
        let (marks, read) = marks();
        for _ in 0..MAX_MARKS + 1000 {
            assert_eq!(marks.write(CODE_PORT, b"R"), None);
        }
        assert_eq!(sent(&read).len(), usize::try_from(MAX_MARKS).unwrap());
        marks.write(VALUE_PORT, &Exit::Code(9).encode().to_le_bytes());
        let Some(Stopping::Last(last)) = marks.write(CODE_PORT, b"X") else { panic!("no last mark") };
        assert_eq!((last.code, Exit::decode(last.value)), (Code::Exit, Some(Exit::Code(9))));
        assert!(sent(&read).is_empty(), "it is sent when all output is out");
    }

    #[test]
    fn what_only_the_host_may_say_and_what_means_nothing_is_ignored() {
        let (marks, read) = marks();
        for byte in 0..=u8::MAX {
            let code = Code::from_byte(byte);
            let guests = code.is_some_and(|code| !code.is_of_host() && code != Code::Subphase);
            if matches!(code, Some(Code::Exit | Code::Failed)) {
                continue;
            }
            marks.write(VALUE_PORT, &HOLDS.to_le_bytes());
            assert_eq!(marks.write(CODE_PORT, &[byte]), None, "{byte}");
            let sent = sent(&read);
            // A template is made only of a guest that was started for it.
            assert_eq!(sent.len(), usize::from(guests && code != Some(Code::Template)), "{byte}");
            for mark in sent {
                // It waits for nothing that it was not given, and has no time of its own.
                let counts = matches!(mark.code, Code::Ram | Code::FreeRam);
                assert_eq!(mark.value, if counts { HOLDS } else { 0 }, "{byte}");
                assert!(mark.clock == Clock::Monotonic && mark.stamp <= now_ns(), "{byte}");
            }
        }
        // Other widths and ports are nothing.
        marks.write(VALUE_PORT, &[1, 1]);
        for data in [&b""[..], b"XX", b"X\0\0\0"] {
            assert_eq!(marks.write(CODE_PORT, data), None);
        }
        assert_eq!(marks.write(CODE_PORT + 1, b"X"), None);
        assert!(sent(&read).is_empty());
        let Some(Stopping::Last(last)) = marks.write(CODE_PORT, b"X") else { panic!("no last mark") };
        assert_eq!(last.value, 0, "a value of another width, and one that belonged to an earlier code");
    }
}
