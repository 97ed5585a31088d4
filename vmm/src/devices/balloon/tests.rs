use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::invariants::{KEPT, filled, pages, pages_go_whole_or_stay, queues};
use super::*;
use crate::devices::driver::{DATA, Descriptor, Driver, NEXT, RAM, SIZE, WRITE};
use crate::memory;

/// Address, length, whether the device may write.
type Pieces = [(u64, u32, bool)];

/// Where the driver's queues for reports are, by Linux's count and by the specification's.
const PLACES: [usize; 2] = [2, 4];

/// Serves one chain on one queue; returns what came of it and which pages lost what they held.
fn report(index: usize, pieces: &Pieces) -> (Result<(u16, u32), Malformed>, Vec<usize>) {
    let ram = filled();
    let mut driver = Driver::new(&ram, 0);
    driver.chain(pieces);
    let result = Balloon.serve(&ram, &mut queues(&driver, index)).map(|_| driver.used());
    let lost = |(at, page): (usize, (u8, u8))| match page {
        (KEPT, KEPT) => None,
        (0, 0) => Some(at),
        other => panic!("page {at} holds {other:?}"),
    };
    (result, pages(&ram).into_iter().enumerate().filter_map(lost).collect())
}

#[test]
fn reported_pages_lose_what_they_hold_and_no_others() {
    for place in PLACES {
        let (used, lost) = report(place, &[(DATA + 0x3000, 0x2000, true), (DATA, 0x1000, true)]);
        assert_eq!((used, lost), (Ok((1, 0)), vec![0, 3, 4]), "queue {place}");
    }
}

#[test]
fn what_is_put_into_the_balloon_or_taken_out_stays_as_it_is() {
    for index in [0, 1] {
        let (used, lost) = report(index, &[(DATA, 0x1000, false)]);
        assert_eq!((used, lost), (Ok((1, 0)), vec![]), "queue {index}");
    }
}

#[test]
fn a_report_of_anything_but_whole_pages_of_ram_that_may_be_written_takes_nothing() {
    let good = (DATA, 0x1000, true);
    let ram_len = u32::try_from(RAM).unwrap();
    let table: &[(&str, &Pieces)] = &[
        ("readable", &[(DATA, 0x1000, false)]),
        ("readable before writable", &[(DATA + 0x1000, 0x1000, false), good]),
        ("begins within a page", &[good, (DATA + 0x1001, 0x1000, true)]),
        ("ends within a page", &[good, (DATA + 0x1000, 0x1001, true)]),
        ("less than a page", &[good, (DATA + 0x1000, 1, true)]),
        ("nothing", &[good, (DATA + 0x1000, 0, true)]),
        ("after RAM", &[good, (RAM, 0x1000, true)]),
        ("over the end of RAM", &[good, (RAM - 0x1000, 0x2000, true)]),
        ("at the end of space", &[good, (u64::MAX - 0xfff, 0x1000, true)]),
        ("more than RAM", &[good, (0, ram_len, true)]),
    ];
    for (name, pieces) in table {
        assert_eq!(report(2, pieces), (Err(Malformed), vec![]), "{name}");
    }
}

#[test]
fn a_page_of_a_template_is_as_the_template_has_it_and_the_template_as_it_was() {
    let ram = memory::map(1 << 20).unwrap();
    let file: File = rustix::fs::memfd_create("template", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into();
    file.write_all_at(&[7; 0x2000], 0).unwrap();
    sys::overlay(&ram, GuestAddress(DATA), 0x2000, &file, 0).unwrap();
    let mut driver = Driver::new(&ram, 0);
    ram.write_slice(&[KEPT; 0x4000], GuestAddress(DATA - 0x1000)).unwrap();
    driver.chain(&[(DATA - 0x1000, 0x2000, true)]);
    Balloon.serve(&ram, &mut queues(&driver, 2)).unwrap();
    let byte = |at| ram.read_obj::<u8>(GuestAddress(at)).unwrap();
    // Fresh memory, what was reported of the template, what was not, and fresh memory that was not.
    assert_eq!([DATA - 0x1000, DATA, DATA + 0x1000, DATA + 0x2000].map(byte), [0, 7, KEPT, KEPT]);
    let mut stored = [0; 0x2000];
    file.read_exact_at(&mut stored, 0).unwrap();
    assert_eq!(stored, [7; 0x2000]);
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let page = |range: std::ops::Range<u64>| range.prop_map(|page| page * PAGE);
    let at = prop_oneof![page(0..RAM / PAGE + 2), 0..RAM + 32, any::<u64>()];
    let len = prop_oneof![(0_u32..80).prop_map(|pages| pages * 4096), 0_u32..9000, any::<u32>()];
    let flags = prop_oneof![Just(WRITE), Just(WRITE | NEXT), 0_u16..8];
    (at, len, flags, prop_oneof![0..SIZE + 2, any::<u16>()]).prop_map(|(at, len, flags, next)| Descriptor {
        at,
        len,
        flags,
        next,
    })
}

proptest! {
    /// Whatever a guest reports, its queues and itself included: a turn ends, and what is not RAM is not touched.
    #[test]
    fn any_report_ends_and_changes_whole_pages_only(
        descriptors in prop::collection::vec(descriptor(), usize::from(SIZE)),
        heads in prop::collection::vec(prop_oneof![0..SIZE, any::<u16>()], 1..12),
        place in 0_usize..QUEUES.len(),
    ) {
        pages_go_whole_or_stay(&descriptors, &heads, place);
    }
}
