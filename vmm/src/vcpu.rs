//! A processor's thread: run the guest, serve its exits, until something ends the machine.

use std::sync::{Arc, Mutex, PoisonError};

use isolab_wire::mark::Mark;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::eventfd::EventFd;

use crate::devices::bus::{Bus, Leave};
use crate::machine::Stop;
use crate::sys;

/// How a machine ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// By the guest's last mark.
    Mark(Mark),
    /// Without one.
    Stopped(Stop),
}

/// The first ending that any processor reports, and the event that wakes the device thread for it.
#[derive(Debug)]
pub(crate) struct End {
    first: Mutex<Option<Ending>>,
    pub(crate) event: EventFd,
}

impl End {
    pub(crate) const fn new(event: EventFd) -> Self {
        Self { first: Mutex::new(None), event }
    }

    pub(crate) fn report(&self, ending: Ending) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(ending);
        // Fails only where the counter is full: then the event is set anyway.
        let _set = self.event.write(1);
    }

    pub(crate) fn take(&self) -> Option<Ending> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Runs a processor until the machine ends through it.
pub(crate) fn run(mut vcpu: VcpuFd, cpu: u8, bus: &Bus, end: &Arc<End>) {
    let ending = loop {
        match step(&mut vcpu, cpu, bus) {
            Ok(()) => {}
            Err(ending) => break ending,
        }
    };
    end.report(ending);
}

/// One entry into the guest and what its exit asks for.
fn step(vcpu: &mut VcpuFd, cpu: u8, bus: &Bus) -> Result<(), Ending> {
    let stop = match vcpu.run() {
        Ok(VcpuExit::IoOut(port, data)) => match bus.port_write(port, data) {
            None => return Ok(()),
            Some(Leave::Mark(mark)) => return Err(Ending::Mark(mark)),
            Some(Leave::PowerOff) => Stop::PowerOff,
            Some(Leave::Reset) => Stop::Reset,
        },
        Ok(VcpuExit::IoIn(port, data)) => {
            bus.port_read(port, data);
            return Ok(());
        }
        Ok(VcpuExit::MmioRead(at, data)) => {
            bus.memory_read(at, data);
            return Ok(());
        }
        Ok(VcpuExit::MmioWrite(at, data)) => {
            bus.memory_write(at, data);
            return Ok(());
        }
        Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => return Ok(()),
        Ok(VcpuExit::Shutdown) => Stop::Reset,
        Ok(VcpuExit::FailEntry(reason, _)) => Stop::EntryFailed { cpu, reason },
        Ok(VcpuExit::InternalError) => Stop::Internal { cpu, suberror: sys::internal_error(vcpu) },
        Ok(exit) => Stop::Unexpected { cpu, exit: format!("{exit:?}") },
        Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => return Ok(()),
        Err(source) => Stop::Run { cpu, source },
    };
    Err(Ending::Stopped(stop))
}
