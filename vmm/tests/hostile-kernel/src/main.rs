//! A guest kernel of our own that does everything wrong on purpose: each [attack](attacks) drives a part of the machine with values
//! that no driver would write. It knows the machine from `vmm/src/layout.rs` and believes nothing that it is told.
//!
//! Which attack is chosen by the test, in the file: 16 bytes after [`CHOICE_HEAD`] hold its name, and 8 bytes more the seed of its
//! random numbers. Attacks that leave the machine alive end as a good run does, with all of its marks, so that isolab's own
//! account of memory tells what they made the monitor grow; one that finds the monitor to have done wrong ends with status 1.
#![no_std]
#![no_main]

mod attacks;
#[allow(unsafe_code)]
mod cpu;
mod random;
mod virtio;

use core::panic::PanicInfo;

use isolab_bare as _;
use isolab_wire::mark::{CODE_PORT, Code, VALUE_PORT};

use crate::random::Random;

/// What stands before the choice.
pub const CHOICE_HEAD: &[u8; 16] = b"isolab-hostile: ";

/// Head, name of the attack (padded with spaces), seed.
#[used]
static CHOICE: [u8; 40] = *b"isolab-hostile: rest            \x01\0\0\0\0\0\0\0";

/// Whether the monitor did as it should.
type Verdict = Result<(), ()>;

/// After the entry has made a stack and page tables.
fn main() -> ! {
    let choice = cpu::read_from_memory(&CHOICE);
    let (name, seed) = choice[CHOICE_HEAD.len()..].split_at(16);
    let seed = seed.try_into().map_or(1, u64::from_le_bytes);
    let name = core::str::from_utf8(name).unwrap_or_default().trim_ascii_end();
    for code in [Code::Init, Code::Exec, Code::Work] {
        mark(code, 0);
    }
    let Some(attack) = attacks::named(name) else { end(2) };
    let verdict = attack(&mut Random::new(seed));
    // The account is read at the moment in which the guest is ready: here, when all is done.
    mark(Code::Ready, 0);
    end(u32::from(verdict.is_err()))
}

fn mark(code: Code, value: u32) {
    cpu::out32(VALUE_PORT, value);
    cpu::out8(CODE_PORT, code as u8);
}

/// The last mark; status as a process's.
fn end(status: u32) -> ! {
    mark(Code::Exit, status);
    cpu::halt()
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    end(3)
}
