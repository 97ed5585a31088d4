//! What holds for any access by a processor.

use std::os::fd::OwnedFd;
use std::sync::Mutex;

use isolab_wire::trace::Tracer;
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;
use crate::statistics::Statistics;

/// A device that remembers where it was read and written.
#[derive(Default)]
pub(super) struct Touched(pub(super) Mutex<Vec<u64>>);

impl Mmio for Touched {
    fn read(&self, at: u64, data: &mut [u8]) {
        self.0.lock().expect("not poisoned").push(at);
        data.fill(7);
    }

    fn write(&self, at: u64, _data: &[u8]) {
        self.0.lock().expect("not poisoned").push(at);
    }
}

/// A bus with three devices whose counts go to this tracer, and where its marks go.
pub(super) fn bus(tracer: Tracer) -> (Bus, [Arc<Touched>; 3], OwnedFd) {
    let devices = [0; 3].map(|_| Arc::new(Touched::default()));
    let (far, pipe) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let marks = Marks::new(pipe, None, Statistics::open(&[], tracer), false);
    let on_bus = devices.each_ref().map(|device| Arc::clone(device) as Arc<dyn Mmio>);
    (Bus { devices: on_bus.into(), marks, debug: DebugPort::new(false) }, devices, far)
}

/// Whether a port belongs to anything.
pub(super) fn owned(at: u16) -> bool {
    matches!(at, CODE_PORT | VALUE_PORT | port::SLEEP | port::RESET)
        || (port::SERIAL..=port::SERIAL_END).contains(&at)
}

/// An access by a processor.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// By a port's number; else by an address.
    pub port: bool,
    /// The port in its low 16 bits, or the address counted from the devices' first one.
    pub at: u64,
    /// Width and direction.
    pub width: u8,
    /// It writes.
    pub write: bool,
    /// What.
    pub data: [u8; 8],
}

/// An access that belongs to no device reads as ones, reaches none and ends nothing; one to a device's registers reaches that device
/// at that register. A processor leaves its loop only for what a port says.
pub fn only_what_is_owned_is_reached(accesses: &[Access]) {
    let (bus, devices, _far) = bus(Tracer::OFF);
    for access in accesses {
        let len = usize::from(access.width % 9);
        let mut data = access.data;
        let data = &mut data[..len];
        let count =
            || devices.iter().map(|device| device.0.lock().expect("not poisoned").len()).sum::<usize>();
        let before = count();
        if access.port {
            let at = u16::try_from(access.at & 0xffff).expect("16 bits");
            if access.write {
                let leave = bus.port_write(at, data);
                assert!(leave.is_none() || owned(at), "port {at:#x} ended the guest");
            } else {
                bus.port_read(at, data);
                assert!(owned(at) || data.iter().all(|&byte| byte == 0xff), "port {at:#x} reads {data:?}");
            }
            assert_eq!(count(), before);
            continue;
        }
        let at = layout::VIRTIO.start.wrapping_add(access.at);
        if access.write {
            bus.memory_write(at, data);
        } else {
            bus.memory_read(at, data);
        }
        match devices.get(usize::try_from(access.at / layout::VIRTIO_STRIDE).unwrap_or(usize::MAX)) {
            Some(device) => {
                let last = device.0.lock().expect("not poisoned").last().copied();
                assert_eq!((count(), last), (before + 1, Some(access.at % layout::VIRTIO_STRIDE)));
            }
            None => {
                assert_eq!(count(), before, "{at:#x} reached a device");
                assert!(access.write || data.iter().all(|&byte| byte == 0xff), "{at:#x} reads {data:?}");
            }
        }
    }
}
