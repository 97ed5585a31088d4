//! The guest's side of a queue, for tests and fuzz targets: writes descriptors and rings as a driver does, or as none should.

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestRam;

/// Bytes of RAM.
pub(crate) const RAM: u64 = 0x4_0000;
/// Size of the queue.
pub(crate) const SIZE: u16 = 8;
/// Where buffers may go.
pub(crate) const DATA: u64 = 0x1_0000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
#[cfg_attr(not(test), expect(dead_code, reason = "for tests of what is refused"))]
pub(crate) const INDIRECT: u16 = 4;

/// One descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Guest address.
    pub at: u64,
    /// Bytes.
    pub len: u32,
    /// `VIRTQ_DESC_F_*`.
    pub flags: u16,
    /// The next one's number.
    pub next: u16,
}

pub(crate) fn ram() -> GuestRam {
    let len = usize::try_from(RAM).expect("few bytes");
    GuestRam::from_ranges(&[(GuestAddress(0), len)]).expect("RAM")
}

/// The driver of one queue, whose parts lie in a page of their own.
pub(crate) struct Driver {
    ram: GuestRam,
    base: u64,
    available: u16,
    descriptors: u16,
}

impl Driver {
    /// The queue number `index` of a device.
    pub(crate) fn new(ram: &GuestRam, index: u64) -> Self {
        Self { ram: ram.clone(), base: 0x1000 * (index + 1), available: 0, descriptors: 0 }
    }

    /// The device's side of it.
    pub(crate) fn queue(&self) -> Queue {
        let mut queue = Queue::new(SIZE).expect("in RAM, and a queue that there can be");
        queue
            .try_set_desc_table_address(GuestAddress(self.base))
            .expect("in RAM, and a queue that there can be");
        queue
            .try_set_avail_ring_address(GuestAddress(self.base + 0x400))
            .expect("in RAM, and a queue that there can be");
        queue
            .try_set_used_ring_address(GuestAddress(self.base + 0x800))
            .expect("in RAM, and a queue that there can be");
        queue.set_ready(true);
        queue
    }

    pub(crate) fn put(&self, index: u16, d: Descriptor) {
        let mut bytes = d.at.to_le_bytes().to_vec();
        bytes.extend(d.len.to_le_bytes());
        bytes.extend(d.flags.to_le_bytes());
        bytes.extend(d.next.to_le_bytes());
        self.ram
            .write_slice(&bytes, GuestAddress(self.base + 16 * u64::from(index)))
            .expect("in RAM, and a queue that there can be");
    }

    /// Makes the chain at a descriptor available.
    pub(crate) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available % SIZE);
        self.ram
            .write_obj(head, GuestAddress(self.base + 0x404 + 2 * slot))
            .expect("in RAM, and a queue that there can be");
        self.available = self.available.wrapping_add(1);
        self.set_index(self.available);
    }

    pub(crate) fn set_index(&self, index: u16) {
        self.ram
            .write_obj(index, GuestAddress(self.base + 0x402))
            .expect("in RAM, and a queue that there can be");
    }

    /// Offers a well-formed chain of pieces (address, length, writable).
    pub(crate) fn chain(&mut self, pieces: &[(u64, u32, bool)]) {
        let first = self.descriptors % SIZE;
        for (i, &(at, len, writable)) in pieces.iter().enumerate() {
            let index = self.descriptors % SIZE;
            let last = i + 1 == pieces.len();
            let flags = if writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.put(index, Descriptor { at, len, flags, next: (index + 1) % SIZE });
            self.descriptors = self.descriptors.wrapping_add(1);
        }
        self.offer(first);
    }

    /// Chains given back, and the length of the last one.
    pub(crate) fn used(&self) -> (u16, u32) {
        let index: u16 = self
            .ram
            .read_obj(GuestAddress(self.base + 0x802))
            .expect("in RAM, and a queue that there can be");
        let slot = u64::from(index.wrapping_sub(1) % SIZE);
        (
            index,
            self.ram
                .read_obj(GuestAddress(self.base + 0x804 + 8 * slot + 4))
                .expect("in RAM, and a queue that there can be"),
        )
    }
}
