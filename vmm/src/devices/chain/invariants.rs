//! What holds for any queue that a guest can write.

use super::*;
use crate::devices::driver::{DATA, Descriptor, Driver, RAM, SIZE, ram};

/// A queue as a hostile driver fills it.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// The table.
    pub descriptors: Vec<Descriptor>,
    /// What is offered.
    pub heads: Vec<u16>,
    /// Bytes where indirect tables may lie.
    pub junk: Vec<u8>,
    /// Bytes of the queue that change after a chain was taken: offset and value.
    pub changes: Vec<(u16, u8)>,
}

/// Each chain is taken once and is no longer than the queue; each piece of it lies in RAM, whatever the guest changes meanwhile;
/// and what is given back advances the used ring by one.
pub fn pieces_inside_ram(ring: &Ring) {
    let ram = ram();
    let junk = &ring.junk[..ring.junk.len().min(0x1_0000)];
    ram.write_slice(junk, GuestAddress(DATA)).expect("in RAM");
    let mut driver = Driver::new(&ram, 0);
    for (index, descriptor) in (0..SIZE).zip(&ring.descriptors) {
        driver.put(index, *descriptor);
    }
    ring.heads.iter().take(SIZE.into()).for_each(|head| driver.offer(*head));
    let mut queue = driver.queue();
    let mut changes = ring.changes.iter();
    let mut given = 0;
    for _ in 0..2 * SIZE {
        let before = queue.next_avail();
        let Ok(Some(chain)) = pop(&mut queue, &ram) else { break };
        assert_eq!(queue.next_avail(), before.wrapping_add(1));
        if let Some(&(at, byte)) = changes.next() {
            ram.write_obj(byte, GuestAddress(0x1000 + u64::from(at % 0xa00))).expect("in RAM");
        }
        let pieces: Vec<_> = chain.readable.iter().chain(&chain.writable).collect();
        assert!(!pieces.is_empty() && pieces.len() <= usize::from(SIZE), "{} pieces", pieces.len());
        for piece in pieces {
            assert!(piece.at.0.checked_add(piece.len as u64).is_some_and(|end| end <= RAM), "{piece:?}");
        }
        let mut bytes = vec![0; chain.readable_len().min(64)];
        read(&ram, &chain.readable, &mut bytes).expect("as many bytes as it has");
        if push(&mut queue, &ram, chain.head, 0).is_ok() {
            given += 1;
            assert_eq!(queue.next_used(), given);
        }
    }
}
