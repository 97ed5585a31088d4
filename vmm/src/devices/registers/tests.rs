use proptest::prelude::*;

use super::*;

const SIZES: [u16; 2] = [64, 8];
const OFFERED: u64 = 1 << 5 | VERSION_1;

/// The reference: phases with a name, and what may be written in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Reset,
    Acknowledged,
    Driver,
    Features,
    Running,
}

#[derive(Clone, Debug)]
struct Model {
    phase: Phase,
    failed: bool,
    driver_features: u64,
    sel: [u32; 3],
    queues: Vec<QueueSetting>,
}

impl Model {
    fn new() -> Self {
        let queue = |max| QueueSetting { max, size: max, ..Default::default() };
        let queues = SIZES.map(queue).to_vec();
        Self { phase: Phase::Reset, failed: false, driver_features: 0, sel: [0; 3], queues }
    }

    fn status(&self) -> u32 {
        let bits = match self.phase {
            Phase::Reset => 0,
            Phase::Acknowledged => 1,
            Phase::Driver => 3,
            Phase::Features => 11,
            Phase::Running => 15,
        };
        bits | if self.failed { 128 } else { 0 }
    }

    fn write(&mut self, at: u64, value: u32) {
        let word = |old: u64, high: bool| {
            if high { old & 0xffff_ffff | u64::from(value) << 32 } else { old >> 32 << 32 | u64::from(value) }
        };
        match at {
            0x14 => self.sel[0] = value,
            0x24 => self.sel[1] = value,
            0x30 => self.sel[2] = value,
            0x20 if self.phase == Phase::Driver && !self.failed && self.sel[1] < 2 => {
                self.driver_features = word(self.driver_features, self.sel[1] == 1);
            }
            0x70 if value == 0 => *self = Self::new(),
            0x70 if value >= 128 && value & 128 != 0 => self.failed = true,
            0x70 if !self.failed => {
                let agreed = self.driver_features & !OFFERED == 0 && self.driver_features & VERSION_1 != 0;
                self.phase = match (self.phase, value) {
                    (Phase::Reset, 1) => Phase::Acknowledged,
                    (Phase::Acknowledged, 3) => Phase::Driver,
                    (Phase::Driver, 11) if agreed => Phase::Features,
                    (Phase::Features, 15) => Phase::Running,
                    (phase, _) => phase,
                };
            }
            _ if self.phase == Phase::Features && !self.failed && self.sel[2] < 2 => {
                let queue = &mut self.queues[self.sel[2] as usize];
                match (at, queue.ready) {
                    (0x44, _) => queue.ready = value == 1,
                    (0x38, false) if value.count_ones() == 1 && value <= u32::from(queue.max) => {
                        queue.size = u16::try_from(value).unwrap();
                    }
                    (0x80 | 0x84, false) => queue.descriptors = word(queue.descriptors, at == 0x84),
                    (0x90 | 0x94, false) => queue.available = word(queue.available, at == 0x94),
                    (0xa0 | 0xa4, false) => queue.used = word(queue.used, at == 0xa4),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

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
        let (mut registers, mut model) = (Registers::new(3, OFFERED, &SIZES), Model::new());
        for (at, value) in writes {
            let before = registers.status();
            let effect = registers.write(at, value);
            model.write(at, value);
            prop_assert_eq!(registers.status(), model.status(), "after {:#x} = {:#x}", at, value);
            prop_assert_eq!(&registers.queues, &model.queues);
            prop_assert_eq!(effect == Effect::Activate, before == 11 && registers.status() == 15);
            prop_assert_eq!(effect == Effect::Reset, at == 0x70 && value == 0);
            prop_assert_eq!(registers.is_active(), model.phase == Phase::Running && !model.failed);
            for at in (0..0x100).step_by(4) {
                registers.read(at, 0);
            }
        }
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
