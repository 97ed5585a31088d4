//! Kernel files: what they are, whether they are whole, and how they get into guest memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{ByteValued, GuestAddress};

use crate::boot::large;
use crate::boot::sparse::SparseReader;
use crate::layout;
use crate::memory::GuestRam;
use crate::sys::FileAt;

/// Kernel file formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFormat {
    /// The distribution's compressed `vmlinuz`.
    BzImage,
    /// An ELF `vmlinux`.
    Elf,
}

/// What a kernel file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Its format.
    pub format: KernelFormat,
    /// Its version text; empty where the file has none in a known place.
    pub version: String,
    /// First guest physical address after everything that the kernel needs to start.
    pub memory_end: u64,
    /// First address that it needs.
    pub(crate) memory_start: u64,
    /// Where the first CPU starts.
    pub(crate) entry: u64,
    /// Highest address for the initramfs.
    pub(crate) initramfs_max: u64,
    /// What is loaded of an ELF file.
    pub(crate) segments: Vec<Segment>,
}

impl KernelInfo {
    /// Bytes between the first MiB and the kernel.
    pub(crate) const fn free_below(&self) -> u64 {
        self.memory_start.saturating_sub(layout::HIGH_MEMORY)
    }
}

/// Why a file can't be started as a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Reading failed.
    #[error("read kernel file")]
    Read(#[source] io::Error),
    /// Neither format.
    #[error("not a kernel: neither a bzImage nor an ELF file for x86-64")]
    Format,
    /// The file ends before what its header promises.
    #[error("kernel file is cut short: it has {has} bytes and its header promises {promised}")]
    Truncated {
        /// Bytes of the file.
        has: u64,
        /// Bytes that it should have.
        promised: u64,
    },
    /// A kernel, but not one that this machine can start.
    #[error("kernel can't be started: {0}")]
    Unsupported(&'static str),
    /// A segment lies where it can't.
    #[error("kernel places a segment at {start:#x} of {size} bytes, outside memory that is free for it")]
    Place {
        /// First address.
        start: u64,
        /// Bytes.
        size: u64,
    },
    /// Copying to guest memory failed.
    #[error("load kernel into guest memory: {0}")]
    Load(String),
}

const SETUP_HEADER: u64 = 0x1f1;
const SECTOR: u64 = 512;
/// `XLF_KERNEL_64`: the image has a 64-bit entry at 0x200.
const XLF_KERNEL_64: u16 = 1;
const ENTRY_64: u64 = 0x200;
/// A header that asks for more than this to start is not believed.
const MAX_MEMORY_END: u64 = 1 << 31;
const MAX_VERSION: usize = 256;

/// Checks a kernel file without loading it.
///
/// # Errors
/// [`KernelError`] for a file that is not a kernel, is cut short or can't be started here.
pub fn check_kernel(file: &File) -> Result<KernelInfo, KernelError> {
    let len = file.metadata().map_err(KernelError::Read)?.len();
    let mut magic = [0; 4];
    let n = file.read_at(&mut magic, 0).map_err(KernelError::Read)?;
    if n == 4 && magic == *b"\x7fELF" { check_elf(file, len) } else { check_bzimage(file, len) }
}

fn read_exact(file: &File, buf: &mut [u8], at: u64, len: u64) -> Result<(), KernelError> {
    let promised = at.saturating_add(buf.len() as u64);
    if promised > len {
        return Err(KernelError::Truncated { has: len, promised });
    }
    file.read_exact_at(buf, at).map_err(KernelError::Read)
}

/// The setup header of a bzImage, or nothing for another file.
fn setup_header_of(file: &File, len: u64) -> Result<setup_header, KernelError> {
    let mut header = setup_header::default();
    match read_exact(file, header.as_mut_slice(), SETUP_HEADER, len) {
        Err(KernelError::Truncated { .. }) => return Err(KernelError::Format),
        other => other?,
    }
    if header.header != u32::from_le_bytes(*b"HdrS") || header.boot_flag != 0xaa55 {
        return Err(KernelError::Format);
    }
    Ok(header)
}

fn check_bzimage(file: &File, len: u64) -> Result<KernelInfo, KernelError> {
    let header = setup_header_of(file, len)?;
    if header.version < 0x020c || header.loadflags & 1 == 0 || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(KernelError::Unsupported("it has no 64-bit entry (boot protocol 2.12)"));
    }
    if header.relocatable_kernel == 0 {
        return Err(KernelError::Unsupported("it is not relocatable"));
    }
    let setup = setup_bytes(&header);
    let code = u64::from(header.syssize) * 16;
    if code <= ENTRY_64 {
        return Err(KernelError::Unsupported("its code ends before its 64-bit entry"));
    }
    let promised = (setup + code).max(signature_end(file, len, setup)?);
    if len < promised {
        return Err(KernelError::Truncated { has: len, promised });
    }
    // The unpacker moves the kernel to its preferred address or above and needs `init_size` bytes from there.
    let start = header.pref_address.max(layout::HIGH_MEMORY);
    let memory_end = start.saturating_add(u64::from(header.init_size)).max(layout::HIGH_MEMORY + len - setup);
    if memory_end > MAX_MEMORY_END {
        return Err(KernelError::Place { start, size: u64::from(header.init_size) });
    }
    Ok(KernelInfo {
        format: KernelFormat::BzImage,
        version: bzimage_version(file, &header, len)?,
        memory_end,
        memory_start: layout::HIGH_MEMORY,
        entry: layout::HIGH_MEMORY + ENTRY_64,
        initramfs_max: u64::from(header.initrd_addr_max),
        segments: Vec::new(),
    })
}

