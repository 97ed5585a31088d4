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
        line.get(line.find(PANIC).unwrap_or(0)..).unwrap_or(line).to_owned()
    }
}

/// Nothing that a guest prints reaches a terminal as a control character.
fn printable(byte: u8) -> char {
    match byte {
        b'\n' | b' '..=b'~' => char::from(byte),
        _ => ' ',
    }
}
