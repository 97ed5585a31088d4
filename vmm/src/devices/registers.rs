//! The registers of a virtio-mmio device (virtio 1.2, section 4.2.2) as a state machine without memory or I/O.
//!
//! Status goes 0, ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, one bit at a time and never back; only a reset
//! (write of 0) begins anew. Queues can be set up between FEATURES_OK and DRIVER_OK and at no other time.

use serde::{Deserialize, Serialize};

/// Bits of the status register.
pub(crate) mod status {
    pub(crate) const ACKNOWLEDGE: u32 = 1;
    pub(crate) const DRIVER: u32 = 2;
    pub(crate) const DRIVER_OK: u32 = 4;
    pub(crate) const FEATURES_OK: u32 = 8;
    pub(crate) const NEEDS_RESET: u32 = 0x40;
    pub(crate) const FAILED: u32 = 0x80;
}

/// Register offsets.
pub(crate) mod offset {
    pub(crate) const MAGIC: u64 = 0x00;
    pub(crate) const VERSION: u64 = 0x04;
    pub(crate) const DEVICE_ID: u64 = 0x08;
    pub(crate) const VENDOR_ID: u64 = 0x0c;
    pub(crate) const DEVICE_FEATURES: u64 = 0x10;
    pub(crate) const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub(crate) const DRIVER_FEATURES: u64 = 0x20;
    pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub(crate) const QUEUE_SEL: u64 = 0x30;
    pub(crate) const QUEUE_NUM_MAX: u64 = 0x34;
    pub(crate) const QUEUE_NUM: u64 = 0x38;
    pub(crate) const QUEUE_READY: u64 = 0x44;
    pub(crate) const QUEUE_NOTIFY: u64 = 0x50;
    pub(crate) const INTERRUPT_STATUS: u64 = 0x60;
    pub(crate) const INTERRUPT_ACK: u64 = 0x64;
    pub(crate) const STATUS: u64 = 0x70;
    pub(crate) const QUEUE_DESC: [u64; 2] = [0x80, 0x84];
    pub(crate) const QUEUE_DRIVER: [u64; 2] = [0x90, 0x94];
    pub(crate) const QUEUE_DEVICE: [u64; 2] = [0xa0, 0xa4];
    pub(crate) const SHM: std::ops::RangeInclusive<u64> = 0xb0..=0xbc;
    pub(crate) const CONFIG_GENERATION: u64 = 0xfc;
    pub(crate) const CONFIG: u64 = 0x100;
}

/// `VIRTIO_F_VERSION_1`: without it a driver is of the old kind, which is refused.
pub(crate) const VERSION_1: u64 = 1 << 32;
/// "virt" as the specification spells it.
const MAGIC: u32 = 0x7472_6976;

/// What the driver said of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueSetting {
    pub(crate) max: u16,
    pub(crate) size: u16,
    pub(crate) ready: bool,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
}

/// What a register write asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// Stop, forget the queues.
    Reset,
    /// Start with the queues as they are set.
    Activate,
    /// Look at the queues.
    Notify,
}

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registers {
    id: u32,
    features: u64,
    status: u32,
    driver_features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    pub(crate) queues: Vec<QueueSetting>,
}

impl Registers {
    pub(crate) fn new(id: u32, features: u64, queue_sizes: &[u16]) -> Self {
        let queues = queue_sizes.iter().map(|&max| QueueSetting { max, size: max, ..Default::default() });
        Self {
            id,
            features: features | VERSION_1,
            status: 0,
            driver_features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues: queues.collect(),
        }
    }

    /// Whether stored registers can be those of this device: its own identity, features and queue sizes, and nothing that its
    /// driver could not have set.
    pub(crate) fn can_become(&self, stored: &Self) -> bool {
        const ALL: u32 = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        let accepted = stored.status & status::FEATURES_OK == 0 || stored.features_acceptable();
        let same_sizes = self.queues.len() == stored.queues.len()
            && self.queues.iter().zip(&stored.queues).all(|(own, other)| {
                own.max == other.max && other.size <= own.max && other.size.is_power_of_two()
            });
        self.id == stored.id
            && self.features == stored.features
            && stored.status & !(ALL | status::FAILED | status::NEEDS_RESET) == 0
            && accepted
            && same_sizes
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) const fn status(&self) -> u32 {
        self.status
    }

    /// Whether the device may touch its queues.
    pub(crate) const fn is_active(&self) -> bool {
        self.status & status::DRIVER_OK != 0 && self.status & (status::NEEDS_RESET | status::FAILED) == 0
    }

