//! Targets of what a guest, its files and the kernel say, and of what isolab tells its process 1.
#![no_main]

use isolab_fuzz::Chosen;
use libfuzzer_sys::{Corpus, fuzz_target};

mod devices;
mod filter;
mod kernel;
mod proc;
mod queue;
mod registers;
mod snapshot;
mod wire;

static CHOSEN: Chosen = Chosen::new();

fuzz_target!(
    init: CHOSEN.choose(&[
        ("devices", devices::run),
        ("filter", filter::run),
        ("kernel", kernel::run),
        ("proc", proc::run),
        ("queue", queue::run),
        ("registers", registers::run),
        ("snapshot", snapshot::run),
        ("wire", wire::run),
    ]),
    |data: &[u8]| -> Corpus { CHOSEN.run(data) }
);