fn setup_bytes(header: &setup_header) -> u64 {
    // Zero means four, for kernels older than anybody remembers.
    let sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    (sectors + 1) * SECTOR
}

/// End of the signature that a signed image carries after its code (the PE certificate table), or 0.
fn signature_end(file: &File, len: u64, setup: u64) -> Result<u64, KernelError> {
    const CERTIFICATE_ENTRY: u64 = 24 + 112 + 4 * 8;
    let mut pe_at = [0; 4];
    read_exact(file, &mut pe_at, 0x3c, len)?;
    let pe_at = u64::from(u32::from_le_bytes(pe_at));
    if pe_at < 0x40 || pe_at + CERTIFICATE_ENTRY + 8 > setup {
        return Ok(0);
    }
    let mut signature = [0; 4];
    let mut entry = [0; 8];
    read_exact(file, &mut signature, pe_at, len)?;
    read_exact(file, &mut entry, pe_at + CERTIFICATE_ENTRY, len)?;
    let [o0, o1, o2, o3, s0, s1, s2, s3] = entry;
    let offset = u64::from(u32::from_le_bytes([o0, o1, o2, o3]));
    let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
    Ok(if signature == *b"PE\0\0" && size > 0 { offset + size } else { 0 })
}

fn bzimage_version(file: &File, header: &setup_header, len: u64) -> Result<String, KernelError> {
    if header.kernel_version == 0 {
        return Ok(String::new());
    }
    let at = u64::from(header.kernel_version) + SECTOR;
    let mut text = [0; MAX_VERSION];
    let room = len.saturating_sub(at).min(MAX_VERSION as u64);
    let text = &mut text[..usize::try_from(room).unwrap_or(0)];
    read_exact(file, text, at, len)?;
    let end = text.iter().position(|b| !(0x20..0x7f).contains(b)).unwrap_or(text.len());
    Ok(String::from_utf8_lossy(&text[..end]).into_owned())
}

/// The fields of a program header that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) place: u64,
    pub(crate) file_bytes: u64,
    pub(crate) memory_bytes: u64,
    /// The kernel writes there: variables, not code.
    pub(crate) writable: bool,
}

