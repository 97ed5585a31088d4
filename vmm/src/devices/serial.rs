//! The debug serial port: remembers the tail of what the guest's kernel prints, for the error message.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};

/// Bytes of the tail.
const TAIL: usize = 4096;

/// The port has no interrupt: the kernel's early console polls.
#[derive(Debug)]
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Keeps the tail; copies all to the host's stderr where asked.
#[derive(Debug)]
struct Log {
    tail: VecDeque<u8>,
    copy: bool,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(byte);
        }
        if self.copy {
            io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The port.
pub(crate) struct DebugPort(Mutex<Serial<NoInterrupt, NoEvents, Log>>);

impl DebugPort {
    pub(crate) fn new(copy: bool) -> Self {
        Self(Mutex::new(Serial::new(NoInterrupt, Log { tail: VecDeque::new(), copy })))
    }

    pub(crate) fn read(&self, register: u8) -> u8 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(register)
    }

    pub(crate) fn write(&self, register: u8, value: u8) {
        // The only error is a stderr that is gone.
        let _lost = self.0.lock().unwrap_or_else(PoisonError::into_inner).write(register, value);
    }

    /// The line that says why the kernel gave up, or the last one that it printed.
    pub(crate) fn last_words(&self) -> String {
        const PANIC: &str = "Kernel panic";
        let serial = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = serial.writer().tail.iter().map(|&b| printable(b)).collect();
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines().find(|line| line.contains(PANIC)).or_else(|| lines().next_back()).unwrap_or("");
        // Without the time that the kernel puts in front.
        let text =
            line.strip_prefix('[').and_then(|line| line.split_once("] ")).map_or(line, |(_, text)| text);
        text.get(text.find(PANIC).unwrap_or(0)..).unwrap_or(text).to_owned()
    }
}

/// Nothing that a guest prints reaches a terminal as a control character.
fn printable(byte: u8) -> char {
    match byte {
        b'\n' | b' '..=b'~' => char::from(byte),
        _ => ' ',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &[u8]) -> String {
        let port = DebugPort::new(false);
        text.iter().for_each(|&byte| port.write(0, byte));
        port.last_words()
    }

    #[test]
    fn panic_is_found_among_what_follows_it() {
        let text = b"[    1.0] one\r\n[    1.5] Kernel panic - not syncing: no init\r\n[    1.6] CPU: 0\r\n";
        assert_eq!(printed(text), "Kernel panic - not syncing: no init");
    }

    #[test]
    fn last_line_speaks_where_nothing_panicked() {
        assert_eq!(printed(b"[    1.0] reboot: Power down\r\n"), "reboot: Power down");
        assert_eq!(printed(b""), "");
    }

    #[test]
    fn control_characters_and_floods_do_no_harm() {
        assert_eq!(printed(b"a\x1b[2Jb\xff\n"), "a [2Jb");
        assert_eq!(printed(&b"x".repeat(100_000)).len(), TAIL);
    }
}
