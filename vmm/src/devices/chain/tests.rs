use proptest::prelude::*;
use vm_memory::GuestAddress;

use super::invariants::{Ring, pieces_inside_ram};
use super::*;
use crate::devices::driver::{DATA, Descriptor, Driver, INDIRECT, NEXT, RAM, SIZE, WRITE, ram};

fn one(descriptors: &[Descriptor], head: u16) -> Result<Option<Chain>, Malformed> {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0);
    for (index, descriptor) in (0..).zip(descriptors) {
        driver.put(index, *descriptor);
    }
    driver.offer(head);
    pop(&mut driver.queue(), &ram)
}

const fn d(at: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { at, len, flags, next }
}

#[test]
fn takes_a_chain_as_the_driver_wrote_it() {
    let chain =
        one(&[d(DATA, 16, NEXT, 1), d(DATA + 16, 512, NEXT | WRITE, 2), d(DATA + 528, 1, WRITE, 0)], 0);
    let piece = |at, len| Piece { at: GuestAddress(at), len };
    let wanted = Chain {
        head: 0,
        readable: vec![piece(DATA, 16)],
        writable: vec![piece(DATA + 16, 512), piece(DATA + 528, 1)],
    };
    assert_eq!(chain, Ok(Some(wanted)));
}

#[test]
fn refuses_malformed_chains() {
    let table: &[(&str, &[Descriptor], u16)] = &[
        ("head outside the table", &[d(DATA, 1, 0, 0)], SIZE),
        ("head far outside", &[d(DATA, 1, 0, 0)], u16::MAX),
        ("next outside the table", &[d(DATA, 1, NEXT, SIZE)], 0),
        ("next far outside", &[d(DATA, 1, NEXT, u16::MAX)], 0),
        ("loop of one", &[d(DATA, 1, NEXT, 0)], 0),
        ("loop of two", &[d(DATA, 1, NEXT, 1), d(DATA, 1, NEXT, 0)], 0),
        ("address after RAM", &[d(RAM, 1, 0, 0)], 0),
        ("length over the end of RAM", &[d(RAM - 8, 9, 0, 0)], 0),
        ("length of 4 GiB", &[d(DATA, u32::MAX, 0, 0)], 0),
        ("address at the end of space", &[d(u64::MAX, 1, 0, 0)], 0),
        ("address and length wrap", &[d(u64::MAX - 7, 16, 0, 0)], 0),
        ("second piece outside", &[d(DATA, 1, NEXT, 1), d(RAM, 1, WRITE, 0)], 0),
        ("readable after writable", &[d(DATA, 1, NEXT | WRITE, 1), d(DATA, 1, 0, 0)], 0),
        ("indirect of odd length", &[d(DATA, 15, INDIRECT, 0)], 0),
        ("indirect of no entry", &[d(DATA, 0, INDIRECT, 0)], 0),
        ("indirect outside RAM", &[d(RAM, 16, INDIRECT, 0)], 0),
        ("indirect of a million entries", &[d(DATA, 16 << 20, INDIRECT, 0)], 0),
    ];
    for (name, descriptors, head) in table {
        assert_eq!(one(descriptors, *head), Err(Malformed), "{name}");
    }
}

#[test]
fn refuses_an_indirect_table_that_never_ends() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0);
    // 64 entries in a ring, in a queue of 8.
    for i in 0..64_u64 {
        let next = u16::try_from((i + 1) % 64).unwrap();
        let mut bytes = DATA.to_le_bytes().to_vec();
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(NEXT.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        ram.write_slice(&bytes, GuestAddress(DATA + 16 * i)).unwrap();
    }
    driver.put(0, d(DATA, 64 * 16, INDIRECT, 0));
    driver.offer(0);
    assert_eq!(pop(&mut driver.queue(), &ram), Err(Malformed));
}

#[test]
fn refuses_an_index_that_jumps_ahead() {
    let ram = ram();
    let driver = Driver::new(&ram, 0);
    driver.set_index(SIZE + 1);
    assert_eq!(pop(&mut driver.queue(), &ram), Err(Malformed));
}

#[test]
fn index_wraps_around() {
    let ram = ram();
    let mut driver = Driver::new(&ram, 0);
    let mut queue = driver.queue();
    for _ in 0..=u32::from(u16::MAX) + 3 {
        driver.chain(&[(DATA, 4, false)]);
        let chain = pop(&mut queue, &ram).unwrap().unwrap();
        push(&mut queue, &ram, chain.head, 0).unwrap();
    }
    assert_eq!(pop(&mut queue, &ram), Ok(None));
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let at = prop_oneof![0..RAM, RAM - 32..RAM + 32, any::<u64>()];
    let len = prop_oneof![0_u32..64, any::<u32>()];
    (at, len, 0_u16..8, prop_oneof![0..SIZE + 2, any::<u16>()])
        .prop_map(|(at, len, flags, next)| Descriptor { at, len, flags, next })
}

proptest! {
    #[test]
    fn any_ring_gives_pieces_inside_ram_or_an_error(
        descriptors in prop::collection::vec(descriptor(), usize::from(SIZE)),
        heads in prop::collection::vec(prop_oneof![0..SIZE, any::<u16>()], 1..usize::from(SIZE)),
        junk in prop::collection::vec(any::<u8>(), 4096),
        changes in prop::collection::vec((0_u16..0xa00, any::<u8>()), 0..8),
    ) {
        pieces_inside_ram(&Ring { descriptors, heads, junk, changes });
    }
}
