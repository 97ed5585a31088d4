//! A processor's state as KVM gives and takes it, in the orders that KVM's interface asks for.

use kvm_bindings::{
    CpuId, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};
use serde::{Deserialize, Serialize};

use super::{ArchError, cpuid};
use crate::sys;

/// Model-specific registers that one request may name (`MAX_IO_MSRS` of KVM).
const PER_REQUEST: usize = 256;
/// The time stamp counter: kept as an offset to the host's, because KVM takes a value written soon after another one for
/// an attempt to synchronise and ignores it (`kvm_synchronize_tsc`).
const MSR_TSC: u32 = 0x10;
/// Where a guest asks for the time of day at its start: KVM writes it into guest memory at each set, and nobody reads it again.
const MSR_KVM_WALL_CLOCK: [u32; 2] = [0x11, 0x4b56_4d00];
/// Registers of another hypervisor's interface, which the guest's CPUID does not offer.
const MSR_HYPERV: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4000_01ff;

/// What a processor was, and what it ran on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VcpuState {
    pub(crate) features: Vec<kvm_cpuid_entry2>,
    pub(crate) tsc_khz: u32,
    /// Guest's time stamp counter less the host's, as if both were read at [`VcpuState::host_tsc`].
    tsc_offset: u64,
    host_tsc: u64,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    lapic: kvm_lapic_state,
    pub(crate) msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

/// The model-specific registers that this KVM saves and restores.
pub(crate) fn known_msrs(kvm: &Kvm) -> Result<Vec<u32>, kvm_ioctls::Error> {
    let list = kvm.get_msr_index_list()?;
    let kept =
        |msr: &&u32| **msr != MSR_TSC && !MSR_KVM_WALL_CLOCK.contains(msr) && !MSR_HYPERV.contains(msr);
    Ok(list.as_slice().iter().filter(kept).copied().collect())
}

impl VcpuState {
    /// Reads a stopped processor's state. `host_tsc` is the same for all processors of a machine, so that their counters stay
    /// together.
    ///
    /// The run state comes first: to read it, KVM carries out what other processors have asked of this one (INIT, SIPI),
    /// which changes the rest.
    pub(crate) fn of(
        vcpu: &VcpuFd,
        cpu: u8,
        features: Vec<kvm_cpuid_entry2>,
        known: &[u32],
        host_tsc: u64,
    ) -> Result<Self, ArchError> {
        let refused = |state| move |source| ArchError::Read { state, cpu, source };
        let mp_state = vcpu.get_mp_state().map_err(refused("run state"))?;
        let events = vcpu.get_vcpu_events().map_err(refused("pending events"))?;
        let tsc_offset = sys::tsc_offset(vcpu).map_err(|e| ArchError::Read {
            state: "time stamp counter",
            cpu,
            source: errno(&e),
        })?;
        Ok(Self {
            features,
            tsc_khz: vcpu.get_tsc_khz().map_err(refused("frequency of the time stamp counter"))?,
            tsc_offset,
            host_tsc,
            mp_state,
            regs: vcpu.get_regs().map_err(refused("registers"))?,
            sregs: vcpu.get_sregs().map_err(refused("special registers"))?,
            xsave: vcpu.get_xsave().map_err(refused("extended state"))?,
            xcrs: vcpu.get_xcrs().map_err(refused("extended control registers"))?,
            debug: vcpu.get_debug_regs().map_err(refused("debug registers"))?,
            lapic: vcpu.get_lapic().map_err(refused("local interrupt controller"))?,
            msrs: read_msrs(vcpu, known).map_err(refused("model-specific registers"))?,
            events,
        })
    }

    /// Gives it to a fresh processor, whose CPUID is set already: KVM checks the rest against it.
    ///
    /// * Special registers come before the local interrupt controller: they switch it on, in its mode.
    /// * The time stamp counter comes before the controller's deadline, which counts by it.
    /// * Model-specific registers come after the controller: the deadline is one of them, and without the controller's
    ///   timer in the deadline mode it is ignored.
    /// * Pending events come last: whatever is set before may clear them.
    pub(crate) fn give(&self, vcpu: &VcpuFd, cpu: u8, host_tsc: u64) -> Result<(), ArchError> {
        let refused = |state| move |source| ArchError::State { state, cpu, source };
        vcpu.set_mp_state(self.mp_state).map_err(refused("run state"))?;
        vcpu.set_regs(&self.regs).map_err(refused("registers"))?;
        vcpu.set_sregs(&self.special_registers()).map_err(refused("special registers"))?;
        sys::set_xsave(vcpu, &self.xsave).map_err(refused("extended state"))?;
        // A processor without XSAVE has none, and KVM refuses even none.
        if self.xcrs.nr_xcrs > 0 {
            vcpu.set_xcrs(&self.xcrs).map_err(refused("extended control registers"))?;
        }
        vcpu.set_debug_regs(&self.debug).map_err(refused("debug registers"))?;
        let offset = self.tsc_offset.wrapping_add(self.host_tsc).wrapping_sub(host_tsc);
        sys::set_tsc_offset(vcpu, offset).map_err(|e| ArchError::State {
            state: "time stamp counter",
            cpu,
            source: errno(&e),
        })?;
        vcpu.set_lapic(&self.lapic).map_err(refused("local interrupt controller"))?;
        write_msrs(vcpu, cpu, &self.msrs)?;
        vcpu.set_vcpu_events(&self.events).map_err(refused("pending events"))
    }

