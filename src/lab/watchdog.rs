//! Notices a lab that is stuck: the emulated CPU spins at one place with interrupts off; and one that may be: it is halted for a while.
//!
//! QEMU's emulation of SVM may deliver an interrupt twice, which lets a guest kernel spin for ever on a lock of its own
//! (`vmm/src/arch/x86_64/cpuid.rs` says how, and keeps our guests out of it; other monitors' guests may still meet it). The
//! lab's clock hardly moves then, so that no deadline inside passes. Only somebody outside can tell, by the CPU's
//! registers.
//!
//! It may also lose one: then the CPU stays halted with interrupts on while its interrupt controller has the timer's interrupt waiting,
//! until there is another interrupt. A lab that has nothing to do looks the same, and does not mind one more.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks at the same instruction with interrupts off that make a stuck CPU: a kernel's longest such stretch is far
/// shorter than these seconds.
const LIMIT: u32 = 8;
/// Looks at a halted CPU after which that is told.
const HALTED: u32 = 8;

/// The lab is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the emulated CPU of the lab is stuck with interrupts off (a fault of QEMU's nested SVM)")]
pub(crate) struct Stuck;

/// Asks QEMU's monitor for the registers.
#[derive(Debug)]
pub(super) struct Watchdog {
    monitor: UnixStream,
    answer: Vec<u8>,
    next: Instant,
    last: Option<u64>,
    same: u32,
    halted: u32,
}

impl Watchdog {
    /// Over our end of the monitor, which must not block.
    pub(super) fn new(monitor: UnixStream) -> Self {
        Self { monitor, answer: Vec::new(), next: Instant::now() + INTERVAL, last: None, same: 0, halted: 0 }
    }

    /// When to call [`Watchdog::look`].
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// What to poll for reading.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }

    /// Asks, when it is time.
    pub(super) fn look(&mut self) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + INTERVAL;
            // A monitor that takes no more is one that has not answered yet.
            let _ = self.monitor.write_all(b"info registers\n");
        }
    }

    /// Takes in an answer: whether it is one more time that the CPU was halted at all of [`HALTED`] looks.
    ///
    /// # Errors
    /// The CPU is stuck.
    pub(super) fn read(&mut self) -> Result<bool, Stuck> {
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = self.monitor.read(&mut buffer) {
            self.answer.extend_from_slice(&buffer[..n]);
        }
        // EFER stands behind RIP and RFL: with it, both are there.
        if !self.answer.windows(5).any(|word| word == b"EFER=") {
            return Ok(false);
        }
        let answer = String::from_utf8_lossy(&self.answer);
        let (seen, halted) = (place(&answer), field(&answer, "HLT=") == Some(1));
        self.answer.clear();
        self.same = if seen.is_some() && seen == self.last { self.same + 1 } else { 0 };
        self.last = seen;
        if self.same >= LIMIT {
            return Err(Stuck);
        }
        self.halted = if halted { self.halted % HALTED + 1 } else { 0 };
        Ok(self.halted == HALTED)
    }
}

/// A register or flag in hexadecimal digits.
fn field(registers: &str, name: &str) -> Option<u64> {
    let rest = registers.split(name).nth(1)?;
    let hex: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    u64::from_str_radix(&hex, 16).ok()
}

/// The instruction pointer where interrupts are off (bit 9 of RFLAGS is clear) and the CPU is not halted.
fn place(registers: &str) -> Option<u64> {
    let spinning = field(registers, "RFL=")? & (1 << 9) == 0 && field(registers, "HLT=")? == 0;
    if spinning { field(registers, "RIP=") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPINNING: &str =
        "RIP=ffffffff81a18749 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\nEFER=0000000000001d01\n";

    #[test]
    fn a_cpu_that_stays_at_one_place_with_interrupts_off_is_stuck() {
        let (ours, mut qemu) = UnixStream::pair().expect("socket pair");
        ours.set_nonblocking(true).expect("not blocking");
        let mut watchdog = Watchdog::new(ours);
        for _ in 0..LIMIT {
            qemu.write_all(SPINNING.as_bytes()).expect("write");
            assert_eq!(watchdog.read(), Ok(false));
        }
        qemu.write_all(SPINNING.as_bytes()).expect("write");
        assert_eq!(watchdog.read(), Err(Stuck));
    }

    #[test]
    fn a_cpu_that_is_halted_for_a_while_is_told_once_in_that_while() {
        let (ours, mut qemu) = UnixStream::pair().expect("socket pair");
        ours.set_nonblocking(true).expect("not blocking");
        let mut watchdog = Watchdog::new(ours);
        let mut look = |registers: &str| {
            qemu.write_all(registers.as_bytes()).expect("write");
            watchdog.read()
        };
        let halted = SPINNING.replace("RFL=00000002", "RFL=00000216").replace("HLT=0", "HLT=1");
        for _ in 0..2 {
            (1..HALTED).for_each(|_| assert_eq!(look(&halted), Ok(false)));
            assert_eq!(look(&halted), Ok(true));
        }
        (1..HALTED).for_each(|_| assert_eq!(look(&halted), Ok(false)));
        assert_eq!(look(&halted.replace("HLT=1", "HLT=0")), Ok(false));
        assert_eq!(look(&halted), Ok(false));
    }

    #[test]
    fn a_cpu_with_interrupts_on_or_halted_is_not_stuck() {
        assert_eq!(place(SPINNING), Some(0xffff_ffff_81a1_8749));
        assert_eq!(place(&SPINNING.replace("RFL=00000002", "RFL=00000202")), None);
        assert_eq!(place(&SPINNING.replace("HLT=0", "HLT=1")), None);
        assert_eq!(place("no registers"), None);
    }
}
