//! Descriptor chains: each is walked once, checked, and from then on a short list of pieces of guest RAM.

use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::Malformed;
use crate::memory::GuestRam;

/// A piece of guest RAM that lies in one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: GuestAddress,
    pub(crate) len: usize,
}

/// A checked chain: what the device reads, then what it writes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    pub(crate) readable: Vec<Piece>,
    pub(crate) writable: Vec<Piece>,
}

impl Chain {
    /// Bytes that the device may read.
    pub(crate) fn readable_len(&self) -> usize {
        self.readable.iter().map(|p| p.len).fold(0, usize::saturating_add)
    }
}

/// Takes the next chain that the driver made available.
///
/// Refused: an index that runs ahead by more than the queue, a chain longer than the queue, a next descriptor
/// outside the table, memory outside RAM, readable after writable, an empty chain.
pub(crate) fn pop(queue: &mut Queue, ram: &GuestRam) -> Result<Option<Chain>, Malformed> {
    if !queue.ready() {
        return Ok(None);
    }
    let limit = usize::from(queue.size());
    // The iterator itself refuses an index that is further ahead than the queue is long.
    let Some(raw) = queue.iter(ram).map_err(|_| Malformed)?.next() else { return Ok(None) };
    let mut chain = Chain { head: raw.head_index(), readable: Vec::new(), writable: Vec::new() };
    let mut complete = false;
    for descriptor in raw {
        let (len, more) = (descriptor.len() as usize, descriptor.has_next());
        let piece = Piece { at: descriptor.addr(), len };
        if chain.readable.len() + chain.writable.len() == limit || ram.get_slice(piece.at, len).is_err() {
            return Err(Malformed);
        }
        if descriptor.is_write_only() {
            chain.writable.push(piece);
        } else if chain.writable.is_empty() {
            chain.readable.push(piece);
        } else {
            return Err(Malformed);
        }
        complete = !more;
    }
    // The library ends a chain silently where the next descriptor is out of reach.
    if complete { Ok(Some(chain)) } else { Err(Malformed) }
}

/// Whether the driver has made a chain available.
pub(crate) fn has_next(queue: &Queue, ram: &GuestRam) -> bool {
    queue.ready() && queue.avail_idx(ram, Ordering::Acquire).is_ok_and(|index| index.0 != queue.next_avail())
}

/// Gives a chain back with the number of bytes written.
pub(crate) fn push(queue: &mut Queue, ram: &GuestRam, head: u16, written: usize) -> Result<(), Malformed> {
    queue.add_used(ram, head, u32::try_from(written).unwrap_or(u32::MAX)).map_err(|_| Malformed)
}

/// Copies bytes from the start of pieces; fails where the pieces hold less.
pub(crate) fn read(ram: &GuestRam, pieces: &[Piece], buf: &mut [u8]) -> Option<()> {
    let mut rest = buf;
    for piece in pieces {
        let n = piece.len.min(rest.len());
        let (now, later) = rest.split_at_mut(n);
        ram.read_slice(now, piece.at).ok()?;
        rest = later;
    }
    rest.is_empty().then_some(())
}

/// Copies bytes to the start of pieces, as much as fits; returns how much.
pub(crate) fn write(ram: &GuestRam, pieces: &[Piece], bytes: &[u8]) -> usize {
    let mut done = 0;
    for piece in pieces {
        let n = piece.len.min(bytes.len() - done);
        if ram.write_slice(&bytes[done..done + n], piece.at).is_err() {
            break;
        }
        done += n;
    }
    done
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
#[cfg(test)]
mod tests;
