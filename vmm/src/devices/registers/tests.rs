use proptest::prelude::*;

use super::invariants::{SIZES, as_the_reference_says};
use super::*;

fn write() -> impl Strategy<Value = (u64, u32)> {
    let known = prop::sample::select(vec![
        0x10, 0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xfc,
    ]);
    let value =
        prop_oneof![0_u32..4, prop::sample::select(vec![8_u32, 11, 15, 32, 64, 128, 256]), any::<u32>()];
    // The steps of a good driver, so that late phases are reached often.
    let good = prop::sample::select(vec![
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x44, 1),
        (0x70, 15),
    ]);
    prop_oneof![4 => good, 4 => (known, value.clone()), 1 => (Just(0x70), value), 1 => (any::<u64>(), any::<u32>())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..Default::default() })]

    #[test]
    fn any_writes_lead_where_the_reference_says(writes in prop::collection::vec(write(), 0..80)) {
        as_the_reference_says(&writes);
    }
}

#[test]
fn a_good_driver_comes_through() {
    let mut registers = Registers::new(3, 1 << 5, &SIZES);
    assert_eq!(registers.read(offset::MAGIC, 0).to_le_bytes(), *b"virt");
    for (at, value) in [(0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x24, 0), (0x20, 1 << 5), (0x70, 11)] {
        assert_eq!(registers.write(at, value), Effect::None);
    }
    assert_eq!(registers.read(offset::STATUS, 0), 11);
    registers.write(offset::QUEUE_NUM, 32);
    registers.write(offset::QUEUE_READY, 1);
    assert_eq!(registers.write(offset::STATUS, 15), Effect::Activate);
    assert_eq!(registers.write(offset::QUEUE_NOTIFY, 0), Effect::Notify);
}

#[test]
fn queues_can_not_be_moved_while_the_device_runs() {
    let mut registers = Registers::new(3, 0, &SIZES);
    for (at, value) in
        [(0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x80, 0x1000), (0x44, 1), (0x70, 15)]
    {
        registers.write(at, value);
    }
    let running = registers.clone();
    for at in [0x38, 0x44, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x20] {
        registers.write(at, 0x10);
    }
    assert_eq!(registers, running);
}

#[test]
fn a_driver_of_the_old_kind_is_refused() {
    let mut registers = Registers::new(3, 0, &SIZES);
    for (at, value) in [(0x70, 1), (0x70, 3), (0x70, 11)] {
        registers.write(at, value);
    }
    assert_eq!(registers.status(), 3);
}