    /// The device found the driver's queues broken.
    pub(crate) const fn set_needs_reset(&mut self) {
        self.status |= status::NEEDS_RESET;
    }

    /// A 32-bit read of a register below the configuration space.
    pub(crate) fn read(&self, at: u64, interrupts: u32) -> u32 {
        let queue = self.queue();
        match at {
            offset::MAGIC => MAGIC,
            offset::VERSION => 2,
            offset::DEVICE_ID => self.id,
            offset::VENDOR_ID => 0,
            offset::DEVICE_FEATURES => half(self.features, self.device_features_sel),
            offset::QUEUE_NUM_MAX => queue.map_or(0, |q| u32::from(q.max)),
            offset::QUEUE_READY => queue.map_or(0, |q| u32::from(q.ready)),
            offset::INTERRUPT_STATUS => interrupts,
            offset::STATUS => self.status,
            offset::CONFIG_GENERATION => 0,
            // No shared memory: length and address are all ones.
            at if offset::SHM.contains(&at) => u32::MAX,
            _ => 0,
        }
    }

    /// A 32-bit write to a register below the configuration space.
    pub(crate) fn write(&mut self, at: u64, value: u32) -> Effect {
        match at {
            offset::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            offset::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            offset::DRIVER_FEATURES if self.has_exactly(status::ACKNOWLEDGE | status::DRIVER) => {
                set_half(&mut self.driver_features, self.driver_features_sel, value);
            }
            offset::QUEUE_SEL => self.queue_sel = value,
            offset::QUEUE_NOTIFY if self.is_active() => return Effect::Notify,
            offset::STATUS => return self.write_status(value),
            _ => self.write_queue(at, value),
        }
        Effect::None
    }

    const fn has_exactly(&self, bits: u32) -> bool {
        self.status == bits
    }

    fn queue(&self) -> Option<&QueueSetting> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn write_queue(&mut self, at: u64, value: u32) {
        let open = self.has_exactly(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        let selected = usize::try_from(self.queue_sel).ok().and_then(|i| self.queues.get_mut(i));
        let Some(queue) = selected.filter(|_| open) else { return };
        if at == offset::QUEUE_READY {
            queue.ready = value == 1;
            return;
        }
        if queue.ready {
            return;
        }
        if at == offset::QUEUE_NUM {
            if let Ok(size) = u16::try_from(value)
                && size.is_power_of_two()
                && size <= queue.max
            {
                queue.size = size;
            }
            return;
        }
        let fields = [
            (offset::QUEUE_DESC, &mut queue.descriptors),
            (offset::QUEUE_DRIVER, &mut queue.available),
            (offset::QUEUE_DEVICE, &mut queue.used),
        ];
        for ([low, high], field) in fields {
            if at == low {
                set_half(field, 0, value);
            } else if at == high {
                set_half(field, 1, value);
            }
        }
    }

    fn write_status(&mut self, value: u32) -> Effect {
        const DRIVER: u32 = status::ACKNOWLEDGE | status::DRIVER;
        const FEATURES: u32 = DRIVER | status::FEATURES_OK;
        if value == 0 {
            let sizes: Vec<u16> = self.queues.iter().map(|q| q.max).collect();
            *self = Self::new(self.id, self.features, &sizes);
            return Effect::Reset;
        }
        // FAILED may come at any time; the driver has given up until it resets.
        if value & status::FAILED != 0 {
            self.status |= status::FAILED;
            return Effect::None;
        }
        match (self.status, value) {
            (0, status::ACKNOWLEDGE) | (status::ACKNOWLEDGE, DRIVER) => self.status = value,
            (DRIVER, FEATURES) if self.features_acceptable() => self.status = value,
            (FEATURES, value) if value == FEATURES | status::DRIVER_OK => {
                self.status = value;
                return Effect::Activate;
            }
            _ => {}
        }
        Effect::None
    }

    const fn features_acceptable(&self) -> bool {
        self.driver_features & !self.features == 0 && self.driver_features & VERSION_1 != 0
    }
}

fn half(value: u64, which: u32) -> u32 {
    let [b0, b1, b2, b3, b4, b5, b6, b7] = value.to_le_bytes();
    match which {
        0 => u32::from_le_bytes([b0, b1, b2, b3]),
        1 => u32::from_le_bytes([b4, b5, b6, b7]),
        _ => 0,
    }
}

fn set_half(field: &mut u64, which: u32, value: u32) {
    let value = u64::from(value);
    match which {
        0 => *field = *field & !0xffff_ffff | value,
        1 => *field = *field & 0xffff_ffff | value << 32,
        _ => {}
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
#[cfg(test)]
mod tests;
