//! What must hold for any input. The property tests of this crate and the fuzz targets (`fuzz/`, `docs/fuzzing.md`) call the same
//! functions, each of which panics where something does not hold. Compiled for these two only.

pub use crate::erofs::invariants::{Sketch, Xattrs, accepted_or_refused, image_of, reseal, round_trip};
pub use crate::layer::invariants::{layer_of, one_reading, same_as_the_model, same_however_read};
pub use crate::oci::invariants::{Parts, imported_or_refused};
pub use crate::users::invariants::the_number_that_was_asked_for;

#[cfg(test)]
mod seeds;
