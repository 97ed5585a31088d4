//! Templates: a guest that waits for its job, stored once and continued many times.
//!
//! A template is two files. One holds what guest RAM held, without the pages that were never written or are zero again; a
//! restored guest maps it privately, so that pages which it does not write are there once for all guests. The other one holds a
//! header and the state of processors, interrupt controllers, clock and devices.
//!
//! Neither file is trusted: every number in them is checked against the machine that is made, and what is passed on to KVM
//! has the meaning that a guest could have given it. Whoever could alter them could let the guest do anything a guest can do,
//! and no more.

mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
mod ram;

use std::fs::File;
use std::io;

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

pub use format::FORMAT;
pub(crate) use format::read;
pub(crate) use ram::{Piece, map};

use crate::arch::state::{VcpuState, known_msrs};
use crate::arch::{ArchError, cpuid};
use crate::config::TemplateFiles;
use crate::devices::Malformed;
use crate::devices::console::ConsoleState;
use crate::devices::mmio::DeviceState;
use crate::service::Devices;
use crate::{VmError, sys};

/// A template can't be made, or not be continued from.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file of it.
    #[error("{step}")]
    File {
        /// What was done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Not one of the files that this version writes.
    #[error("the template's state is of format {found}, and this isolab reads {FORMAT}")]
    Format {
        /// What its header says.
        found: u32,
    },
    /// Not what was written: cut short, longer, or altered.
    #[error("the template is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// Made for another machine.
    #[error("the template is of a machine with {stored}, not {asked}")]
    Machine {
        /// Its own memory and processors.
        stored: String,
        /// Those that were asked for.
        asked: String,
    },
    /// Made on a processor that is not this one's equal.
    #[error("the template was made on a processor with other features ({what})")]
    Features {
        /// The first difference.
        what: String,
    },
    /// The guest did not come to rest.
    #[error("the guest is not at rest: {what}")]
    Busy {
        /// What still moves.
        what: &'static str,
    },
}

const fn damaged(what: &'static str) -> TemplateError {
    TemplateError::Damaged { what }
}

impl From<Malformed> for TemplateError {
    fn from(_: Malformed) -> Self {
        damaged("its devices can't be what it says")
    }
}

/// Everything of a machine but its memory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MachineState {
    pub(crate) memory_bytes: u64,
    /// Where in guest RAM the bytes of the memory file belong, in its order.
    pub(crate) pieces: Vec<Piece>,
    pub(crate) cpus: Vec<VcpuState>,
    chips: Vec<kvm_irqchip>,
    clock: kvm_clock_data,
    console: (DeviceState, ConsoleState),
    block: DeviceState,
    rng: DeviceState,
    balloon: Option<DeviceState>,
}

impl MachineState {
    /// Whether it is a machine of so much memory and so many processors.
    pub(crate) fn check(&self, memory_bytes: u64, cpus: u8) -> Result<(), TemplateError> {
        let told = |bytes: u64, cpus: usize| format!("{} MiB and {cpus} cpus", bytes >> 20);
        if self.memory_bytes != memory_bytes || self.cpus.len() != usize::from(cpus) {
            return Err(TemplateError::Machine {
                stored: told(self.memory_bytes, self.cpus.len()),
                asked: told(memory_bytes, cpus.into()),
            });
        }
        Ok(())
    }

    /// Whether this host's processors have the same features, registers and frequency.
    pub(crate) fn check_features(&self, kvm: &Kvm, vcpus: &[Processor]) -> Result<(), TemplateError> {
        let refuse = |what| Err(TemplateError::Features { what });
        for (state, processor) in self.cpus.iter().zip(vcpus) {
            let tsc_khz = processor.vcpu.get_tsc_khz().unwrap_or_default();
            if let Some(what) = state.differs(&processor.features, tsc_khz) {
                return refuse(what);
            }
        }
        let Ok(mut known) = known_msrs(kvm) else { return refuse("its registers can't be listed".into()) };
        known.sort_unstable();
        let needed = self.cpus.iter().flat_map(|cpu| &cpu.msrs);
        match needed.map(|msr| msr.index).find(|index| known.binary_search(index).is_err()) {
            Some(index) => refuse(format!("model-specific register {index:#x}")),
            None => Ok(()),
        }
    }

