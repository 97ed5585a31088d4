//! Ports and addresses, those of devices and those of nobody.

use isolab_wire::mark::PORTS;

use crate::Verdict;
use crate::cpu::{in8, in32, ins, movs, out8, out16, out32, outs, read, write_at};
use crate::random::Random;
use crate::virtio::{RAM_END, SCRATCH, SCRATCH_LEN, STRIDE, WINDOW};

/// The ports by which a guest ends itself: the keyboard controller's, and the sleep register.
const ENDING: [u16; 2] = [0x64, 0x600];
const SERIAL: u16 = 0x3f8;

/// Every port, read or written with one width or another; then whole strings at once.
pub fn ports(random: &mut Random) -> Verdict {
    let marks = PORTS.0..PORTS.0 + PORTS.1;
    for port in 0..=u16::MAX {
        if (ENDING[0] - 3..=ENDING[0]).contains(&port)
            || (ENDING[1] - 3..=ENDING[1]).contains(&port)
            || (marks.start - 3..marks.end).contains(&port)
        {
            continue;
        }
        let value = random.hostile();
        match random.below(5) {
            0 => out8(port, value as u8),
            1 => out16(port, value as u16),
            2 => out32(port, value as u32),
            3 => drop(in8(port)),
            _ => drop(in32(port)),
        }
    }
    for port in [SERIAL, SERIAL + 5, 0x80, 0xcf8, 0xffff, PORTS.0 + 1] {
        outs(port, SCRATCH, 5_000);
        ins(port, SCRATCH, 5_000);
        // From behind the end of RAM, and over a page of device registers.
        outs(port, RAM_END - 8, 64);
        outs(port, WINDOW, 64);
        ins(port, RAM_END - 8, 64);
    }
    if in8(0xffff) == 0xff { Ok(()) } else { Err(()) }
}

/// Registers of each device and of none, in no order, with every width, also over their edges.
pub fn registers(random: &mut Random) -> Verdict {
    for _ in 0..12_000 {
        let window = WINDOW + random.below(5) * STRIDE;
        let (known, any) = (random.below(0x40) * 4, random.below(STRIDE + 8));
        let at = window + random.of(&[known, known, any]);
        let width = random.of(&[1, 2, 4, 4, 4, 8]);
        if random.below(3) == 0 {
            read(at, width);
        } else {
            write_at(at, width, random.hostile());
        }
    }
    // One instruction over whole windows.
    movs(SCRATCH, WINDOW, 3 * STRIDE);
    movs(WINDOW, SCRATCH, 3 * STRIDE);
    magic()
}

/// Addresses where nothing is: behind RAM, between devices, far above.
pub fn nowhere(random: &mut Random) -> Verdict {
    for _ in 0..6_000 {
        let low = RAM_END + random.below(WINDOW - RAM_END);
        let gap = WINDOW + 0x1_0000 + random.below(0xfec0_0000 - WINDOW - 0x1_0000);
        let far = (4 << 30) + random.below(508 << 30);
        let at = random.of(&[low, gap, far]);
        let width = random.of(&[1, 2, 4, 8]);
        if random.below(2) == 0 {
            read(at, width);
        } else {
            write_at(at, width, random.hostile());
        }
    }
    // Over the end of RAM, with one access and with one instruction.
    read(RAM_END - 4, 8);
    write_at(RAM_END - 4, 8, u64::MAX);
    movs(SCRATCH, RAM_END - 64, 128);
    movs(RAM_END - 64, SCRATCH, 128);
    movs(SCRATCH + SCRATCH_LEN, 4 << 30, 4096);
    magic()
}

/// One address in each 2 MiB of 508 GiB, for each of which KVM makes a page table.
pub fn tables(_: &mut Random) -> Verdict {
    for at in (4 << 30..512 << 30).step_by(2 << 20) {
        read(at, 4);
    }
    Ok(())
}

/// Whether the devices still say what they are.
fn magic() -> Verdict {
    let are = (0..3).all(|device| read(WINDOW + device * STRIDE, 4) == 0x7472_6976);
    if are { Ok(()) } else { Err(()) }
}
