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
/// What a stock kernel takes at least besides its image: page tables, `struct page`s, per-CPU areas, its caches.
const RUNNING: u64 = 24 * MIB;

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
    // The kernel unpacks it before it frees it, so it is there twice.
    let bytes = kernel.memory_end.saturating_add(initramfs_bytes.saturating_mul(2)).saturating_add(RUNNING);
    bytes.div_ceil(MIB).saturating_mul(MIB)
}

/// The place for an initramfs: as high as the kernel can reach, so that it is out of the unpacker's way.
pub(crate) fn place(kernel: &KernelInfo, memory_bytes: u64, size: u64) -> Result<Placed, InitramfsError> {
    let needed = needed(kernel, size);
    let too_small = || InitramfsError::Memory { has: memory_bytes, needed };
    if memory_bytes < needed {
        return Err(too_small());
    }
    let top = memory_bytes.min(layout::GAP.start).min(kernel.initramfs_max.saturating_add(1));
    let start = top.checked_sub(size).map(|start| start & !(PAGE - 1)).ok_or_else(too_small)?;
    if start < kernel.memory_end {
        return Err(too_small());
    }
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
