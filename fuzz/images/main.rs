//! Targets of what images are made of.
#![no_main]

use isolab_fuzz::Chosen;
use libfuzzer_sys::{Corpus, fuzz_target};

mod compressed;
mod erofs_image;
mod erofs_tree;
mod layers;
mod oci;
mod tar;

static CHOSEN: Chosen = Chosen::new();

fuzz_target!(
    init: CHOSEN.choose(&[
        ("compressed", compressed::run),
        ("erofs_image", erofs_image::run),
        ("erofs_tree", erofs_tree::run),
        ("layers", layers::run),
        ("oci", oci::run),
        ("tar", tar::run),
    ]),
    |data: &[u8]| -> Corpus { CHOSEN.run(data) }
);
