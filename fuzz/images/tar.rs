//! A layer: one reading or an error, and what is imported can be written, exported and imported again.

use isolab_images::invariants::one_reading;
use libfuzzer_sys::Corpus;

pub(crate) fn run(layer: &[u8]) -> Corpus {
    one_reading(&sealed(layer));
    Corpus::Keep
}

/// The bytes with every header's checksum right where it was a number before: a changed byte alone would get no further than that.
fn sealed(layer: &[u8]) -> Vec<u8> {
    let mut layer = layer.to_vec();
    for block in layer.as_chunks_mut::<512>().0 {
        if block[257..262] == *b"ustar" && block[154] == 0 {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    layer
}
