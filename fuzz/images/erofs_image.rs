//! Any file as an image: refused, or to the last byte what the writer makes.

use isolab_images::erofs::BLOCK;
use isolab_images::invariants::{accepted_or_refused, reseal};
use libfuzzer_sys::Corpus;

// The first byte says how many blocks of metadata get their identity and checksum made right; 0: the file is as it is.
pub(crate) fn run(input: &[u8]) -> Corpus {
    let Some((&blocks, image)) = input.split_first() else { return Corpus::Keep };
    let mut image = image.to_vec();
    let meta = usize::from(blocks) * BLOCK;
    if let Some(meta) = image.get_mut(..meta) {
        reseal(meta);
    }
    accepted_or_refused(&image);
    Corpus::Keep
}
