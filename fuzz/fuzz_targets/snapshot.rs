//! The state file of a snapshot: a state that a guest could have set, or an error.
#![no_main]

use isolab_vmm::invariants::{a_state_that_fits_or_an_error, encoded};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    a_state_that_fits_or_an_error(bytes);
    // Behind a good header, too.
    a_state_that_fits_or_an_error(&[&encoded()[..16], bytes].concat());
});
