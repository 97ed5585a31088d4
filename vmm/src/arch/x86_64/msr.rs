//! The model-specific registers that a guest may read and write; any other one is a general protection fault, whatever this host's KVM
//! makes of it.
//!
//! The list is of what Linux guests use of what KVM offers to a processor with the features that `cpuid` leaves. What a kernel only tries
//! (`rdmsr_safe`) and can do without is not in it: counters, debug store, branch records, processor trace, nested virtualisation,
//! thermal and power readings of the host, other hypervisors' interfaces. KVM lets no filter come between a guest and its x2APIC
//! (0x800 to 0x8ff).

use std::ops::RangeInclusive;

use kvm_bindings::KVM_CAP_X86_MSR_FILTER;
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

use super::ArchError;

/// Registers (Intel SDM volume 4, AMD APM volume 2 appendix A, Linux `asm/msr-index.h`), each with what it is for.
#[rustfmt::skip]
const ALLOWED: &[(RangeInclusive<u32>, &str)] = &[
    (0x10..=0x10, "time stamp counter"),
    (0x11..=0x12, "KVM's clock, by its old numbers"),
    (0x17..=0x17, "platform id, beside the microcode's revision"),
    (0x1b..=0x1b, "local APIC's base"),
    (0x2a..=0x2a, "power-on configuration"),
    (0x3a..=0x3b, "feature control (locked), adjustment of the time stamp counter"),
    (0x48..=0x49, "mitigations: speculation control, prediction barrier"),
    (0x8b..=0x8b, "microcode's revision"),
    (0xce..=0xce, "platform information: whether CPUID can fault"),
    (0xfe..=0xfe, "memory types: capabilities"),
    (0x10a..=0x10b, "mitigations: capabilities, flush of the L1 cache"),
    (0x122..=0x123, "mitigations: transactional memory off, special register buffers"),
    (0x140..=0x140, "whether CPUID faults"),
    (0x174..=0x176, "fast system calls of 32-bit programs"),
    (0x179..=0x17b, "machine checks: capabilities, state, control"),
    (0x198..=0x198, "frequency (KVM tells none)"),
    (0x1a0..=0x1a0, "miscellaneous features"),
    (0x1d9..=0x1d9, "debug control: single steps by branches"),
    (0x200..=0x20f, "memory types: ranges"),
    (0x250..=0x250, "memory types: first MiB"),
    (0x258..=0x259, "memory types: first MiB"),
    (0x268..=0x26f, "memory types: first MiB"),
    (0x277..=0x277, "memory types: page attributes"),
    (0x2ff..=0x2ff, "memory types: default"),
    (0x400..=0x47f, "machine checks: banks"),
    (0x6a0..=0x6a8, "control-flow enforcement"),
    (0x6e0..=0x6e0, "timer of the local APIC"),
    (0xda0..=0xda0, "extended state of the kernel"),
    (0x4b56_4d00..=0x4b56_4d08, "KVM's own: clock, page faults, stolen time, end of interrupt, polling, migration"),
    (0xc000_0080..=0xc000_0084, "long mode and system calls"),
    (0xc000_0100..=0xc000_0104, "segment bases, processor number, rate of the time stamp counter"),
    (0xc000_010f..=0xc000_010f, "debug extensions"),
    (0xc001_0010..=0xc001_0010, "system configuration"),
    (0xc001_0015..=0xc001_0015, "hardware configuration"),
    (0xc001_0016..=0xc001_0019, "memory types: I/O ranges"),
    (0xc001_001a..=0xc001_001a, "memory types: top of memory"),
    (0xc001_001d..=0xc001_001d, "memory types: top of memory"),
    (0xc001_001f..=0xc001_001f, "north bridge"),
    (0xc001_0055..=0xc001_0055, "pending interrupts"),
    (0xc001_0058..=0xc001_0058, "PCI's configuration space"),
    (0xc001_0061..=0xc001_0064, "frequency (KVM tells none)"),
    (0xc001_0111..=0xc001_0113, "system management memory"),
    (0xc001_011f..=0xc001_011f, "mitigations: speculation control"),
    (0xc001_0131..=0xc001_0131, "whether memory is encrypted"),
    (0xc001_0140..=0xc001_0141, "errata that the kernel need not mend"),
    (0xc001_1020..=0xc001_102e, "errata: configuration of the core"),
];

