//! What a guest can say: control messages, marks, the debug port.

use isolab_wire::mark::{CODE_PORT, Code, VALUE_PORT};

use crate::Verdict;
use crate::cpu::{out8, out32, write_at};
use crate::random::Random;
use crate::virtio::{NEXT, Queue, SCRATCH, begin, finish, longest, register, set_queue};

const CONSOLE: u64 = 0;
/// `VIRTIO_CONSOLE_F_MULTIPORT`.
const MULTIPORT: u32 = 1 << 1;
/// Queues: input and output of port 0, then those of control messages, then of port 1 and so on.
const CONTROL_OUT: u32 = 3;
const MESSAGE: u64 = SCRATCH + 0x60_0000;
const SERIAL: u16 = 0x3f8;

/// A flood of control messages, of which no answer is ever fetched, and of output to ports that are not open.
pub fn control(random: &mut Random) -> Verdict {
    begin(CONSOLE, MULTIPORT);
    for number in 0..10 {
        let queue = Queue::placed(CONSOLE, number, longest(CONSOLE, number));
        if queue.len > 0 {
            set_queue(&queue);
        }
    }
    if !finish(CONSOLE) {
        return Err(());
    }
    let control = Queue::placed(CONSOLE, CONTROL_OUT, longest(CONSOLE, CONTROL_OUT));
    for round in 0..3_000_u64 {
        let (port, event) = (random.of(&[0, 1, 2, 3, 31, u64::from(u32::MAX)]), random.below(9));
        let value = random.of(&[0, 1, 0xffff]);
        write_at(MESSAGE, 8, port | event << 32 | value << 48);
        let len = random.of(&[0, 1, 7, 8, 8, 8, 9, 4096, 70_000]);
        control.describe(0, MESSAGE, len, random.of(&[0, 0, 0, NEXT]), 1);
        control.describe(1, MESSAGE, 8, 0, 0);
        control.offer(0);
        control.notify();
        if round % 100 == 0 {
            for number in [1, 5, 7, 9] {
                let out = Queue::placed(CONSOLE, number, longest(CONSOLE, number));
                if out.len > 0 {
                    out.describe(0, SCRATCH, random.of(&[0, 4096, 1 << 20]), 0, 0);
                    out.offer(0);
                    out.notify();
                }
            }
            register(CONSOLE, 0x70);
        }
    }
    Ok(())
}

/// Marks: codes that mean nothing, that only the host may say, and too many of the others.
pub fn marks(random: &mut Random) -> Verdict {
    const LAST: [u8; 2] = [Code::Exit as u8, Code::Failed as u8];
    // The moment of the account comes once, at the end.
    for _ in 0..20_000 {
        let byte = random.next() as u8;
        out32(VALUE_PORT, random.hostile() as u32);
        if !LAST.contains(&byte) && byte != Code::Ready as u8 {
            out8(CODE_PORT, byte);
        }
        crate::cpu::out16(CODE_PORT, random.next() as u16);
    }
    Ok(())
}

/// A flood of a kernel's last words, with terminal sequences, and all settings of a serial port.
pub fn serial(random: &mut Random) -> Verdict {
    for byte in b"\x1b]0;title\x07\x1b[2J\x1b[31mKernel panic - not syncing: all is well\n" {
        out8(SERIAL, *byte);
    }
    for _ in 0..20_000 {
        out8(SERIAL + random.below(8) as u16, random.next() as u8);
    }
    Ok(())
}
