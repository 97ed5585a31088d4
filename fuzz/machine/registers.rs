//! Registers of a device against the reference, and accesses that belong to no device.

use arbitrary::Arbitrary;
use isolab_fuzz::made;
use isolab_vmm::invariants::{Access, as_the_reference_says, only_what_is_owned_is_reached};
use libfuzzer_sys::Corpus;

/// What a good driver writes on its way, so that late states are reached.
const GOOD: [(u64, u32); 8] =
    [(0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x44, 1), (0x70, 15), (0x70, 0)];

#[derive(Arbitrary, Debug)]
enum Step {
    Good(u8),
    Near(u8, u8),
    Any(u64, u32),
    Access { port: bool, near: bool, at: u64, width: u8, write: bool, data: [u8; 8] },
}

pub(crate) fn run(data: &[u8]) -> Corpus {
    made(data, |steps: Vec<Step>| {
        let (mut writes, mut accesses) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Good(which) => writes.push(GOOD[usize::from(which % 8)]),
                Step::Near(at, value) => writes.push((u64::from(at) * 4, value.into())),
                Step::Any(at, value) => writes.push((at, value)),
                Step::Access { port, near, at, width, write, data } => {
                    let at = if near { at % 0x1_1000 } else { at };
                    accesses.push(Access { port, at, width, write, data });
                }
            }
        }
        as_the_reference_says(&writes);
        only_what_is_owned_is_reached(&accesses);
    })
}
