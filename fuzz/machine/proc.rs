//! Texts of the kernel: read, and read as they are meant.

use arbitrary::Arbitrary;
use isolab_container::invariants::{
    any_texts_are_read, our_directory_is_found_at_any_place, the_parent_behind_any_name,
};
use libfuzzer_sys::Corpus;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    numbers: Vec<(u64, u64)>,
    pids: (i32, i32),
    name: &'a str,
    point: &'a str,
    own: &'a str,
}

pub(crate) fn run(data: &[u8]) -> Corpus {
    let text = String::from_utf8_lossy(data);
    let (one, other) = text.split_once("\n--\n").unwrap_or((&text, ""));
    any_texts_are_read(one, other, &[(0x1000, 0x2000), (0x7000, 0x2000)]);
    let Ok(input) = Input::arbitrary(&mut arbitrary::Unstructured::new(data)) else { return Corpus::Keep };
    any_texts_are_read(one, other, &input.numbers);
    the_parent_behind_any_name(input.pids.0, input.name, input.pids.1);
    our_directory_is_found_at_any_place(input.point, input.own);
    Corpus::Keep
}