/// Registers from one on, and a bit for each of them, set where it is allowed. Made when isolab is built: no start pays for it.
struct Window {
    first: u32,
    bits: &'static [u8],
}

const WINDOWS: [Window; 5] = [
    Window { first: 0, bits: &bits::<0x200>(0) },
    Window { first: 0x4b56_4d00, bits: &bits::<8>(0x4b56_4d00) },
    Window { first: 0xc000_0000, bits: &bits::<0x40>(0xc000_0000) },
    Window { first: 0xc001_0000, bits: &bits::<0x40>(0xc001_0000) },
    Window { first: 0xc001_1000, bits: &bits::<8>(0xc001_1000) },
];

const fn bits<const BYTES: usize>(first: u32) -> [u8; BYTES] {
    let mut bits = [0; BYTES];
    let mut entry = 0;
    while entry < ALLOWED.len() {
        let (range, _) = &ALLOWED[entry];
        let mut msr = *range.start();
        while msr <= *range.end() {
            // `usize` has 64 bits here.
            let at = msr.wrapping_sub(first) as usize;
            if at < 8 * BYTES {
                bits[at / 8] |= 1 << (at % 8);
            }
            msr += 1;
        }
        entry += 1;
    }
    bits
}

/// Sets the filter of a machine.
pub(crate) fn filter(vm: &VmFd) -> Result<(), ArchError> {
    if vm.check_extension_raw(KVM_CAP_X86_MSR_FILTER.into()) <= 0 {
        return Err(ArchError::NoMsrFilter);
    }
    let ranges = WINDOWS.map(|Window { first, bits }| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base: first,
        msr_count: u32::try_from(8 * bits.len()).unwrap_or(0),
        bitmap: bits,
    });
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges).map_err(ArchError::MsrFilter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the bitmaps say, as KVM reads them.
    fn allows(msr: u32) -> bool {
        WINDOWS.iter().any(|window| {
            let byte = msr.checked_sub(window.first).and_then(|at| window.bits.get(at as usize / 8));
            byte.is_some_and(|byte| byte >> (msr % 8) & 1 == 1)
        })
    }

    #[test]
    fn each_register_of_the_list_is_allowed_and_no_other() {
        let listed = |msr: u32| ALLOWED.iter().any(|(range, _)| range.contains(&msr));
        for (range, what) in ALLOWED {
            assert!(range.clone().all(allows), "{what}: {range:x?}");
        }
        for Window { first, bits } in WINDOWS {
            let around = first.saturating_sub(16)..first + 8 * u32::try_from(bits.len()).unwrap() + 16;
            assert!(around.clone().all(|msr| allows(msr) == listed(msr)), "{around:x?}");
        }
        assert!(!allows(u32::MAX));
        // KVM takes so many ranges, and so many bytes for each.
        assert!(WINDOWS.len() <= 16 && WINDOWS.iter().all(|window| window.bits.len() <= 0x600));
    }

    #[test]
    fn what_a_guest_must_not_have_is_not_in_the_list() {
        // Performance counters (Intel, AMD), branch records, debug store, processor trace, VMX, SVM, Hyper-V, energy and
        // temperature of the host, SGX's keys, activity counters, microcode updates.
        let denied = [
            0xc1..=0xc8,
            0x186..=0x18d,
            0x309..=0x30b,
            0x38d..=0x390,
            0xc001_0000..=0xc001_0007,
            0xc001_0200..=0xc001_020f,
            0x1c8..=0x1c9,
            0x680..=0x69f,
            0x600..=0x600,
            0x560..=0x58f,
            0x480..=0x491,
            0xc001_0114..=0xc001_0117,
            0x4000_0000..=0x4000_01ff,
            0x606..=0x648,
            0x1a2..=0x1a2,
            0x8c..=0x8f,
            0xe7..=0xe8,
            0x79..=0x79,
            0xc001_0020..=0xc001_0020,
        ];
        for msr in denied.into_iter().flatten() {
            assert!(!allows(msr), "{msr:#x}");
        }
    }
}
