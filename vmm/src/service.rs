//! The device thread: waits for doorbells, host descriptors and the end; serves; drains at the end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

use crate::devices::balloon::Balloon;
use crate::devices::block::Block;
use crate::devices::console::{Console, PORTS};
use crate::devices::mmio::{Mmio, Queued, VirtioMmio};
use crate::devices::rng::Rng;
use crate::memory::GuestRam;
use crate::sys;
use crate::vcpu::{End, Ending};

/// The devices, in the order in which the guest finds them: the console first, so that its ports are `vport0pN`.
pub(crate) struct Devices {
    pub(crate) console: Arc<VirtioMmio<Console>>,
    pub(crate) block: Arc<VirtioMmio<Block>>,
    pub(crate) rng: Arc<VirtioMmio<Rng>>,
    /// Where free memory is to return.
    pub(crate) balloon: Option<Arc<VirtioMmio<Balloon>>>,
    pub(crate) ram: GuestRam,
}

impl Devices {
    /// As the bus sees them.
    pub(crate) fn on_bus(&self) -> Vec<Arc<dyn Mmio>> {
        let mut devices: Vec<Arc<dyn Mmio>> =
            vec![self.console.clone(), self.block.clone(), self.rng.clone()];
        devices.extend(self.balloon.clone().map(|balloon| balloon as Arc<dyn Mmio>));
        devices
    }

    /// As the device thread does.
    fn queued(&self) -> Vec<&dyn Queued> {
        let mut devices: Vec<&dyn Queued> = vec![&*self.console, &*self.block, &*self.rng];
        devices.extend(self.balloon.as_deref().map(|balloon| balloon as &dyn Queued));
        devices
    }

    /// Serves until the machine ends.
    pub(crate) fn serve(&self, end: &End) -> rustix::io::Result<Ending> {
        let devices = self.queued();
        loop {
            if let Some(ending) = end.take() {
                return Ok(ending);
            }
            let ports = self.interest();
            let mut fds = vec![readable(&end.event)];
            fds.extend(devices.iter().map(|device| readable(device.doorbell())));
            let first_port = fds.len();
            let polled = add_ports(&mut fds, &ports);
            wait(&mut fds)?;
            let is_ready = |i: usize| fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
            for (_, device) in (1..).zip(&devices).filter(|(i, _)| is_ready(*i)) {
                // The ring may have been taken out already.
                let _rings = device.doorbell().read();
                device.serve();
            }
            for (i, port) in (first_port..).zip(polled) {
                if is_ready(i) {
                    self.port_ready(port);
                }
            }
        }
    }

    /// Writes out all that the guest had sent before it ended; waits for slow readers, reads nothing any more.
    pub(crate) fn drain(&self) -> rustix::io::Result<()> {
        {
            let inner = &mut *self.console.lock();
            inner.device.seal(&self.ram, &inner.queues);
        }
        loop {
            self.console.serve();
            if self.is_drained() {
                return Ok(());
            }
            let mut ports = self.interest();
            ports
                .iter_mut()
                .enumerate()
                .filter(|(port, _)| Console::is_input(*port))
                .for_each(|(_, fd)| *fd = None);
            let mut fds = Vec::new();
            if !add_ports(&mut fds, &ports).is_empty() {
                wait(&mut fds)?;
            }
        }
    }

    /// Serves what the guest had asked for before its processors stopped, so that nothing of it is under way.
    pub(crate) fn settle(&self) {
        let devices = self.queued();
        // Each is asked: what has not been read stays rung.
        while devices.iter().filter(|device| device.doorbell().read().is_ok()).count() > 0 {
            devices.iter().for_each(|device| device.serve());
        }
    }

    fn interest(&self) -> [Option<Arc<OwnedFd>>; PORTS] {
        let inner = self.console.lock();
        // A device that its guest broke moves nothing: polling for it would spin.
        if !inner.is_active() {
            return [const { None }; PORTS];
        }
        inner.device.interest(&self.ram, &inner.queues)
    }

    fn is_drained(&self) -> bool {
        let inner = self.console.lock();
        !inner.is_active() || inner.device.is_drained(&self.ram, &inner.queues)
    }

    fn port_ready(&self, port: usize) {
        if Console::is_input(port) {
            self.console.with_queues(|console, ram, queues| console.input_ready(port, ram, queues));
        } else {
            self.console.serve();
        }
    }
}

/// Adds the ports' descriptors; returns which port each one is.
fn add_ports<'a>(fds: &mut Vec<PollFd<'a>>, ports: &'a [Option<Arc<OwnedFd>>; PORTS]) -> Vec<usize> {
    let mut polled = Vec::new();
    for (port, fd) in ports.iter().enumerate() {
        if let Some(fd) = fd {
            let events = if Console::is_input(port) { PollFlags::IN } else { PollFlags::OUT };
            fds.push(PollFd::from_borrowed_fd(fd.as_fd(), events));
            polled.push(port);
        }
    }
    polled
}

fn wait(fds: &mut [PollFd<'_>]) -> rustix::io::Result<()> {
    match poll(fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e),
    }
}

fn readable(event: &EventFd) -> PollFd<'_> {
    PollFd::from_borrowed_fd(sys::borrow(event), PollFlags::IN)
}
