//! What the fuzz targets of this crate begin with.

use super::{bzimage, elf, encoded, signed};

#[path = "../../../fuzz/seeds.rs"]
mod keep;
use keep::seed;

#[test]
fn seeds_are_those_of_the_repository() {
    seed("kernel", "bzimage", &bzimage());
    seed("kernel", "signed", &signed());
    seed("kernel", "elf", &elf());
    seed("snapshot", "state", &encoded());
}
