//! A console with a driver on each queue, and what holds whatever that driver says.

use std::io::{self, Read, Write};

use vm_memory::{Bytes, GuestAddress};

use super::control::Message;
use super::*;
use crate::devices::driver::{DATA, Driver, ram};

pub(super) const BUFFER: u64 = DATA;
pub(super) const MESSAGES: u64 = DATA + 0x8000;
const QUEUES: usize = 10;

/// A console with a driver on each queue and the host's far ends.
pub(super) struct Bench {
    pub(super) ram: GuestRam,
    pub(super) console: Console,
    pub(super) drivers: Vec<Driver>,
    pub(super) queues: Vec<Queue>,
    pub(super) stdin: Option<io::PipeWriter>,
    pub(super) stdout: Option<io::PipeReader>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests that listen"))]
    pub(super) messages: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        let (control, _) = io::pipe().expect("a bench");
        let (stdin, stdin_far) = io::pipe().expect("a bench");
        let (stdout_far, stdout) = io::pipe().expect("a bench");
        let (_, stderr) = io::pipe().expect("a bench");
        let ends = Ends {
            control: control.into(),
            stdin: Some(stdin.into()),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let ram = ram();
        let drivers: Vec<_> = (0..QUEUES as u64).map(|i| Driver::new(&ram, i)).collect();
        let queues = drivers.iter().map(Driver::queue).collect();
        let console = Console::new(ends);
        Self { ram, console, drivers, queues, stdin: Some(stdin_far), stdout: Some(stdout_far), messages: 0 }
    }

    pub(super) fn serve(&mut self) -> Served {
        self.console.serve(&self.ram, &mut self.queues).expect("a bench")
    }

    /// Sends a control message as the guest.
    pub(super) fn say(&mut self, port: u32, event: u16, value: u16) {
        self.ram
            .write_slice(&Message { port, event, value }.encode(), GuestAddress(MESSAGES))
            .expect("a bench");
        self.drivers[CONTROL_FROM_GUEST].chain(&[(MESSAGES, 8, false)]);
        self.serve();
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Served {
        self.ram.write_slice(bytes, GuestAddress(BUFFER)).expect("a bench");
        self.drivers[from_guest(STDOUT)].chain(&[(
            BUFFER,
            u32::try_from(bytes.len()).expect("a bench"),
            false,
        )]);
        self.serve()
    }
}

/// Whatever control messages (port, event, value) and bytes a guest sends, its output still arrives where its port is open, and
/// input from the host goes only into a port that the guest opened.
pub fn keeps_working(messages: &[(u32, u16, u16)], bytes: &[u8]) {
    let mut bench = Bench::new();
    // More than the queue for answers holds stays in the guest's queue.
    for &(port, event, value) in messages.iter().take(30) {
        bench.say(port, event, value);
    }
    let bytes = &bytes[..bytes.len().min(0x1000)];
    let len = u32::try_from(bytes.len()).expect("small");
    bench.ram.write_slice(bytes, GuestAddress(MESSAGES)).expect("in RAM");
    bench.drivers[CONTROL_FROM_GUEST].chain(&[(MESSAGES, len, false)]);
    bench.serve();
    bench.stdin.as_mut().expect("not closed").write_all(b"in").ok();
    bench.drivers[to_guest(STDIN)].chain(&[(BUFFER + 0x1000, 100, true)]);
    let interest = bench.console.interest(&bench.ram, &bench.queues);
    assert!(interest[STDIN].is_none() || bench.console.guest_open[STDIN], "input into a closed port");
    bench.write(b"still here");
    // A console whose port the guest closed has closed the pipe too.
    if bench.console.outputs[0].is_open() {
        let mut read = [0; 10];
        bench.stdout.as_mut().expect("not closed").read_exact(&mut read).expect("ten bytes");
        assert_eq!(&read, b"still here");
    }
}
