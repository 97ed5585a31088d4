//! Each virtio device under any accesses and over any memory, and requests to block device and console.

use arbitrary::Arbitrary;
use isolab_fuzz::made;
use isolab_vmm::invariants::{answered_and_written_where_it_may, keeps_working, machine_stays_alive};
use libfuzzer_sys::Corpus;

#[derive(Arbitrary, Debug)]
enum Input {
    Machine { which: u8, start: bool, accesses: Vec<(u16, u32, u8)>, memory: Vec<u8> },
    Block { kind: u32, sector: u64, near: bool, lens: Vec<(u32, bool)> },
    Console { messages: Vec<(u8, u16, u16)>, far: u32, bytes: Vec<u8> },
}

pub(crate) fn run(data: &[u8]) -> Corpus {
    made(data, |input: Input| match input {
        Input::Machine { which, start, mut accesses, memory } => {
            accesses.truncate(200);
            accesses.iter_mut().for_each(|access| access.0 %= 0x140);
            machine_stays_alive(which, start, &accesses, &memory);
        }
        Input::Block { kind, sector, near, lens } => {
            let (kind, sector) = if near { (kind % 16, sector % 20) } else { (kind, sector) };
            if !lens.is_empty() {
                answered_and_written_where_it_may(kind, sector, &lens);
            }
        }
        Input::Console { messages, far, bytes } => {
            let port = |port: u8| if port == u8::MAX { far } else { u32::from(port % 6) };
            let messages: Vec<_> =
                messages.iter().map(|&(p, event, value)| (port(p), event % 9, value)).collect();
            keeps_working(&messages, &bytes);
        }
    })
}
