//! Targets of what results are read from.
#![no_main]

use isolab_fuzz::Chosen;
use libfuzzer_sys::{Corpus, fuzz_target};

mod record;

static CHOSEN: Chosen = Chosen::new();

fuzz_target!(
    init: CHOSEN.choose(&[
        ("record", record::run),
    ]),
    |data: &[u8]| -> Corpus { CHOSEN.run(data) }
);
