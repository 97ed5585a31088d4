use std::io::{Read, Write};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::control::{MESSAGE_LEN, Message};
use super::invariants::{BUFFER, Bench, MESSAGES, keeps_working};
use super::*;

/// Of the specification's order: receive and transmit of port 0, both control queues, then those of ports 1, 2, 3.
#[test]
fn queues_into_the_guest_are_short_and_those_out_of_it_long() {
    assert_eq!(QUEUE_SIZES, [16, 64, 16, 64, 16, 64, 2, 64, 2, 64]);
}

impl Bench {
    /// Receives the next control message as the guest.
    fn hear(&mut self) -> Option<Message> {
        let at = MESSAGES + 0x100 + 8 * self.messages;
        let before = self.drivers[CONTROL_TO_GUEST].used().0;
        self.drivers[CONTROL_TO_GUEST].chain(&[(at, 8, true)]);
        self.messages += 1;
        self.serve();
        // Unused buffers are used first: look at the one that was filled.
        (self.drivers[CONTROL_TO_GUEST].used().0 != before).then(|| {
            let filled = self.drivers[CONTROL_TO_GUEST].used().0 - 1;
            let mut bytes = [0; MESSAGE_LEN];
            self.ram
                .read_slice(&mut bytes, GuestAddress(MESSAGES + 0x100 + 8 * u64::from(filled)))
                .expect("a bench");
            Message::decode(&bytes)
        })
    }

    /// Brings all ports up as Linux does.
    fn open(&mut self) {
        self.say(u32::MAX, event::DEVICE_READY, 1);
        for port in (0..4).rev() {
            assert_eq!(self.hear(), Some(Message { port, event: event::PORT_ADD, value: 1 }));
        }
        for port in (0..4).rev() {
            self.say(port, event::PORT_READY, 1);
            assert_eq!(self.hear(), Some(Message { port, event: event::PORT_OPEN, value: 1 }));
            self.say(port, event::PORT_OPEN, 1);
        }
    }
}

#[test]
fn queues_are_numbered_as_the_specification_says() {
    assert_eq!([0, 1, 2, 3].map(to_guest), [0, 4, 6, 8]);
    assert_eq!([0, 1, 2, 3].map(from_guest), [1, 5, 7, 9]);
}

#[test]
fn ports_come_up_with_the_control_port_last() {
    Bench::new().open();
}

#[test]
fn output_reaches_the_host_byte_for_byte() {
    let mut bench = Bench::new();
    bench.open();
    let bytes: Vec<u8> = (0..=255).cycle().take(6000).collect();
    assert!(bench.write(&bytes).interrupt);
    let mut read = vec![0; bytes.len()];
    bench.stdout.as_mut().unwrap().read_exact(&mut read).unwrap();
    assert_eq!(read, bytes);
    assert!(bench.console.is_drained(&bench.ram, &bench.queues));
}

#[test]
fn a_slow_reader_stops_the_guest_and_loses_nothing() {
    let mut bench = Bench::new();
    bench.open();
    let chunk = vec![7; 0x4000];
    let mut chunks = 0;
    while bench.console.interest(&bench.ram, &bench.queues)[STDOUT].is_none() {
        bench.write(&chunk);
        chunks += 1;
        assert!(chunks < 100, "a pipe never filled");
    }
    assert!(!bench.console.is_drained(&bench.ram, &bench.queues));
    let mut far = bench.stdout.take().unwrap();
    let mut left = chunks * chunk.len();
    while left > 0 {
        let mut buffer = vec![0; 0x8000.min(left)];
        let n = far.read(&mut buffer).unwrap();
        assert!(buffer[..n].iter().all(|&b| b == 7));
        left -= n;
        bench.serve();
    }
    assert!(bench.console.is_drained(&bench.ram, &bench.queues));
}

