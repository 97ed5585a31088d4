//! A stored stream: no more bytes than the budget, and the same however it is read.
#![no_main]

use isolab_images::invariants::same_however_read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stored: &[u8]| same_however_read(stored));
