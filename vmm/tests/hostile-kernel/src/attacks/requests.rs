//! Requests to the block and the entropy device that no driver makes, and whether the image stays as it is.

use crate::Verdict;
use crate::cpu::{read, write_at};
use crate::random::Random;
use crate::virtio::{NEXT, Queue, SCRATCH, WRITE, register, running};

const BLOCK: u64 = 1;
const ENTROPY: u64 = 2;
const HEAD: u64 = SCRATCH + 0x60_0000;
const STATUS: u64 = HEAD + 0x100;
const DATA: u64 = HEAD + 0x1000;
const AGAIN: u64 = HEAD + 0x2000;
const SECTOR: u32 = 512;
/// In, out, flush, get id, discard, write zeroes, secure erase.
const KINDS: [u64; 7] = [0, 1, 4, 8, 11, 13, 14];

/// One request: its status, or nothing where it never comes back.
fn ask(queue: &Queue, kind: u64, sector: u64, data: u64, len: u32, flags: u16) -> Option<u64> {
    write_at(HEAD, 8, kind);
    write_at(HEAD + 8, 8, sector);
    write_at(STATUS, 1, 0xee);
    queue.describe(0, HEAD, 16, NEXT, 1);
    queue.describe(1, data, len, NEXT | flags, 2);
    queue.describe(2, STATUS, 1, WRITE, 0);
    let used = queue.used() + 1;
    queue.offer(0);
    queue.notify();
    queue.wait(used).then(|| read(STATUS, 1))
}

fn fresh() -> Result<Queue, ()> {
    running(BLOCK, 0).ok_or(())
}

/// What the first sector holds, as the device reads it to this place.
fn first_sector(to: u64) -> Verdict {
    if ask(&fresh()?, 0, 0, to, SECTOR, WRITE) == Some(0) { Ok(()) } else { Err(()) }
}

/// Writes, requests behind the end, of impossible lengths, to impossible places, of unknown kinds: none of them succeeds where it must
/// not, and the image's first sector reads the same afterwards.
pub fn block(random: &mut Random) -> Verdict {
    first_sector(DATA)?;
    let queue = fresh()?;
    for kind in [1, 11, 13, 14] {
        // With data as a driver of a disk would write it; all of them would change the image.
        if ask(&queue, kind, 0, AGAIN, SECTOR, 0) == Some(0) {
            return Err(());
        }
    }
    for _ in 0..300 {
        let known = random.of(&KINDS);
        let any = random.hostile();
        let kind = random.of(&[known, known, known, any]);
        let (inside, beyond) = (random.below(64), random.hostile());
        let sector = random.of(&[inside, beyond]);
        let (data, lost) = (AGAIN + 0x1000 + random.below(0x1000), random.hostile());
        let len = random.of(&[0, 1, 511, SECTOR, 513, 8 * SECTOR, 1 << 20, u32::MAX]);
        // A queue that was broken asks for a reset, which is what the next one begins with.
        let queue = fresh()?;
        ask_and_leave(
            &queue,
            kind,
            sector,
            random.of(&[data, data, lost]),
            len,
            random.of(&[0, WRITE, WRITE]),
        );
    }
    first_sector(AGAIN)?;
    let same = (0..u64::from(SECTOR)).step_by(8).all(|at| read(DATA + at, 8) == read(AGAIN + at, 8));
    if same { Ok(()) } else { Err(()) }
}

/// A request whose answer may never come.
fn ask_and_leave(queue: &Queue, kind: u64, sector: u64, data: u64, len: u32, flags: u16) {
    write_at(HEAD, 8, kind);
    write_at(HEAD + 8, 8, sector);
    queue.describe(0, HEAD, 16, NEXT, 1);
    queue.describe(1, data, len, NEXT | flags, 2);
    queue.describe(2, STATUS, 1, WRITE, 0);
    queue.offer(0);
    queue.notify();
    register(BLOCK, 0x70);
}

/// Chains whose pieces lie over each other and promise gigabytes of room: the device gives what it gives, and no more.
pub fn entropy(_: &mut Random) -> Verdict {
    for len in [1 << 20, 1 << 24, u32::MAX] {
        let queue = running(ENTROPY, 0).ok_or(())?;
        for index in 0..queue.len {
            let more = if index + 1 < queue.len { NEXT } else { 0 };
            queue.describe(index, SCRATCH + 0x40_0000, len, WRITE | more, index + 1);
        }
        for _ in 0..queue.len {
            queue.offer(0);
        }
        queue.notify();
        for _ in 0..2_000 {
            register(ENTROPY, 0x70);
        }
        // Length of the first answer, in the device's ring.
        let given = read(queue.parts[2] + 8, 4);
        if given > 64 << 10 {
            return Err(());
        }
    }
    Ok(())
}
