//! A kernel file: loaded where it may lie and nowhere else, or refused.
#![no_main]

use isolab_vmm::invariants::loads_where_it_may_or_is_refused;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| loads_where_it_may_or_is_refused(file));
