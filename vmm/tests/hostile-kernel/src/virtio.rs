//! A driver's part of the virtio devices (virtio 1.2, 4.2 "Virtio Over MMIO", 2.7 "Split Virtqueues"), good enough to bring one up and then
//! to break every rule.

use crate::cpu::{read, write_at};
use crate::random::Random;

/// First register of the first device and distance to the next one's (`vmm/src/layout.rs`).
pub const WINDOW: u64 = 0xd000_0000;
/// Bytes of each window.
pub const STRIDE: u64 = 0x1000;
/// The guest has 128 MiB.
pub const RAM_END: u64 = 128 << 20;
/// From here on RAM holds nothing of this program.
pub const SCRATCH: u64 = 16 << 20;
/// Bytes of it.
pub const SCRATCH_LEN: u64 = 8 << 20;

/// Console, block, entropy.
pub const DEVICES: [u64; 3] = [0, 1, 2];

const FEATURES_SELECT: u64 = 0x14;
const FEATURES: u64 = 0x10;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SELECT: u64 = 0x24;
const QUEUE_SELECT: u64 = 0x30;
const QUEUE_MAX: u64 = 0x34;
const QUEUE_NUM: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const STATUS: u64 = 0x70;
const QUEUE_ADDRESSES: [u64; 3] = [0x80, 0x90, 0xa0];

/// `NEXT`, `WRITE`, `INDIRECT` of a descriptor.
pub const NEXT: u16 = 1;
/// The device writes there.
pub const WRITE: u16 = 2;
/// A table of descriptors.
pub const INDIRECT: u16 = 4;

/// A register of a device.
pub fn register(device: u64, offset: u64) -> u32 {
    read(WINDOW + device * STRIDE + offset, 4) as u32
}

/// Sets one.
pub fn set_register(device: u64, offset: u64, value: u32) {
    write_at(WINDOW + device * STRIDE + offset, 4, value.into());
}

/// A queue in scratch memory: its number in the device, its length, and where its parts are.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// The device.
    pub device: u64,
    /// Its number.
    pub number: u32,
    /// Entries.
    pub len: u16,
    /// Descriptors, driver's ring, device's ring.
    pub parts: [u64; 3],
}

impl Queue {
    /// The parts of a queue with this number, each queue's in 64 KiB of its own.
    #[must_use]
    pub const fn placed(device: u64, number: u32, len: u16) -> Self {
        let first = SCRATCH + (device * 16 + number as u64) * 0x1_0000;
        Self { device, number, len, parts: [first, first + 0x4000, first + 0x8000] }
    }

    /// Writes a descriptor.
    pub fn describe(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = self.parts[0] + u64::from(index) * 16;
        write_at(at, 8, address);
        write_at(at + 8, 8, u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48);
    }

    /// Puts the head of a chain into the driver's ring.
    pub fn offer(&self, head: u16) {
        let index = read(self.parts[1] + 2, 2);
        write_at(self.parts[1] + 4 + index % u64::from(self.len) * 2, 2, head.into());
        write_at(self.parts[1] + 2, 2, index + 1);
    }

    /// How many chains the device has given back, modulo 2^16.
    pub fn used(&self) -> u64 {
        read(self.parts[2] + 2, 2)
    }

    /// Rings the doorbell, and has the device thread run: each read of a register leaves the guest.
    pub fn notify(&self) {
        set_register(self.device, QUEUE_NOTIFY, self.number);
    }

    /// Waits until the device has used so many, or seems not to any more.
    pub fn wait(&self, used: u64) -> bool {
        (0..100_000).any(|_| {
            register(self.device, STATUS);
            self.used() == used & 0xffff
        })
    }
}

/// Resets a device and brings it up to the choice of features, as a driver does, with these of the first 32 features.
pub fn begin(device: u64, wanted: u32) {
    for status in [0, 1, 3] {
        set_register(device, STATUS, status);
    }
    for (select, wanted) in [(0, wanted), (1, 1)] {
        set_register(device, FEATURES_SELECT, select);
        let offered = register(device, FEATURES);
        set_register(device, DRIVER_FEATURES_SELECT, select);
        set_register(device, DRIVER_FEATURES, offered & wanted);
    }
    set_register(device, STATUS, 11);
}

/// Sets a queue and clears its memory.
pub fn set_queue(queue: &Queue) {
    for at in (queue.parts[0]..queue.parts[2] + 0x4000).step_by(8) {
        write_at(at, 8, 0);
    }
    place_queue(queue);
}

/// Sets a queue wherever it is said to be.
pub fn place_queue(queue: &Queue) {
    set_register(queue.device, QUEUE_SELECT, queue.number);
    set_register(queue.device, QUEUE_NUM, queue.len.into());
    for (register, part) in QUEUE_ADDRESSES.into_iter().zip(queue.parts) {
        set_register(queue.device, register, part as u32);
        set_register(queue.device, register + 4, (part >> 32) as u32);
    }
    set_register(queue.device, QUEUE_READY, 1);
}

/// Longest queue of the selected number, 0 where there is none.
pub fn longest(device: u64, number: u32) -> u16 {
    set_register(device, QUEUE_SELECT, number);
    register(device, QUEUE_MAX) as u16
}

/// Lets it run; whether it does.
pub fn finish(device: u64) -> bool {
    set_register(device, STATUS, 15);
    register(device, STATUS) == 15
}

/// A device that runs, with one queue of the usual length.
pub fn running(device: u64, number: u32) -> Option<Queue> {
    begin(device, 0);
    let queue = Queue::placed(device, number, longest(device, number).min(128));
    set_queue(&queue);
    finish(device).then_some(queue)
}

/// Fills descriptors, rings and what they point to with anything, most of it nearly right.
pub fn scramble(queue: &Queue, random: &mut Random) {
    for index in 0..queue.len {
        let inside = SCRATCH + random.below(SCRATCH_LEN);
        let any = random.hostile();
        let address = random.of(&[inside, inside, inside, any]);
        let (short, long) = (random.below(5000), random.hostile());
        let len = random.of(&[short, short, long]) as u32;
        let flags = random.of(&[0, NEXT, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT, 0xffff]);
        let (near, far) = (index + 1, random.next() as u16);
        queue.describe(index, address, len, flags, random.of(&[near, near, near, far]));
    }
    for slot in 0..u64::from(queue.len) {
        let (head, any) = (random.below(queue.len.into()), random.next());
        write_at(queue.parts[1] + 4 + slot * 2, 2, random.of(&[head, head, head, any]));
    }
    let (few, any) = (random.below(queue.len.into()), random.next());
    write_at(queue.parts[1] + 2, 2, random.of(&[few, few, few, any]));
    write_at(queue.parts[1], 2, random.next());
}
