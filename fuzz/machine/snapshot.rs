//! The state file of a snapshot: a state that a guest could have set, or an error.

use isolab_vmm::invariants::{a_state_that_fits_or_an_error, encoded};
use libfuzzer_sys::Corpus;

pub(crate) fn run(bytes: &[u8]) -> Corpus {
    a_state_that_fits_or_an_error(bytes);
    // Behind a good header, too.
    a_state_that_fits_or_an_error(&[&encoded()[..16], bytes].concat());
    Corpus::Keep
}
