//! A virtio device on the bus: registers, queues, interrupt and the doorbell.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::registers::{Effect, QueueSetting, Registers, offset};
use super::{Malformed, Served, VirtioDevice};
use crate::memory::GuestRam;

/// Interrupt reasons.
const INTERRUPT_QUEUE: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT` of the available ring's flags.
const NO_INTERRUPT: u16 = 1;

/// Reads and writes of a device's registers by a processor.
pub(crate) trait Mmio: Send + Sync {
    fn read(&self, at: u64, data: &mut [u8]);
    fn write(&self, at: u64, data: &[u8]);
}

/// What the device thread does for a device.
pub(crate) trait Queued {
    /// Rung by the guest (KVM does it) and by register writes.
    fn doorbell(&self) -> &EventFd;
    /// Serves the queues.
    fn serve(&self);
}

/// A device with everything that processors and the device thread share.
pub(crate) struct VirtioMmio<D> {
    inner: Mutex<Inner<D>>,
    interrupts: AtomicU32,
    /// Raises the interrupt.
    pub(crate) irq: EventFd,
    /// Rung by the guest (KVM does it) and by register writes.
    pub(crate) doorbell: EventFd,
    ram: GuestRam,
}

/// What the lock protects.
pub(crate) struct Inner<D> {
    registers: Registers,
    pub(crate) queues: Vec<Queue>,
    pub(crate) device: D,
}

/// What a device is between two requests, without what lies in guest RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceState {
    registers: Registers,
    /// How far each queue is: next available, next used entry.
    positions: Vec<(u16, u16)>,
    interrupts: u32,
}

impl<D> Inner<D> {
    /// Whether the driver has started the device and it is whole.
    pub(crate) const fn is_active(&self) -> bool {
        self.registers.is_active()
    }
}

impl<D: VirtioDevice> VirtioMmio<D> {
    pub(crate) fn new(device: D, ram: GuestRam) -> io::Result<Self> {
        let registers = Registers::new(D::ID, device.features(), device.queue_sizes());
        Ok(Self {
            inner: Mutex::new(Inner { registers, queues: Vec::new(), device }),
            interrupts: AtomicU32::new(0),
            irq: EventFd::new(EFD_NONBLOCK)?,
            doorbell: EventFd::new(EFD_NONBLOCK)?,
            ram,
        })
    }

    /// The state of a device that nobody uses just now.
    pub(crate) fn state(&self) -> DeviceState {
        let inner = self.lock();
        DeviceState {
            registers: inner.registers.clone(),
            positions: inner.queues.iter().map(|queue| (queue.next_avail(), queue.next_used())).collect(),
            interrupts: self.interrupts.load(Ordering::SeqCst),
        }
    }

    /// Makes a fresh device what another one of its kind was; `restore` does the same to what is behind the registers.
    ///
    /// An interrupt that the driver has not acknowledged is raised again: it may have been on its way to the processor when
    /// the state was stored. A driver that finds no reason for it goes on.
    pub(crate) fn set_state(
        &self,
        state: &DeviceState,
        restore: impl FnOnce(&mut D) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let inner = &mut *self.lock();
        if !inner.registers.can_become(&state.registers) {
            return Err(Malformed);
        }
        inner.registers = state.registers.clone();
        if inner.registers.is_active() {
            let queues = inner.registers.queues.iter().map(|setting| build(setting, &self.ram));
            inner.queues = queues.collect::<Result<_, _>>()?;
        }
        if inner.queues.len() != state.positions.len() {
            return Err(Malformed);
        }
        for (queue, &(available, used)) in inner.queues.iter_mut().zip(&state.positions) {
            queue.set_next_avail(available);
            queue.set_next_used(used);
        }
        restore(&mut inner.device)?;
        self.interrupts.store(state.interrupts, Ordering::SeqCst);
        if state.interrupts != 0 {
            self.interrupt(state.interrupts);
        }
        Ok(())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner<D>> {
        // A panic is our bug and ends the process (`panic = "abort"`); in tests the state is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something on the device and its queues, where the driver has set them up.
    pub(crate) fn with_queues(
        &self,
        work: impl FnOnce(&mut D, &GuestRam, &mut [Queue]) -> Result<Served, Malformed>,
    ) {
        let inner = &mut *self.lock();
        if !inner.registers.is_active() {
            return;
        }
        match work(&mut inner.device, &self.ram, &mut inner.queues) {
            Ok(served) => {
                if served.again {
                    self.ring();
                }
                if served.interrupt && self.wants_interrupt(&inner.queues) {
                    self.interrupt(INTERRUPT_QUEUE);
                }
            }
            Err(Malformed) => {
                inner.registers.set_needs_reset();
                self.interrupt(INTERRUPT_CONFIG);
            }
        }
    }

    /// A driver that polls says so in every queue.
    fn wants_interrupt(&self, queues: &[Queue]) -> bool {
        // The used index must be out before the flags are read, or both sides wait for each other.
        fence(Ordering::SeqCst);
        let polls = |queue: &Queue| {
            let flags = self.ram.read_obj::<u16>(GuestAddress(queue.avail_ring()));
            !queue.ready() || flags.is_ok_and(|flags| u16::from_le(flags) & NO_INTERRUPT != 0)
        };
        !queues.iter().all(polls)
    }

    fn interrupt(&self, reason: u32) {
        self.interrupts.fetch_or(reason, Ordering::SeqCst);
        // Fails only where the counter is full: then the interrupt is pending anyway.
        let _pending = self.irq.write(1);
    }

    fn ring(&self) {
        // Fails only where the counter is full: then the device thread will look anyway.
        let _pending = self.doorbell.write(1);
    }

    fn apply(&self, inner: &mut Inner<D>, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Reset => {
                self.interrupts.store(0, Ordering::SeqCst);
                inner.queues.clear();
                inner.device.reset();
            }
            Effect::Activate => {
                let queues = inner.registers.queues.iter().map(|setting| build(setting, &self.ram));
                match queues.collect::<Result<Vec<_>, _>>() {
                    Ok(queues) => {
                        inner.queues = queues;
                        inner.device.reset();
                        // The driver may have filled queues before it was ready.
                        self.ring();
                    }
                    Err(Malformed) => {
                        inner.registers.set_needs_reset();
                        self.interrupt(INTERRUPT_CONFIG);
                    }
                }
            }
            Effect::Notify => self.ring(),
        }
    }
}

/// A queue from the driver's settings: its three parts must lie in RAM and apart from each other.
fn build(setting: &QueueSetting, ram: &GuestRam) -> Result<Queue, Malformed> {
    let mut queue = Queue::new(setting.max).map_err(|_| Malformed)?;
    if !setting.ready {
        return Ok(queue);
    }
    queue.try_set_size(setting.size).map_err(|_| Malformed)?;
    queue.try_set_desc_table_address(GuestAddress(setting.descriptors)).map_err(|_| Malformed)?;
    queue.try_set_avail_ring_address(GuestAddress(setting.available)).map_err(|_| Malformed)?;
    queue.try_set_used_ring_address(GuestAddress(setting.used)).map_err(|_| Malformed)?;
    queue.set_ready(true);
    let size = usize::from(setting.size);
    let parts =
        [(setting.descriptors, 16 * size), (setting.available, 6 + 2 * size), (setting.used, 6 + 8 * size)];
    for (i, &(start, len)) in parts.iter().enumerate() {
        if ram.get_slice(GuestAddress(start), len).is_err() {
            return Err(Malformed);
        }
        let apart = |&(other, other_len): &(u64, usize)| {
            start + len as u64 <= other || other + other_len as u64 <= start
        };
        if !parts[i + 1..].iter().all(apart) {
            return Err(Malformed);
        }
    }
    Ok(queue)
}

impl<D: VirtioDevice> Queued for VirtioMmio<D> {
    fn doorbell(&self) -> &EventFd {
        &self.doorbell
    }

    fn serve(&self) {
        self.with_queues(|device, ram, queues| device.serve(ram, queues));
    }
}

impl<D: VirtioDevice> Mmio for VirtioMmio<D> {
    fn read(&self, at: u64, data: &mut [u8]) {
        // Asked at every interrupt: must not wait for the device thread.
        if at == offset::INTERRUPT_STATUS && data.len() == 4 {
            data.copy_from_slice(&self.interrupts.load(Ordering::SeqCst).to_le_bytes());
            return;
        }
        let inner = self.lock();
        if let Some(at) = at.checked_sub(offset::CONFIG) {
            let config = inner.device.config();
            for (i, byte) in data.iter_mut().enumerate() {
                let index = usize::try_from(at).ok().and_then(|at| at.checked_add(i));
                *byte = index.and_then(|index| config.get(index)).copied().unwrap_or(0);
            }
        } else if data.len() == 4 && at.is_multiple_of(4) {
            data.copy_from_slice(&inner.registers.read(at, 0).to_le_bytes());
        } else {
            data.fill(0xff);
        }
    }

    fn write(&self, at: u64, data: &[u8]) {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else { return };
        if at == offset::INTERRUPT_ACK {
            self.interrupts.fetch_and(!value, Ordering::SeqCst);
        } else if at < offset::CONFIG && at.is_multiple_of(4) {
            let inner = &mut *self.lock();
            let effect = inner.registers.write(at, value);
            self.apply(inner, effect);
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
#[cfg(test)]
mod tests;