    /// A processor that has done nothing yet.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn blank() -> Self {
        let msr = |index| kvm_msr_entry { index, data: u64::MAX, ..Default::default() };
        Self {
            features: vec![kvm_cpuid_entry2 { function: 7, ebx: 1, ..Default::default() }],
            tsc_khz: 1_000_000,
            tsc_offset: 0,
            host_tsc: 0,
            mp_state: kvm_mp_state::default(),
            regs: kvm_regs::default(),
            sregs: kvm_sregs::default(),
            xsave: kvm_xsave::default(),
            xcrs: kvm_xcrs::default(),
            debug: kvm_debugregs::default(),
            lapic: kvm_lapic_state::default(),
            msrs: vec![msr(0x174), msr(0x277)],
            events: kvm_vcpu_events::default(),
        }
    }

    /// The special registers as this host's processor wants them back.
    ///
    /// KVM reports the task segment as busy, which it is (`svm_get_segment`); but QEMU's emulated processor keeps it as it was
    /// loaded, available, and lets a program with a bitmap of ports write to a port only then (its `helper_check_io`; seen with
    /// 7.2).
    fn special_registers(&self) -> kvm_sregs {
        const BUSY: u8 = 2;
        let mut sregs = self.sregs;
        if cpuid::is_emulated() {
            sregs.tr.type_ &= !BUSY;
        }
        sregs
    }

    /// The first leaf in which a processor of this host differs, or `tsc` for its frequency.
    pub(crate) fn differs(&self, features: &CpuId, tsc_khz: u32) -> Option<String> {
        // KVM itself takes so much for the same frequency (`tsc_tolerance_ppm`).
        const TOLERANCE_PPM: u64 = 250;
        let host = features.as_slice();
        let changed = self.features.iter().zip(host).find(|(a, b)| a != b).map(|(a, _)| a.function);
        let missing = self.features.get(host.len()).or_else(|| host.get(self.features.len()));
        if let Some(leaf) = changed.or_else(|| missing.map(|entry| entry.function)) {
            return Some(format!("cpuid leaf {leaf:#x}"));
        }
        let (stored, found) = (u64::from(self.tsc_khz), u64::from(tsc_khz));
        (stored.abs_diff(found) * 1_000_000 > stored * TOLERANCE_PPM)
            .then(|| format!("the time stamp counter runs at {found} kHz, not {stored}"))
    }
}

fn errno(error: &std::io::Error) -> kvm_ioctls::Error {
    kvm_ioctls::Error::new(error.raw_os_error().unwrap_or(libc::EIO))
}

/// What can be read of these registers. KVM names some that a guest with this CPUID does not have.
fn read_msrs(vcpu: &VcpuFd, known: &[u32]) -> Result<Vec<kvm_msr_entry>, kvm_ioctls::Error> {
    let mut found = Vec::new();
    let mut rest = known;
    while !rest.is_empty() {
        let asked: Vec<_> = rest
            .iter()
            .take(PER_REQUEST)
            .map(|&index| kvm_msr_entry { index, ..Default::default() })
            .collect();
        let mut msrs = Msrs::from_entries(&asked).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))?;
        let read = vcpu.get_msrs(&mut msrs)?;
        found.extend(msrs.as_slice().iter().take(read).copied());
        // KVM stops at the first one that it can't read.
        let skipped = usize::from(read < asked.len());
        rest = rest.get(read + skipped..).unwrap_or_default();
    }
    Ok(found)
}

/// Sets these registers. One that can't be set is no loss where it holds that value anyway.
fn write_msrs(vcpu: &VcpuFd, cpu: u8, wanted: &[kvm_msr_entry]) -> Result<(), ArchError> {
    let refused = |source| ArchError::State { state: "model-specific registers", cpu, source };
    let too_many = |_| refused(kvm_ioctls::Error::new(libc::E2BIG));
    let mut rest = wanted;
    while !rest.is_empty() {
        let now = rest.get(..rest.len().min(PER_REQUEST)).unwrap_or_default();
        let set = vcpu.set_msrs(&Msrs::from_entries(now).map_err(too_many)?).map_err(refused)?;
        rest = rest.get(set..).unwrap_or_default();
        if set < now.len()
            && let Some((first, others)) = rest.split_first()
        {
            let mut held = Msrs::from_entries(&[kvm_msr_entry { data: 0, ..*first }]).map_err(too_many)?;
            let read = vcpu.get_msrs(&mut held).map_err(refused)?;
            if read != 1 || held.as_slice().first().is_none_or(|held| held.data != first.data) {
                return Err(ArchError::Msr { index: first.index, cpu });
            }
            rest = others;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(entries: &[kvm_cpuid_entry2]) -> CpuId {
        CpuId::from_entries(entries).unwrap()
    }

    #[test]
    fn a_processor_with_other_features_or_another_frequency_is_told_apart() {
        let stored = VcpuState::blank();
        let same = stored.features.clone();
        assert_eq!(stored.differs(&features(&same), 1_000_000), None);
        assert_eq!(stored.differs(&features(&same), 1_000_200), None);
        let other = [kvm_cpuid_entry2 { ebx: 3, ..same[0] }];
        assert_eq!(stored.differs(&features(&other), 1_000_000).as_deref(), Some("cpuid leaf 0x7"));
        let more = [same[0], kvm_cpuid_entry2 { function: 0x14, ..Default::default() }];
        assert_eq!(stored.differs(&features(&more), 1_000_000).as_deref(), Some("cpuid leaf 0x14"));
        assert_eq!(stored.differs(&features(&[]), 1_000_000).as_deref(), Some("cpuid leaf 0x7"));
        assert!(stored.differs(&features(&same), 2_000_000).unwrap().contains("2000000 kHz"));
    }
}
