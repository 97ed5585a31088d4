//! The registers of a device against a state machine that is written otherwise.

use super::*;

pub(super) const SIZES: [u16; 2] = [64, 8];
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
                        queue.size = u16::try_from(value).expect("small");
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

/// Any writes lead where the reference says, and reading changes nothing.
pub fn as_the_reference_says(writes: &[(u64, u32)]) {
    let (mut registers, mut model) = (Registers::new(3, OFFERED, &SIZES), Model::new());
    for &(at, value) in writes {
        let before = registers.status();
        let effect = registers.write(at, value);
        model.write(at, value);
        assert_eq!(registers.status(), model.status(), "after {at:#x} = {value:#x}");
        assert_eq!(registers.queues, model.queues);
        assert_eq!(effect == Effect::Activate, before == 11 && registers.status() == 15);
        assert_eq!(effect == Effect::Reset, at == 0x70 && value == 0);
        assert_eq!(registers.is_active(), model.phase == Phase::Running && !model.failed);
        let written = registers.clone();
        for at in (0..0x100).step_by(4) {
            registers.read(at, 0);
        }
        assert_eq!(registers, written);
    }
}