fn check_elf(file: &File, len: u64) -> Result<KernelInfo, KernelError> {
    let mut head = [0; 64];
    read_exact(file, &mut head, 0, len)?;
    // 64 bits, little endian, an executable or shared object for x86-64.
    if head[4..6] != [2, 1] || !matches!(head[16..20], [2 | 3, 0, 0x3e, 0]) {
        return Err(KernelError::Format);
    }
    let entry = u64_at(&head, 24);
    let sections_end =
        u64_at(&head, 40).saturating_add(u64::from(u16_at(&head, 58)) * u64::from(u16_at(&head, 60)));
    if len < sections_end {
        return Err(KernelError::Truncated { has: len, promised: sections_end });
    }
    let (mut memory_start, mut memory_end) = (u64::MAX, 0);
    let mut holds_entry = false;
    let segments = load_segments(file, &head, len)?;
    for segment in &segments {
        let end = segment.place.saturating_add(segment.memory_bytes);
        if segment.place < layout::HIGH_MEMORY
            || end > MAX_MEMORY_END
            || segment.file_bytes > segment.memory_bytes
        {
            return Err(KernelError::Place { start: segment.place, size: segment.memory_bytes });
        }
        let promised = segment.offset.saturating_add(segment.file_bytes);
        if promised > len {
            return Err(KernelError::Truncated { has: len, promised });
        }
        holds_entry |= (segment.place..end).contains(&entry);
        memory_start = memory_start.min(segment.place);
        memory_end = memory_end.max(end);
    }
    if let Some(second) = overlapping(&segments) {
        return Err(KernelError::Place { start: second.place, size: second.memory_bytes });
    }
    if !holds_entry {
        return Err(KernelError::Unsupported("its entry is not in a loaded segment at its physical address"));
    }
    let max = MAX_MEMORY_END - 1;
    Ok(KernelInfo {
        format: KernelFormat::Elf,
        version: String::new(),
        memory_end,
        memory_start,
        entry,
        initramfs_max: max,
        segments,
    })
}

/// The first segment in memory that begins before the one below it ends.
fn overlapping(segments: &[Segment]) -> Option<&Segment> {
    let mut sorted: Vec<&Segment> = segments.iter().filter(|segment| segment.memory_bytes > 0).collect();
    sorted.sort_unstable_by_key(|segment| segment.place);
    let pair =
        sorted.windows(2).find(|pair| pair[0].place.saturating_add(pair[0].memory_bytes) > pair[1].place);
    pair.map(|pair| pair[1])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn load_segments(file: &File, head: &[u8; 64], len: u64) -> Result<Vec<Segment>, KernelError> {
    const ENTRY_BYTES: usize = 56;
    const MAX_SEGMENTS: u16 = 64;
    const PF_W: u8 = 2;
    let (table, entry_bytes, count) = (u64_at(head, 32), u16_at(head, 54), u16_at(head, 56));
    if usize::from(entry_bytes) != ENTRY_BYTES || count > MAX_SEGMENTS {
        return Err(KernelError::Unsupported("its program headers have an unknown size or number"));
    }
    let mut bytes = vec![0; ENTRY_BYTES * usize::from(count)];
    read_exact(file, &mut bytes, table, len)?;
    let segments = bytes.chunks_exact(ENTRY_BYTES).filter(|h| h[..4] == [1, 0, 0, 0]);
    Ok(segments
        .map(|h| Segment {
            offset: u64_at(h, 8),
            place: u64_at(h, 24),
            file_bytes: u64_at(h, 32),
            memory_bytes: u64_at(h, 40),
            writable: h[4] & PF_W != 0,
        })
        .collect())
}

/// Copies a checked kernel into guest memory and returns its setup header where it has one.
pub(crate) fn load(
    ram: &GuestRam,
    file: &File,
    info: &KernelInfo,
) -> Result<Option<setup_header>, KernelError> {
    large::prefer(ram, file, info)?;
    let len = file.metadata().map_err(KernelError::Read)?.len();
    let mut reader = SparseReader::new(FileAt::new(file, 0, len));
    let high = Some(GuestAddress(layout::HIGH_MEMORY));
    let loaded = match info.format {
        KernelFormat::BzImage => BzImage::load(ram, Some(GuestAddress(info.memory_start)), &mut reader, high),
        KernelFormat::Elf => Elf::load(ram, None, &mut reader, high),
    };
    Ok(loaded.map_err(|e| KernelError::Load(e.to_string()))?.setup_header)
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
#[cfg(test)]
mod tests;
