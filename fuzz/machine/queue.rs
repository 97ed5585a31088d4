//! A virtqueue that any driver wrote: pieces inside of RAM, each chain once, and an end.

use arbitrary::Arbitrary;
use isolab_fuzz::made;
use isolab_vmm::invariants::{Descriptor, Ring, pages_go_whole_or_stay, pieces_inside_ram};
use libfuzzer_sys::Corpus;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Address, whether it is rounded to a page of RAM, length, flags, next.
    table: [(u64, u8, u32, u8, u16); 8],
    heads: [u16; 8],
    used: u8,
    place: u8,
    changes: Vec<(u16, u8)>,
    junk: Vec<u8>,
}

pub(crate) fn run(data: &[u8]) -> Corpus {
    made(data, |input: Input| {
        let descriptors = input.table.map(|(at, near, len, flags, next)| match near % 4 {
            0 => Descriptor { at, len, flags: flags.into(), next },
            1 => Descriptor {
                at: at % 0x4_1000,
                len: len % 0x1000,
                flags: u16::from(flags) % 8,
                next: next % 9,
            },
            _ => Descriptor {
                at: at % 0x41 * 0x1000,
                len: len % 0x20 * 0x1000,
                flags: u16::from(flags) % 4,
                next: next % 9,
            },
        });
        let heads = &input.heads[..usize::from(input.used % 9)];
        pages_go_whole_or_stay(&descriptors, heads, input.place.into());
        let (descriptors, heads) = (descriptors.to_vec(), heads.to_vec());
        pieces_inside_ram(&Ring { descriptors, heads, junk: input.junk, changes: input.changes });
    })
}
