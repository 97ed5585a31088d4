//! Processor state at the kernel's 64-bit entry (Linux boot protocol, "64-bit boot protocol").

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

use super::ArchError;
use crate::layout;
use crate::memory::GuestRam;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_RESERVED: u64 = 2;

/// Selectors that the boot protocol fixes: `__BOOT_CS` and `__BOOT_DS`; the task segment is ours.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// Present, writable, and at level 2: a 2 MiB page.
const PTE_PRESENT_RW: u64 = 0b11;
const PTE_LARGE: u64 = 1 << 7;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// Enabled, and write-back where no range says otherwise.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

fn segment(selector: u16, type_: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

fn code() -> kvm_segment {
    segment(CODE, 0b1011, true)
}

fn data() -> kvm_segment {
    segment(DATA, 0b0011, false)
}

/// A busy 64-bit task segment; nothing uses it before the kernel loads its own.
fn task() -> kvm_segment {
    kvm_segment { selector: TASK, type_: 0b1011, present: 1, limit: 0x67, ..Default::default() }
}

/// The descriptor of a segment as it stands in the table.
fn descriptor(s: &kvm_segment) -> u64 {
    let limit = u64::from(if s.g == 1 { s.limit >> 12 } else { s.limit });
    let access = u64::from(s.type_) | u64::from(s.s) << 4 | u64::from(s.dpl) << 5 | u64::from(s.present) << 7;
    let flags = u64::from(s.l) << 1 | u64::from(s.db) << 2 | u64::from(s.g) << 3;
    (limit & 0xffff) | access << 40 | (limit >> 16 & 0xf) << 48 | flags << 52
}

/// Writes the descriptor table and the page tables.
pub(crate) fn write_tables(ram: &GuestRam) -> Result<(), ArchError> {
    let gdt = [0, 0, descriptor(&code()), descriptor(&data()), descriptor(&task()), 0];
    write_words(ram, "descriptor table", layout::GDT.start, &gdt)?;
    let [level4, level3, level2] = page_tables();
    write_words(ram, "page tables", level4, &[level3 | PTE_PRESENT_RW])?;
    write_words(ram, "page tables", level3, &[level2 | PTE_PRESENT_RW])?;
    let large: Vec<u64> = (0..512).map(|i| i << 21 | PTE_PRESENT_RW | PTE_LARGE).collect();
    write_words(ram, "page tables", level2, &large)
}

const fn page_tables() -> [u64; 3] {
    let first = layout::PAGE_TABLES.start;
    [first, first + 0x1000, first + 0x2000]
}

fn write_words(ram: &GuestRam, table: &'static str, at: u64, words: &[u64]) -> Result<(), ArchError> {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    ram.write_slice(&bytes, GuestAddress(at)).map_err(|e| ArchError::Write { table, reason: e.to_string() })
}

/// Prepares a processor; the first one starts at the kernel's entry, the others wait for it (INIT, SIPI).
/// Its CPUID must be set before: KVM checks long mode against it.
pub(crate) fn set_up(vcpu: &VcpuFd, cpu: u8, entry: u64) -> Result<(), ArchError> {
    let refused = |state| move |source| ArchError::State { state, cpu, source };
    let msr = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let msrs = [msr(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING), msr(MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK)];
    let msrs = Msrs::from_entries(&msrs)
        .map_err(|e| ArchError::Write { table: "model-specific registers", reason: format!("{e:?}") })?;
    vcpu.set_msrs(&msrs).map_err(refused("model-specific registers"))?;
    let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    vcpu.set_fpu(&fpu).map_err(refused("floating-point state"))?;
    if cpu != 0 {
        return Ok(());
    }
    let mut sregs = vcpu.get_sregs().map_err(refused("special registers"))?;
    sregs.gdt.base = layout::GDT.start;
    sregs.gdt.limit = 6 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cs = code();
    for s in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *s = data();
    }
    sregs.tr = task();
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = page_tables()[0];
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    vcpu.set_sregs(&sregs).map_err(refused("special registers"))?;
    let regs = kvm_regs {
        rflags: RFLAGS_RESERVED,
        rip: entry,
        rsi: layout::BOOT_PARAMS.start,
        rsp: layout::STACK.end() - 16,
        ..Default::default()
    };
    vcpu.set_regs(&regs).map_err(refused("registers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_the_known_flat_ones() {
        assert_eq!(descriptor(&code()), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&data()), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&task()), 0x0000_8b00_0000_0067);
    }
}
