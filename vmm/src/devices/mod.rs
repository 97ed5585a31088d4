//! The machine's devices: three virtio devices over MMIO, a fourth where it is asked for, and a few ports.

pub(crate) mod balloon;
pub(crate) mod block;
pub(crate) mod bus;
pub(crate) mod chain;
pub(crate) mod console;
#[cfg(any(test, fuzzing))]
pub(crate) mod driver;
pub(crate) mod marks;
pub(crate) mod mmio;
pub(crate) mod registers;
pub(crate) mod rng;
pub(crate) mod serial;

use virtio_queue::Queue;

use crate::memory::GuestRam;

/// The guest broke the rules of a queue; its device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest's virtqueue is malformed")]
pub(crate) struct Malformed;

/// What serving the queues came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// The guest has something to look at.
    pub(crate) interrupt: bool,
    /// More is waiting than one turn allows: a guest that never stops asking must not keep the thread.
    pub(crate) again: bool,
}

/// A virtio device behind [`mmio::VirtioMmio`].
pub(crate) trait VirtioDevice: Send {
    /// Its kind (`VIRTIO_ID_*`).
    const ID: u32;

    /// Features besides `VIRTIO_F_VERSION_1`.
    fn features(&self) -> u64;

    /// Largest size of each queue.
    fn queue_sizes(&self) -> &'static [u16];

    /// The configuration space; read-only.
    fn config(&self) -> &[u8];

    /// The driver is ready, or wants to begin anew.
    fn reset(&mut self) {}

    /// Serves what the queues hold, as much as one turn allows.
    fn serve(&mut self, ram: &GuestRam, queues: &mut [Queue]) -> Result<Served, Malformed>;
}
