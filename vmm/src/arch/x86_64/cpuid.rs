//! What the guest's processors say about themselves: what KVM supports, less what a guest must not have.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use super::ArchError;
use crate::probe::hypervisor_signature;

/// A set of bits in one register of one leaf.
struct Clear {
    leaf: u32,
    register: fn(&mut kvm_cpuid_entry2) -> &mut u32,
    bits: u32,
}

const fn bit(n: u32) -> u32 {
    1 << n
}

/// Features that are taken away: nested virtualisation, performance counters and debug store, transactional
/// memory, monitor/mwait (KVM does not let a guest sleep the CPU) and AMX (its state is 8 KiB per thread).
const CLEAR: &[Clear] = &[
    // DTES64, MONITOR, DS-CPL, VMX, TM2, PDCM
    Clear { leaf: 1, register: |e| &mut e.ecx, bits: bit(2) | bit(3) | bit(4) | bit(5) | bit(8) | bit(15) },
    // DS
    Clear { leaf: 1, register: |e| &mut e.edx, bits: bit(21) },
    // HLE, RTM
    Clear { leaf: 7, register: |e| &mut e.ebx, bits: bit(4) | bit(11) },
    // WAITPKG
    Clear { leaf: 7, register: |e| &mut e.ecx, bits: bit(5) },
    // AMX: bf16, tile, int8
    Clear { leaf: 7, register: |e| &mut e.edx, bits: bit(22) | bit(24) | bit(25) },
    // SVM, IBS, PerfCtrExtCore, PerfCtrExtNB, PerfCtrExtLLC
    Clear {
        leaf: 0x8000_0001,
        register: |e| &mut e.ecx,
        bits: bit(2) | bit(10) | bit(23) | bit(24) | bit(28),
    },
];

/// Leaves that are emptied: performance counters (Intel, AMD), SVM, IBS, SGX, AMX tiles.
const EMPTY: &[u32] = &[0xa, 0x12, 0x1d, 0x1e, 0x8000_000a, 0x8000_001b, 0x8000_0022];

const TSC_DEADLINE: u32 = bit(24);
const HYPERVISOR: u32 = bit(31);
const HTT: u32 = bit(28);
const AMX_STATE: u32 = bit(17) | bit(18);

/// KVM's own leaf of features, and the one that lets a guest end an interrupt without an exit.
const KVM_FEATURES: u32 = 0x4000_0001;
const PV_EOI: u32 = bit(6);

/// What all processors of a machine on this host have in common.
pub(crate) struct OfHost {
    supported: CpuId,
    tsc_deadline: bool,
}

/// Asks this host's KVM.
pub(crate) fn of_host(kvm: &Kvm) -> Result<OfHost, kvm_ioctls::Error> {
    let all = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let tsc_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    Ok(OfHost { supported: supported(all, is_emulated()), tsc_deadline })
}

/// Whether the processor under KVM is an emulated one.
pub(crate) fn is_emulated() -> bool {
    is_of_qemu(hypervisor_signature().as_deref())
}

fn is_of_qemu(hypervisor: Option<&str>) -> bool {
    hypervisor.is_some_and(|signature| signature.starts_with("TCG"))
}

impl OfHost {
    /// The table of one processor of so many.
    pub(crate) fn table(&self, cpu: u8, cpus: u8) -> Result<CpuId, ArchError> {
        table(&self.supported, cpu, cpus, self.tsc_deadline)
    }
}

/// What this host's KVM supports, less what the processor under it can't do right.
///
/// QEMU's emulation of SVM may deliver an injected interrupt a second time, whatever the guest's interrupt flag says,
/// when its emulated time slice ends before the guest's next exit (its `helper_vmrun` leaves the vector in
/// `exception_index`; seen with 7.2). With PV EOI that next exit is the end of the interrupt's handler, and the second
/// delivery finds locks held: the guest spins for ever. Without, it is the end-of-interrupt register, which Linux writes
/// before it does anything else.
fn supported(mut supported: CpuId, emulated: bool) -> CpuId {
    if emulated {
        let features = supported.as_mut_slice().iter_mut().filter(|e| e.function == KVM_FEATURES);
        features.for_each(|entry| entry.eax &= !PV_EOI);
    }
    supported
}

