//! What processors reach by ports and by device memory. Everything else reads as ones, is ignored and is counted.

use std::sync::Arc;

use isolab_wire::mark::{CODE_PORT, Mark, VALUE_PORT};

use super::marks::{Marks, Stopping};
use super::mmio::Mmio;
use super::serial::DebugPort;
use crate::layout::{self, port};

/// `SLP_EN` with the number of sleep state 5 of our tables, 0.
const SLEEP_ENABLE: u8 = 1 << 5;
const RESET_COMMAND: u8 = 0xfe;

/// Why a processor leaves its loop after a port write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The guest's last mark.
    Mark(Mark),
    /// The guest is what a template is made of.
    Template,
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
}

/// The bus.
pub(crate) struct Bus {
    pub(crate) devices: Vec<Arc<dyn Mmio>>,
    pub(crate) marks: Marks,
    pub(crate) debug: DebugPort,
}

impl Bus {
    pub(crate) fn port_write(&self, at: u16, data: &[u8]) -> Option<Leave> {
        match (at, data) {
            (CODE_PORT | VALUE_PORT, _) => self.marks.write(at, data).map(|mark| match mark {
                Stopping::Last(mark) => Leave::Mark(mark),
                Stopping::Template => Leave::Template,
            }),
            (port::SERIAL..=port::SERIAL_END, &[byte]) => {
                self.debug.write(u8::try_from(at - port::SERIAL).unwrap_or(0), byte);
                None
            }
            (port::SLEEP, &[byte]) if byte & SLEEP_ENABLE != 0 => Some(Leave::PowerOff),
            (port::RESET, &[RESET_COMMAND]) => Some(Leave::Reset),
            _ => {
                self.count_port(at);
                None
            }
        }
    }

    pub(crate) fn port_read(&self, at: u16, data: &mut [u8]) {
        match (at, data) {
            (port::SERIAL..=port::SERIAL_END, [byte]) => {
                *byte = self.debug.read(u8::try_from(at - port::SERIAL).unwrap_or(0));
            }
            (port::SLEEP, [byte]) => *byte = 0,
            (_, data) => {
                self.count_port(at);
                data.fill(0xff);
            }
        }
    }

    /// Counts an access that nothing came of, where the port is no device's.
    fn count_port(&self, at: u16) {
        let owned = [CODE_PORT, VALUE_PORT, port::SLEEP, port::RESET];
        if !owned.contains(&at) && !(port::SERIAL..=port::SERIAL_END).contains(&at) {
            self.marks.count_unowned();
        }
    }

    fn device(&self, at: u64) -> Option<(&dyn Mmio, u64)> {
        let from_start = at.checked_sub(layout::VIRTIO.start)?;
        let index = usize::try_from(from_start / layout::VIRTIO_STRIDE).ok()?;
        Some((self.devices.get(index)?.as_ref(), from_start % layout::VIRTIO_STRIDE))
    }

    pub(crate) fn memory_read(&self, at: u64, data: &mut [u8]) {
        match self.device(at) {
            Some((device, offset)) => device.read(offset, data),
            None => {
                self.marks.count_unowned();
                data.fill(0xff);
            }
        }
    }

    pub(crate) fn memory_write(&self, at: u64, data: &[u8]) {
        match self.device(at) {
            Some((device, offset)) => device.write(offset, data),
            None => self.marks.count_unowned(),
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;

#[cfg(test)]
mod tests {
    use isolab_wire::trace::{Counter, Trace, Tracer, When};

    use super::invariants::{bus, owned};
    use super::*;

    static TRACE: Trace = Trace::new();

    #[test]
    fn what_belongs_to_no_device_reads_as_ones_and_takes_nothing() {
        let (bus, devices, _far) = bus(Tracer::new(&TRACE, || 0, |_| ()));
        let mut accesses = 0;
        for at in (0..=u16::MAX).filter(|at| !owned(*at)) {
            for width in [1, 2, 4] {
                let mut data = [0; 4];
                bus.port_read(at, &mut data[..width]);
                assert!(data[..width].iter().all(|&byte| byte == 0xff), "port {at:#x}");
                assert_eq!(bus.port_write(at, &[RESET_COMMAND; 4][..width]), None, "port {at:#x}");
                accesses += 2;
            }
        }
        // Of its own ports too it takes only what it knows.
        for (at, data) in [(port::RESET, &[0xff][..]), (port::RESET, &[0xfe, 0xfe]), (port::SLEEP, &[1])] {
            assert_eq!(bus.port_write(at, data), None, "port {at:#x}");
        }
        let end = layout::VIRTIO.start + 3 * layout::VIRTIO_STRIDE;
        for at in [0, 0xfee0_0000, layout::VIRTIO.start - 1, end, end + 0x1000, u64::MAX] {
            let mut data = [0; 8];
            bus.memory_read(at, &mut data);
            assert_eq!(data, [0xff; 8], "{at:#x}");
            bus.memory_write(at, &data);
            accesses += 2;
        }
        assert!(devices.iter().all(|device| device.0.lock().unwrap().is_empty()));
        bus.memory_read(end - 4, &mut [0; 4]);
        bus.memory_write(layout::VIRTIO.start, &[0; 4]);
        let touched = devices.each_ref().map(|device| device.0.lock().unwrap().clone());
        assert_eq!(touched, [vec![0], vec![], vec![layout::VIRTIO_STRIDE - 4]]);
        // Each of them, and no other one, is in the account that the guest's last mark makes.
        bus.port_write(CODE_PORT, b"X").expect("an end");
        assert_eq!(TRACE.counter(When::End, Counter::Unowned), Some(accesses));
    }
}
