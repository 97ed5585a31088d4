//! Queues: rings with anything in them, parts in impossible places, doorbells without end.

use crate::Verdict;
use crate::random::Random;
use crate::virtio::{
    DEVICES, Queue, RAM_END, SCRATCH, STRIDE, WINDOW, WRITE, begin, finish, longest, place_queue, register,
    running, scramble, set_queue, set_register,
};

const STATUS: u64 = 0x70;
const NEEDS_RESET: u32 = 0x40;

/// Rings full of nearly right chains, again and again; then the device works as ever.
pub fn rings(random: &mut Random) -> Verdict {
    for round in 0..300 {
        let device = DEVICES[round % DEVICES.len()];
        begin(device, random.next() as u32);
        let queues = (0..2).map(|number| Queue::placed(device, number, longest(device, number)));
        for queue in queues.filter(|queue| queue.len > 0) {
            set_queue(&queue);
            scramble(&queue, random);
        }
        finish(device);
        for number in [0, 1, random.next() as u32] {
            set_register(device, 0x50, number);
        }
        // The ring changes while the device walks it.
        for _ in 0..20 {
            let queue = Queue::placed(device, 0, 128);
            queue.describe(random.below(128) as u16, random.hostile(), random.next() as u32, 3, 1);
            register(device, STATUS);
        }
    }
    answers()
}

/// Whether the entropy device answers a request as it should, after all that.
fn answers() -> Verdict {
    let queue = running(2, 0).ok_or(())?;
    queue.describe(0, SCRATCH + 0x70_0000, 64, WRITE, 0);
    queue.offer(0);
    queue.notify();
    if queue.wait(1) && register(2, STATUS) & NEEDS_RESET == 0 { Ok(()) } else { Err(()) }
}

/// Parts outside of RAM, over each other, over its end, unaligned, of impossible lengths, and moved while the device runs.
pub fn moved(random: &mut Random) -> Verdict {
    for _ in 0..200 {
        let device = random.of(&DEVICES);
        begin(device, 0);
        let number = random.of(&[0, 0, 1, 2, 7, u32::MAX]);
        let mut part = || {
            let inside = SCRATCH + random.below(0x1_0000) * 16;
            random.of(&[inside, inside, RAM_END - 16, RAM_END, WINDOW, u64::MAX - 15, 1, 0])
        };
        let parts = [part(), part(), part()];
        let len = random.of(&[0, 1, 3, 128, 256, 257, u16::MAX]);
        place_queue(&Queue { device, number, len, parts });
        finish(device);
        set_register(device, 0x50, number);
        // Elsewhere while it runs.
        place_queue(&Queue { device, number, len: 64, parts: [SCRATCH, WINDOW + STRIDE, RAM_END] });
        set_register(device, 0x50, number);
        register(device, STATUS);
    }
    answers()
}

/// Doorbells of all queues, those that are not there among them, without anything to do.
pub fn storm(random: &mut Random) -> Verdict {
    let running = DEVICES.map(|device| running(device, 0).is_some());
    for _ in 0..20_000 {
        let number = random.of(&[0, 1, 2, 3, 1000, u32::MAX]);
        set_register(random.of(&DEVICES), 0x50, number);
    }
    if running == [true; 3] { answers() } else { Err(()) }
}
