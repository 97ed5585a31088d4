//! A stored stream: no more bytes than the budget, and the same however it is read.

use isolab_images::invariants::same_however_read;
use libfuzzer_sys::Corpus;

pub(crate) fn run(stored: &[u8]) -> Corpus {
    same_however_read(stored);
    Corpus::Keep
}
