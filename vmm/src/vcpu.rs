//! A processor's thread: run the guest, serve its exits, until something ends the machine or stops it to be stored.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

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
    /// It is where a template is stored: all processors stop.
    Template,
    /// Without one.
    Stopped(Stop),
}

/// The first ending that any processor reports, and the event that wakes the device thread for it.
#[derive(Debug)]
pub(crate) struct End {
    first: Mutex<Option<Ending>>,
    pub(crate) event: EventFd,
    stopping: AtomicBool,
}

impl End {
    pub(crate) const fn new(event: EventFd) -> Self {
        Self { first: Mutex::new(None), event, stopping: AtomicBool::new(false) }
    }

    /// Asks every processor to leave its loop at its next exit.
    pub(crate) fn stop_processors(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
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

/// Runs a processor until the machine ends through it or is to be stored; gives it back, between two instructions.
pub(crate) fn run(mut vcpu: VcpuFd, cpu: u8, bus: &Bus, end: &Arc<End>) -> VcpuFd {
    let ending = loop {
        if end.is_stopping() {
            settle(&mut vcpu, bus);
            return vcpu;
        }
        match step(&mut vcpu, cpu, bus) {
            Ok(()) => {}
            Err(ending) => break ending,
        }
    };
    if matches!(ending, Ending::Template) {
        settle(&mut vcpu, bus);
    }
    end.report(ending);
    vcpu
}

/// Stops all processors between two instructions and takes them back, the first one first; `threads` has it last.
pub(crate) fn stop_all(threads: Vec<JoinHandle<VcpuFd>>, end: &End) -> io::Result<Vec<VcpuFd>> {
    /// A signal that comes just before the system call which it is to interrupt is lost, so there is another one.
    const AGAIN: Duration = Duration::from_millis(1);
    sys::catch_interrupts()?;
    end.stop_processors();
    let mut vcpus = Vec::new();
    for thread in threads.into_iter().rev() {
        while !thread.is_finished() {
            sys::interrupt(&thread)?;
            thread::sleep(AGAIN);
        }
        vcpus.push(thread.join().map_err(|_| io::Error::other("a processor's thread panicked"))?);
    }
    Ok(vcpus)
}

/// Finishes the instruction of the last exit: KVM does so at the next entry, and where that is to return at once, before it
/// runs anything else.
fn settle(vcpu: &mut VcpuFd, bus: &Bus) {
    /// More pieces than any one instruction's exit has.
    const MOST: usize = 16;
    vcpu.set_kvm_immediate_exit(1);
    for _ in 0..MOST {
        match vcpu.run() {
            Err(_) => break,
            Ok(VcpuExit::IoOut(port, data)) => drop(bus.port_write(port, data)),
            Ok(VcpuExit::IoIn(port, data)) => bus.port_read(port, data),
            Ok(VcpuExit::MmioRead(at, data)) => bus.memory_read(at, data),
            Ok(VcpuExit::MmioWrite(at, data)) => bus.memory_write(at, data),
            Ok(_) => {}
        }
    }
    vcpu.set_kvm_immediate_exit(0);
}

/// One entry into the guest and what its exit asks for.
fn step(vcpu: &mut VcpuFd, cpu: u8, bus: &Bus) -> Result<(), Ending> {
    let stop = match vcpu.run() {
        Ok(VcpuExit::IoOut(port, data)) => match bus.port_write(port, data) {
            None => return Ok(()),
            Some(Leave::Mark(mark)) => return Err(Ending::Mark(mark)),
            Some(Leave::Template) => return Err(Ending::Template),
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
