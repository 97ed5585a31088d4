//! Something like applications, so that the small measurements are not over-read.

use core::hint::black_box;

use isolab_bare::sys::Errno;
use isolab_bare::sys::memory::Pages;

use crate::measure::{Line, Operation};
use crate::{End, Run};

const BLOCK: usize = 4096;
const MIB: usize = 1 << 20;
/// The FNV hash's 64-bit prime and start.
const PRIME: u64 = 0x0100_0000_01b3;
const START: u64 = 0xcbf2_9ce4_8422_2325;

/// One MiB of words of a few letters, the same at each run.
fn text() -> Result<Pages, Errno> {
    let mut pages = Pages::map(MIB)?;
    let mut x = START;
    for byte in pages.iter_mut() {
        x = step(x);
        *byte = match x >> 60 {
            0..3 => b' ',
            n => b'a' + (n as u8) / 2,
        };
    }
    Ok(pages)
}

const fn step(x: u64) -> u64 {
    let x = x ^ x << 13;
    let x = x ^ x >> 7;
    x ^ x << 17
}

/// FNV-1a, 64 bits; an operation is a block of 4 KiB.
pub(crate) fn hash(run: &Run) -> End {
    let pages = text()?;
    let mut blocks = pages.chunks_exact(BLOCK).cycle();
    run.measure("hash", 0, 256, |n| {
        for block in blocks.by_ref().take(n as usize) {
            black_box(block.iter().fold(START, |h, b| (h ^ u64::from(*b)).wrapping_mul(PRIME)));
        }
        Ok(())
    })
}

/// Finds repeated strings, the first half of every Lempel-Ziv compressor; an operation is a block of 4 KiB.
pub(crate) fn compress(run: &Run) -> End {
    run.measure(
        "compress",
        0,
        256,
        Compress { text: text()?, at: 0, table: [0; 4096], literals: 0, matches: 0 },
    )
}

struct Compress {
    text: Pages,
    at: usize,
    /// Where a string of four bytes with this hash was seen last in the block, plus one.
    table: [u16; 4096],
    literals: u64,
    matches: u64,
}

impl Compress {
    fn block(&mut self) {
        let block = self.text.get(self.at..self.at + BLOCK).unwrap_or_default();
        self.at = (self.at + BLOCK) % MIB;
        self.table.fill(0);
        let mut i = 0;
        while let Some(next) = block.get(i..).and_then(|rest| rest.first_chunk::<4>()) {
            let slot = (u32::from_le_bytes(*next).wrapping_mul(2_654_435_761) >> 20) as usize;
            let seen = self.table.get_mut(slot).map(|seen| core::mem::replace(seen, i as u16 + 1));
            let earlier = seen.filter(|seen| *seen > 0).map(|seen| usize::from(seen) - 1);
            let same = earlier.map_or(0, |from| {
                let (old, new) = (block.iter().skip(from), block.iter().skip(i));
                old.zip(new).take_while(|(a, b)| a == b).count()
            });
            if same >= 4 {
                self.matches += 1;
                i += same;
            } else {
                self.literals += 1;
                i += 1;
            }
        }
    }
}

impl Operation for Compress {
    fn batch(&mut self, n: u64) -> Result<(), Errno> {
        (0..n).for_each(|_| self.block());
        Ok(())
    }

    fn restart(&mut self) {
        (self.at, self.matches, self.literals) = (0, 0, 0);
    }

    fn tell(&self, line: &mut Line) {
        line.push(b",\"matches\":").number(self.matches).push(b",\"literals\":").number(self.literals);
    }
}

/// A table of keys and values in memory: an operation sets one key and gets another.
pub(crate) fn kv(run: &Run) -> End {
    const SLOTS: usize = 1 << 18;
    let mut table = Pages::map(SLOTS * 16)?;
    let mut x = START;
    run.measure("kv", 0, 100_000, |n| {
        for i in 0..n {
            x = step(x);
            // Half as many keys as slots: the search for a free one is short.
            let key = (x % (SLOTS as u64 / 2)) + 1;
            let (keys, _) = table.as_chunks_mut::<16>();
            set(keys, key, i);
            black_box(get(keys, (x >> 32) % (SLOTS as u64 / 2) + 1));
        }
        Ok(())
    })
}

/// Where the search for a key begins.
const fn first(key: u64, slots: usize) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (slots - 1)
}

fn halves(slot: &[u8; 16]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, value @ ..] = *slot;
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(value))
}

fn set(table: &mut [[u8; 16]], key: u64, value: u64) {
    let (slots, at) = (table.len(), first(key, table.len()));
    for i in (0..slots).map(|i| (at + i) & (slots - 1)) {
        if let Some(slot) = table.get_mut(i).filter(|slot| [0, key].contains(&halves(slot).0)) {
            let (k, v) = slot.split_at_mut(8);
            k.copy_from_slice(&key.to_le_bytes());
            v.copy_from_slice(&value.to_le_bytes());
            return;
        }
    }
}

fn get(table: &[[u8; 16]], key: u64) -> Option<u64> {
    let (slots, at) = (table.len(), first(key, table.len()));
    let found = (0..slots).map(|i| (at + i) & (slots - 1)).filter_map(|i| table.get(i).map(halves));
    found.take_while(|(k, _)| *k != 0).find(|(k, _)| *k == key).map(|(_, value)| value)
}
