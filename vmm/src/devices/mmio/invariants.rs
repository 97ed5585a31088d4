//! What holds for every device, whatever a guest does to its registers and to memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::*;
use crate::devices::balloon::Balloon;
use crate::devices::block::Block;
use crate::devices::console::{Console, Ends};
use crate::devices::driver::ram;
use crate::devices::rng::Rng;

pub(super) fn write(device: &dyn Mmio, at: u64, value: u32) {
    device.write(at, &value.to_le_bytes());
}

pub(super) fn read(device: &dyn Mmio, at: u64) -> u32 {
    let mut bytes = [0; 4];
    device.read(at, &mut bytes);
    u32::from_le_bytes(bytes)
}

/// Brings a device up to the setting of its queue.
pub(super) fn negotiate(device: &dyn Mmio) {
    for (at, value) in [(0x70, 0), (0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11)] {
        write(device, at, value);
    }
}

pub(super) fn set_queue(device: &dyn Mmio, descriptors: u64, available: u64, used: u64) {
    for (at, value) in [(0x80, descriptors), (0x90, available), (0xa0, used)] {
        write(device, at, u32::try_from(value & 0xffff_ffff).expect("32 bits"));
        write(device, at + 4, u32::try_from(value >> 32).expect("32 bits"));
    }
    write(device, 0x38, 8);
    write(device, 0x44, 1);
}

/// Accesses (offset, value, width) to one of the four devices, over any memory from `0x1000` on: each ends, and afterwards a good
/// driver can begin anew. The image of the block device stays what it was.
pub fn machine_stays_alive(which: u8, start: bool, accesses: &[(u16, u32, u8)], memory: &[u8]) {
    let ram = ram();
    ram.write_slice(&memory[..memory.len().min(0x2_0000)], GuestAddress(0x1000)).expect("in RAM");
    match which % 4 {
        0 => alive(&VirtioMmio::new(Rng, ram).expect("a device"), start, accesses),
        1 => alive(&VirtioMmio::new(Balloon, ram).expect("a device"), start, accesses),
        2 => {
            let image: File = memfd("image");
            image.write_all_at(&[7; 0x3000], 0).expect("write");
            let block = Block::open(image.try_clone().expect("another descriptor")).expect("an image");
            alive(&VirtioMmio::new(block, ram).expect("a device"), start, accesses);
            let mut after = [0; 0x3000];
            image.read_exact_at(&mut after, 0).expect("read");
            assert!(after == [7; 0x3000] && image.metadata().expect("metadata").len() == 0x3000);
        }
        _ => {
            let pipe = || io::pipe().expect("a pipe");
            let ((control, _), (stdin, _), (_far, stdout), (_err, stderr)) = (pipe(), pipe(), pipe(), pipe());
            let ends = Ends {
                control: control.into(),
                stdin: Some(stdin.into()),
                stdout: stdout.into(),
                stderr: stderr.into(),
            };
            alive(&VirtioMmio::new(Console::new(ends), ram).expect("a device"), start, accesses);
        }
    }
}

fn memfd(name: &str) -> File {
    rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).expect("a memory file").into()
}

fn alive<D: VirtioDevice>(device: &VirtioMmio<D>, start: bool, accesses: &[(u16, u32, u8)]) {
    if start {
        negotiate(device);
        set_queue(device, 0x1000, 0x1400, 0x1800);
        write(device, offset::STATUS, 15);
    }
    for &(at, value, width) in accesses {
        let (at, width) = (u64::from(at), usize::from(width).min(8));
        device.write(at, &u64::from(value).to_le_bytes()[..width]);
        device.read(at, &mut [0; 8][..width]);
        device.serve();
        let status = read(device, offset::STATUS);
        assert_eq!(status & !0xcf, 0, "a status that there is not");
    }
    negotiate(device);
    set_queue(device, 0x3_0000, 0x3_0400, 0x3_0800);
    write(device, offset::STATUS, 15);
    assert_eq!(read(device, offset::STATUS), 15, "a good driver can't begin anew");
}
