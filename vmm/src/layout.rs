//! The guest physical map: everything that has a fixed place, with its reason.

use vm_memory::GuestAddress;

/// A named piece of guest physical address space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    /// What it is.
    #[cfg_attr(not(test), expect(dead_code, reason = "named in the test of overlaps"))]
    pub(crate) name: &'static str,
    /// First address.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) size: u64,
}

impl Area {
    /// First address as a guest address.
    pub(crate) const fn address(&self) -> GuestAddress {
        GuestAddress(self.start)
    }

    /// First address after it.
    pub(crate) const fn end(&self) -> u64 {
        self.start + self.size
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Descriptor table that the 64-bit boot protocol asks for; the kernel soon loads its own.
pub(crate) const GDT: Area = Area { name: "gdt", start: 0x1000, size: 4 * KIB };
/// `struct boot_params` ("zero page") of the Linux boot protocol: one page.
pub(crate) const BOOT_PARAMS: Area = Area { name: "boot parameters", start: 0x7000, size: 4 * KIB };
/// Stack of the first instructions; grows down from its end.
pub(crate) const STACK: Area = Area { name: "stack", start: 0x8000, size: 4 * KIB };
/// Page tables: one page each for levels 4, 3 and 2, which map the first GiB with 2 MiB pages.
pub(crate) const PAGE_TABLES: Area = Area { name: "page tables", start: 0x9000, size: 12 * KIB };
/// Kernel command line: `COMMAND_LINE_SIZE` of x86 is 2048.
pub(crate) const CMDLINE: Area = Area { name: "command line", start: 0x2_0000, size: 2 * KIB };
/// End of conventional memory, where a PC keeps its extended BIOS data.
pub(crate) const LOW_RAM: Area = Area { name: "conventional memory", start: 0, size: 0x9_fc00 };
/// Multiprocessor table, for kernels without ACPI: the last KiB below 640 KiB, where they look for it second, and which is
/// no RAM to them.
pub(crate) const MP_TABLE: Area = Area { name: "multiprocessor table", start: 0x9_fc00, size: KIB };
/// ACPI tables, in the area where the kernel would scan for their root as well.
pub(crate) const ACPI: Area = Area { name: "acpi tables", start: 0xe_0000, size: 128 * KIB };
/// Memory above the PC's first MiB; a bzImage's protected-mode part goes to its start.
pub(crate) const HIGH_MEMORY: u64 = MIB;
/// Below 4 GiB, from here on, is no RAM: devices live there.
pub(crate) const GAP: Area = Area { name: "device gap", start: 3 * GIB + 256 * MIB, size: 768 * MIB };
/// Registers of the virtio devices, one page each.
pub(crate) const VIRTIO: Area = Area { name: "virtio registers", start: GAP.start, size: 0x1_0000 };
/// Page size of each device's registers.
pub(crate) const VIRTIO_STRIDE: u64 = 0x1000;
/// Input of the interrupt controller for each virtio device. Not among them is 8, a PC's clock chip: KVM leaves the guest at the end
/// of each of its interrupts.
pub(crate) const VIRTIO_GSI: [u32; 4] = [5, 6, 7, 10];
/// I/O APIC: the architectural place.
pub(crate) const IOAPIC: Area = Area { name: "io apic", start: 0xfec0_0000, size: 4 * KIB };
/// Local APIC: the architectural place.
pub(crate) const LAPIC: Area = Area { name: "local apic", start: 0xfee0_0000, size: 4 * KIB };
/// One page for the identity map that Intel CPUs need in real mode.
pub(crate) const IDENTITY_MAP: Area = Area { name: "identity map", start: 0xfffb_c000, size: 4 * KIB };
/// Three pages for the task state that Intel CPUs need in real mode.
pub(crate) const TSS: Area = Area { name: "task state", start: 0xfffb_d000, size: 12 * KIB };
/// RAM that does not fit below the gap goes on here.
pub(crate) const RAM_ABOVE_GAP: u64 = 4 * GIB;

/// RAM as pieces of guest physical memory: below the gap, and above it where it does not fit.
pub(crate) fn ram_ranges(bytes: u64) -> Vec<(GuestAddress, u64)> {
    let low = bytes.min(GAP.start);
    let mut ranges = vec![(GuestAddress(0), low)];
    if bytes > low {
        ranges.push((GuestAddress(RAM_ABOVE_GAP), bytes - low));
    }
    ranges
}

/// I/O ports.
pub(crate) mod port {
    /// Debug serial port (the PC's first).
    pub(crate) const SERIAL: u16 = 0x3f8;
    /// Last port of the serial port.
    pub(crate) const SERIAL_END: u16 = SERIAL + 7;
    /// Keyboard controller's command port: byte 0xfe resets the machine.
    pub(crate) const RESET: u16 = 0x64;
    /// ACPI sleep control register: how a guest powers itself off.
    pub(crate) const SLEEP: u16 = 0x600;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_disjoint(areas: &[Area]) {
        for (i, a) in areas.iter().enumerate() {
            for b in &areas[i + 1..] {
                assert!(a.end() <= b.start || b.end() <= a.start, "{} overlaps {}", a.name, b.name);
            }
        }
    }

    #[test]
    fn areas_do_not_overlap() {
        assert_disjoint(&[GDT, BOOT_PARAMS, STACK, PAGE_TABLES, CMDLINE, MP_TABLE, ACPI, GAP]);
        assert_disjoint(&[VIRTIO, IOAPIC, LAPIC, IDENTITY_MAP, TSS]);
        for area in [VIRTIO, IOAPIC, LAPIC, IDENTITY_MAP, TSS] {
            assert!(area.start >= GAP.start && area.end() <= GAP.end(), "{} is outside the gap", area.name);
        }
        for area in [GDT, BOOT_PARAMS, STACK, PAGE_TABLES, CMDLINE] {
            assert!(area.end() <= LOW_RAM.end(), "{} is outside conventional memory", area.name);
        }
        assert_eq!(MP_TABLE.start, LOW_RAM.end());
        assert_eq!(GAP.end(), RAM_ABOVE_GAP);
    }

    #[test]
    fn ram_leaves_the_gap_free() {
        assert_eq!(ram_ranges(128 * MIB), [(GuestAddress(0), 128 * MIB)]);
        let split = ram_ranges(5 * GIB);
        assert_eq!(split.iter().map(|r| r.1).sum::<u64>(), 5 * GIB);
        assert_eq!(split[0], (GuestAddress(0), GAP.start));
        assert_eq!(split[1].0, GuestAddress(RAM_ABOVE_GAP));
    }
}