/// The table of one processor. Topology: one package, `cpus` cores, one thread each; APIC id = number.
fn table(supported: &CpuId, cpu: u8, cpus: u8, tsc_deadline: bool) -> Result<CpuId, ArchError> {
    let mut entries: Vec<kvm_cpuid_entry2> = supported
        .as_slice()
        .iter()
        // Topology leaves are made anew below.
        .filter(|e| !matches!(e.function, 0xb | 0x1f))
        .copied()
        .collect();
    for entry in &mut entries {
        for clear in CLEAR {
            if (clear.leaf, 0) == (entry.function, entry.index) {
                *(clear.register)(entry) &= !clear.bits;
            }
        }
        if EMPTY.contains(&entry.function) {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        identify(entry, cpu, cpus, tsc_deadline);
    }
    entries.extend(extended_topology(cpu, cpus));
    CpuId::from_entries(&entries).map_err(|_| ArchError::CpuidFull)
}

fn identify(entry: &mut kvm_cpuid_entry2, cpu: u8, cpus: u8, tsc_deadline: bool) {
    let (id, count) = (u32::from(cpu), u32::from(cpus));
    match (entry.function, entry.index) {
        (1, _) => {
            entry.ebx = entry.ebx & 0xffff | count << 16 | id << 24;
            entry.ecx |= HYPERVISOR | if tsc_deadline { TSC_DEADLINE } else { 0 };
            entry.edx = if cpus > 1 { entry.edx | HTT } else { entry.edx & !HTT };
        }
        // Intel caches: cores of the package, and who shares (levels 1 and 2 are private).
        (4, _) if entry.eax & 0x1f != 0 => {
            let shared = if entry.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | shared << 14 | (count - 1) << 26;
        }
        (0xd, 0) => entry.eax &= !AMX_STATE,
        (0xd, 17 | 18) => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
        // AMD: number of cores and bits of a core's number in the APIC id.
        (0x8000_0008, _) => {
            entry.ecx = (count - 1) | (count.next_power_of_two().trailing_zeros()) << 12;
        }
        (0x8000_001d, _) if entry.eax & 0x1f != 0 => {
            let shared = if entry.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | shared << 14;
        }
        (0x8000_001e, _) => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (id, id, 0, 0),
        _ => {}
    }
}

/// Leaf 0xb: threads of a core (one), cores of the package.
fn extended_topology(cpu: u8, cpus: u8) -> [kvm_cpuid_entry2; 3] {
    let (id, count) = (u32::from(cpu), u32::from(cpus));
    let level = |index: u32, kind: u32, shift: u32, below: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: below,
        ecx: index | kind << 8,
        edx: id,
        ..Default::default()
    };
    let core_bits = count.next_power_of_two().trailing_zeros();
    [level(0, 1, 0, 1), level(1, 2, core_bits, count), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_ones() -> CpuId {
        let leaf = |function, index| kvm_cpuid_entry2 {
            function,
            index,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        let functions =
            [1, 4, 7, 0xa, 0xb, 0xd, 0x8000_0001, 0x8000_0008, 0x8000_000a, 0x8000_001e, 0x8000_0022];
        CpuId::from_entries(&functions.map(|f| leaf(f, 0))).unwrap()
    }

    fn leaf(table: &CpuId, function: u32) -> kvm_cpuid_entry2 {
        *table.as_slice().iter().find(|e| e.function == function).unwrap()
    }

    #[test]
    fn guest_gets_no_nested_virtualisation_and_no_counters() {
        let table = table(&all_ones(), 0, 1, true).unwrap();
        assert_eq!(leaf(&table, 1).ecx & bit(5), 0);
        assert_eq!(leaf(&table, 0x8000_0001).ecx & (bit(2) | bit(23) | bit(24)), 0);
        assert_eq!(leaf(&table, 7).ebx & (bit(4) | bit(11)), 0);
        assert_eq!(leaf(&table, 0xa).eax, 0);
        assert_eq!(leaf(&table, 0x8000_000a).eax, 0);
        assert_ne!(leaf(&table, 1).ecx & bit(31), 0);
    }

    #[test]
    fn guest_on_an_emulated_processor_ends_interrupts_by_the_register() {
        let features = kvm_cpuid_entry2 { function: KVM_FEATURES, eax: u32::MAX, ..Default::default() };
        let host = CpuId::from_entries(&[features]).unwrap();
        let eax = |hypervisor| leaf(&supported(host.clone(), is_of_qemu(hypervisor)), KVM_FEATURES).eax;
        assert_eq!(eax(Some("TCGTCGTCGTCG")), !PV_EOI);
        assert_eq!(eax(Some("KVMKVMKVM")), u32::MAX);
        assert_eq!(eax(None), u32::MAX);
    }

    #[test]
    fn each_processor_has_its_own_number() {
        for cpu in 0..8 {
            let table = table(&all_ones(), cpu, 8, false).unwrap();
            assert_eq!(leaf(&table, 1).ebx >> 24, u32::from(cpu));
            assert_eq!(leaf(&table, 1).ebx >> 16 & 0xff, 8);
            assert_eq!(leaf(&table, 0xb).edx, u32::from(cpu));
            assert_eq!(leaf(&table, 0x8000_001e).eax, u32::from(cpu));
            assert_eq!(leaf(&table, 0x8000_0008).ecx, 7 | 3 << 12);
        }
    }
}
