//! A kernel file: loaded where it may lie and nowhere else, or refused.

use isolab_vmm::invariants::loads_where_it_may_or_is_refused;
use libfuzzer_sys::Corpus;

pub(crate) fn run(file: &[u8]) -> Corpus {
    loads_where_it_may_or_is_refused(file);
    Corpus::Keep
}