#[test]
fn a_reader_that_is_gone_closes_the_port_and_output_is_thrown_away() {
    let mut bench = Bench::new();
    bench.open();
    bench.stdout = None;
    bench.write(b"nobody reads this");
    let closed = Message { port: 2, event: event::PORT_OPEN, value: 0 };
    assert_eq!(bench.hear(), Some(closed));
    assert!(bench.write(b"nor this").interrupt);
    assert!(bench.console.is_drained(&bench.ram, &bench.queues));
}

#[test]
fn the_guest_closing_its_output_ends_the_reader() {
    let mut bench = Bench::new();
    bench.open();
    bench.write(b"last");
    bench.say(2, event::PORT_OPEN, 0);
    let mut all = Vec::new();
    bench.stdout.take().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last");
}

#[test]
fn input_reaches_the_guest_and_its_end_follows_the_data() {
    let mut bench = Bench::new();
    bench.open();
    assert!(bench.console.interest(&bench.ram, &bench.queues)[STDIN].is_none(), "no buffer, nothing to read");
    bench.stdin.as_mut().unwrap().write_all(b"hello").unwrap();
    bench.stdin = None;
    bench.drivers[to_guest(STDIN)].chain(&[(BUFFER, 100, true)]);
    bench.drivers[to_guest(STDIN)].chain(&[(BUFFER + 100, 100, true)]);
    assert!(bench.console.interest(&bench.ram, &bench.queues)[STDIN].is_some());
    bench.console.input_ready(STDIN, &bench.ram, &mut bench.queues).unwrap();
    assert_eq!(bench.drivers[to_guest(STDIN)].used(), (1, 5));
    let mut text = [0; 5];
    bench.ram.read_slice(&mut text, GuestAddress(BUFFER)).unwrap();
    assert_eq!(&text, b"hello");
    bench.console.input_ready(STDIN, &bench.ram, &mut bench.queues).unwrap();
    assert_eq!(bench.drivers[to_guest(STDIN)].used().0, 1, "the end takes no buffer");
    assert_eq!(bench.hear(), Some(Message { port: 1, event: event::PORT_OPEN, value: 0 }));
}

#[test]
fn input_waits_until_the_guest_has_opened_the_port() {
    let mut bench = Bench::new();
    bench.stdin.as_mut().unwrap().write_all(b"early").unwrap();
    bench.drivers[to_guest(STDIN)].chain(&[(BUFFER, 100, true)]);
    assert!(bench.console.interest(&bench.ram, &bench.queues)[STDIN].is_none());
}

#[test]
fn a_flood_of_control_messages_makes_no_heap_of_answers() {
    let mut bench = Bench::new();
    for _ in 0..1000 {
        bench.say(2, event::PORT_READY, 1);
        // What is not taken stays in the guest's queue.
        if bench.drivers[CONTROL_FROM_GUEST].used().0 < 32 {
            continue;
        }
        return;
    }
    panic!("the device never stopped answering");
}

proptest! {
    #[test]
    fn any_control_messages_leave_a_working_console(
        messages in prop::collection::vec((prop_oneof![0_u32..6, any::<u32>()], 0_u16..9, any::<u16>()), 0..30),
        bytes in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        keeps_working(&messages, &bytes);
    }

    #[test]
    fn messages_survive_their_encoding(port: u32, event: u16, value: u16) {
        let message = Message { port, event, value };
        prop_assert_eq!(Message::decode(&message.encode()), message);
    }
}

#[test]
fn output_after_the_end_is_not_written() {
    let mut bench = Bench::new();
    bench.open();
    bench.drivers[from_guest(STDOUT)].chain(&[(BUFFER, 4, false)]);
    bench.ram.write_slice(b"last", GuestAddress(BUFFER)).unwrap();
    bench.console.seal(&bench.ram, &bench.queues);
    bench.drivers[from_guest(STDOUT)].chain(&[(BUFFER, 4, false)]);
    assert!(!bench.console.is_drained(&bench.ram, &bench.queues));
    bench.serve();
    assert!(bench.console.is_drained(&bench.ram, &bench.queues));
    bench.console.outputs[0].close();
    let mut all = Vec::new();
    bench.stdout.take().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last");
}
