//! The initramfs: where it goes, and whether everything fits.

use std::fs::File;
use std::io;

use vm_memory::{Bytes, GuestAddress};

use crate::boot::kernel::KernelInfo;
use crate::layout;
use crate::memory::GuestRam;
use crate::sys::FileAt;

/// Where the initramfs comes from.
#[derive(Debug)]
pub enum Initramfs {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A file, read from its start.
    File(File),
}

/// The initramfs can't be placed or read.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// Reading failed.
    #[error("read initramfs")]
    Read(#[source] io::Error),
    /// Kernel, initramfs and what the kernel needs to start are more than the guest's memory.
    #[error("guest memory of {} MiB is too small for this kernel: at least {} MiB are needed", .has >> 20, .needed >> 20)]
    Memory {
        /// Bytes of guest memory.
        has: u64,
        /// The least that works.
        needed: u64,
    },
    /// Copying to guest memory failed.
    #[error("load initramfs into guest memory: {0}")]
    Load(String),
}

/// Where the loaded initramfs lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) start: u32,
    pub(crate) size: u32,
}

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

impl Initramfs {
    pub(crate) fn len(&self) -> Result<u64, InitramfsError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => Ok(file.metadata().map_err(InitramfsError::Read)?.len()),
        }
    }
}

/// Least memory for this kernel with an initramfs of this size, in whole MiB.
pub(crate) fn needed(kernel: &KernelInfo, initramfs_bytes: u64) -> u64 {
    let size = initramfs_bytes.next_multiple_of(PAGE);
    // Besides its image a kernel needs its tables (about 1/64 of memory) and twice the initramfs (packed and
    // unpacked); an unpacked kernel leaves the memory below it free for that, a bzImage does not.
    let above = if kernel.free_below() >= size.saturating_mul(2) { 0 } else { size.saturating_mul(2) };
    kernel.memory_end.saturating_add(above).div_ceil(MIB).saturating_mul(MIB)
}

/// The place for an initramfs: as high as the kernel can reach, out of an unpacker's way; in a small guest, below
/// the kernel.
pub(crate) fn place(kernel: &KernelInfo, memory_bytes: u64, size: u64) -> Result<Placed, InitramfsError> {
    let needed = needed(kernel, size);
    let too_small = || InitramfsError::Memory { has: memory_bytes, needed };
    if memory_bytes < needed {
        return Err(too_small());
    }
    let top = memory_bytes.min(layout::GAP.start).min(kernel.initramfs_max.saturating_add(1));
    let below = |end: u64, first: u64| {
        let start = end.checked_sub(size)? & !(PAGE - 1);
        (start >= first).then_some(start)
    };
    let start = below(top, kernel.memory_end)
        .or_else(|| below(layout::HIGH_MEMORY + kernel.free_below(), layout::HIGH_MEMORY))
        .ok_or_else(too_small)?;
    match (u32::try_from(start), u32::try_from(size)) {
        (Ok(start), Ok(size)) => Ok(Placed { start, size }),
        _ => Err(too_small()),
    }
}

/// Copies it to its place.
pub(crate) fn load(ram: &GuestRam, source: &Initramfs, placed: Placed) -> Result<(), InitramfsError> {
    let at = GuestAddress(u64::from(placed.start));
    let size = placed.size as usize;
    let done = match source {
        Initramfs::Bytes(bytes) => ram.write_slice(bytes, at),
        Initramfs::File(file) => {
            ram.read_exact_volatile_from(at, &mut FileAt::new(file, 0, u64::from(placed.size)), size)
        }
    };
    done.map_err(|e| InitramfsError::Load(e.to_string()))
}
