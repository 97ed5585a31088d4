//! Any file as an image: refused, or to the last byte what the writer makes.
#![no_main]

use isolab_images::erofs::BLOCK;
use isolab_images::invariants::{accepted_or_refused, reseal};
use libfuzzer_sys::fuzz_target;

// The first byte says how many blocks of metadata get their identity and checksum made right; 0: the file is as it is.
fuzz_target!(|input: &[u8]| {
    let Some((&blocks, image)) = input.split_first() else { return };
    let mut image = image.to_vec();
    let meta = usize::from(blocks) * BLOCK;
    if let Some(meta) = image.get_mut(..meta) {
        reseal(meta);
    }
    accepted_or_refused(&image);
});
