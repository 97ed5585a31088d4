//! The processor itself, and the interrupt controllers that KVM keeps.

use crate::Verdict;
use crate::cpu::{PRIVILEGED, faults, hypercall, rdmsr, read, write_at, wrmsr};
use crate::random::Random;
use crate::virtio::{SCRATCH, SCRATCH_LEN};

/// Where processors and hypervisors have model-specific registers: architectural, KVM's, Hyper-V's, AMD's.
const RANGES: [(u32, u32); 6] = [
    (0, 0x1000),
    (0x4b56_4d00, 0x100),
    (0x4000_0000, 0x200),
    (0xc000_0000, 0x200),
    (0xc001_0000, 0x200),
    (0xc001_1000, 0x100),
];
/// Where the local interrupt controller is; it must not go over this program.
const APIC_BASE: u32 = 0x1b;
/// A system management interrupt, and the ICR of the x2APIC, which can stop this processor.
const X2APIC: core::ops::Range<u32> = 0x800..0x840;

/// Every model-specific register, read, and written with anything.
pub fn registers(random: &mut Random) -> Verdict {
    for (first, count) in RANGES {
        for index in first..first + count {
            rdmsr(index);
            if index == APIC_BASE || X2APIC.contains(&index) {
                continue;
            }
            let (page, odd) = (SCRATCH + random.below(SCRATCH_LEN / 4096) * 4096, random.next());
            // Some of them are addresses where KVM then writes: bit 0 says so.
            wrmsr(index, random.of(&[0, 1, u64::MAX, page, page | 1, odd]));
        }
    }
    // KVM stops writing to memory.
    for index in 0x4b56_4d00..0x4b56_4d10 {
        wrmsr(index, 0);
    }
    if faults() > 0 { Ok(()) } else { Err(()) }
}

/// Instructions of hosts, hypercalls that are none, control registers.
pub fn privileged(random: &mut Random) -> Verdict {
    for _ in 0..40 {
        for (_, instruction) in PRIVILEGED {
            instruction(random.hostile());
        }
        for number in (0..16).chain([random.next()]) {
            hypercall(number, random.hostile(), random.hostile(), random.hostile());
        }
    }
    if faults() > 0 { Ok(()) } else { Err(()) }
}

/// Registers of the local and the I/O interrupt controller, but not the command that stops this processor.
pub fn controllers(random: &mut Random) -> Verdict {
    const IO_APIC: u64 = 0xfec0_0000;
    const LOCAL: u64 = 0xfee0_0000;
    const COMMAND: core::ops::Range<u64> = 0x300..0x320;
    for _ in 0..8_000 {
        let offset = random.below(0x1000);
        let width = random.of(&[1, 2, 4, 4, 4, 8]);
        if random.below(2) == 0 {
            write_at(IO_APIC, 4, random.below(0x40));
            write_at(IO_APIC + random.of(&[0x10, 0x10, offset]), width, random.hostile());
        } else if !COMMAND.contains(&offset) && !COMMAND.contains(&(offset + 8)) {
            write_at(LOCAL + offset, width, random.hostile());
            read(LOCAL + offset, width);
        }
    }
    Ok(())
}
