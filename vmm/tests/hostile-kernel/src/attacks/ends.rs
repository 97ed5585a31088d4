//! Ends that are none, and ends without a result.

use isolab_wire::mark::{Code, VALUE_PORT};

use crate::Verdict;
use crate::cpu;
use crate::random::Random;
use crate::virtio::{WINDOW, running, set_register};

/// Sleeps with interrupts off.
pub fn halt(_: &mut Random) -> Verdict {
    cpu::halt()
}

/// Computes for ever.
pub fn spin(_: &mut Random) -> Verdict {
    cpu::spin()
}

/// Rings for ever.
pub fn notify_on(_: &mut Random) -> Verdict {
    running(1, 0);
    loop {
        set_register(1, 0x50, 0);
    }
}

/// An exception without handlers.
pub fn triple_fault(_: &mut Random) -> Verdict {
    cpu::load_idt(0, 0);
    cpu::undefined()
}

/// The keyboard controller's reset.
pub fn reset(_: &mut Random) -> Verdict {
    cpu::out8(0x64, 0xfe);
    cpu::halt()
}

/// The power switch.
pub fn off(_: &mut Random) -> Verdict {
    cpu::out8(0x600, 1 << 5);
    cpu::halt()
}

/// Runs what a device's registers hold.
pub fn device_code(_: &mut Random) -> Verdict {
    cpu::load_idt(0, 0);
    cpu::jump(WINDOW)
}

/// Says that a step failed which there is not, for a reason that is none.
pub fn failed(_: &mut Random) -> Verdict {
    cpu::out32(VALUE_PORT, u32::MAX);
    cpu::out8(isolab_wire::mark::CODE_PORT, Code::Failed as u8);
    cpu::halt()
}
