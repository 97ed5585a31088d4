//! What must hold for anything that a guest, a kernel file or a state file says. The property tests of this crate and the fuzz
//! targets (`fuzz/`, `docs/fuzzing.md`) call the same functions, each of which panics where something does not hold. Compiled for
//! these two only.

pub use crate::boot::kernel::invariants::{bzimage, elf, loads_where_it_may_or_is_refused, signed};
pub use crate::devices::balloon::invariants::pages_go_whole_or_stay;
pub use crate::devices::block::invariants::answered_and_written_where_it_may;
pub use crate::devices::bus::invariants::{Access, only_what_is_owned_is_reached};
pub use crate::devices::chain::invariants::{Ring, pieces_inside_ram};
pub use crate::devices::console::invariants::keeps_working;
pub use crate::devices::driver::Descriptor;
pub use crate::devices::mmio::invariants::machine_stays_alive;
pub use crate::devices::registers::invariants::as_the_reference_says;
pub use crate::template::invariants::{a_state_that_fits_or_an_error, encoded};

#[cfg(test)]
mod seeds;