    /// Sets the state of processors, interrupt controllers and clock of a fresh machine.
    ///
    /// The controllers come after the processors' own parts of them, or an interrupt that is waiting in them would be passed
    /// on too early; the clock comes last: it goes on from the moment in which it is set.
    pub(crate) fn give(&self, vm: &VmFd, vcpus: &[Processor]) -> Result<(), ArchError> {
        let refused = |state| move |source| ArchError::State { state, cpu: 0, source };
        let host_tsc = sys::host_tsc();
        for ((cpu, state), processor) in (0..).zip(&self.cpus).zip(vcpus) {
            state.give(&processor.vcpu, cpu, host_tsc)?;
        }
        for chip in &self.chips {
            vm.set_irqchip(chip).map_err(refused("interrupt controllers"))?;
        }
        let clock = kvm_clock_data { clock: self.clock.clock, ..Default::default() };
        vm.set_clock(&clock).map_err(refused("clock"))
    }

    /// Sets the state of fresh devices.
    pub(crate) fn give_devices(&self, devices: &Devices) -> Result<(), TemplateError> {
        let (registers, console) = &self.console;
        devices.console.set_state(registers, |device| device.set_state(console.clone()))?;
        devices.block.set_state(&self.block, |_| Ok(()))?;
        devices.rng.set_state(&self.rng, |_| Ok(()))?;
        match (&devices.balloon, &self.balloon) {
            (Some(device), Some(state)) => Ok(device.set_state(state, |_| Ok(()))?),
            (None, None) => Ok(()),
            _ => Err(Malformed.into()),
        }
    }

    /// The machine's controllers are three, each once.
    fn has_its_chips(&self) -> bool {
        self.chips.iter().map(|chip| chip.chip_id).eq(CHIPS)
    }
}

const CHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// A processor with the features that it has been given.
#[derive(Debug)]
pub(crate) struct Processor {
    pub(crate) vcpu: VcpuFd,
    pub(crate) features: kvm_bindings::CpuId,
}

/// Stores a machine whose processors are stopped. Its memory comes after its state: to tell the state, KVM writes there what it
/// keeps for the guest.
pub(crate) fn make(
    kvm: &Kvm,
    vm: &VmFd,
    vcpus: &[VcpuFd],
    devices: &Devices,
    files: &TemplateFiles,
) -> Result<(), VmError> {
    devices.settle();
    let mut state = state_of(kvm, vm, vcpus, devices)?;
    state.pieces = ram::store(&devices.ram, state.memory_bytes, &files.memory)?;
    Ok(format::write(&state, &files.state)?)
}

fn state_of(kvm: &Kvm, vm: &VmFd, vcpus: &[VcpuFd], devices: &Devices) -> Result<MachineState, VmError> {
    let refused = |state| move |source| ArchError::Read { state, cpu: 0, source };
    let supported = cpuid::of_host(kvm).map_err(refused("supported cpu features"))?;
    let known = known_msrs(kvm).map_err(refused("list of model-specific registers"))?;
    let host_tsc = sys::host_tsc();
    let count = u8::try_from(vcpus.len()).unwrap_or(u8::MAX);
    let mut cpus = Vec::new();
    for (cpu, vcpu) in (0..).zip(vcpus) {
        let features = supported.table(cpu, count)?;
        cpus.push(VcpuState::of(vcpu, cpu, features.as_slice().to_vec(), &known, host_tsc)?);
    }
    let mut chips = Vec::new();
    for chip_id in CHIPS {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        vm.get_irqchip(&mut chip).map_err(refused("interrupt controllers"))?;
        chips.push(chip);
    }
    let clock = vm.get_clock().map_err(refused("clock"))?;
    let console = devices.console.lock().device.state();
    let console = console.ok_or(TemplateError::Busy { what: "its ports are not all open and empty" })?;
    Ok(MachineState {
        memory_bytes: devices.ram.iter().map(GuestMemoryRegion::len).sum(),
        pieces: vec![],
        cpus,
        chips,
        clock,
        console: (devices.console.state(), console),
        block: devices.block.state(),
        rng: devices.rng.state(),
        balloon: devices.balloon.as_ref().map(|balloon| balloon.state()),
    })
}

/// Length of a file.
fn len(file: &File) -> Result<u64, TemplateError> {
    let meta = file.metadata();
    meta.map(|meta| meta.len()).map_err(|source| TemplateError::File { step: "look at the template", source })
}

#[cfg(test)]
mod tests;
