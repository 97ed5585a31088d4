//! Kernel files: telling an ELF `vmlinux` and a `bzImage` from everything else, whole from cut short.

use std::io;

use object::LittleEndian;
use object::elf::{EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use serde::{Deserialize, Serialize};

use super::compressed::expand;

/// Largest kernel file, packed or unpacked.
pub(super) const MAX_KERNEL: u64 = 512 << 20;

/// The form of a kernel file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelFormat {
    /// An x86-64 ELF executable.
    Vmlinux,
    /// The boot protocol's compressed image.
    BzImage,
}

/// Why a file is not a kernel that isolab boots.
#[derive(Debug, thiserror::Error)]
pub enum KernelFormatError {
    /// Neither ELF nor bzImage.
    #[error("neither a vmlinux (x86-64 ELF) nor a bzImage")]
    Unknown,
    /// Shorter than its own headers say.
    #[error("cut short: {found} bytes of {wanted}")]
    Short {
        /// Bytes there.
        found: u64,
        /// Bytes that the headers speak of.
        wanted: u64,
    },
    /// ELF with headers that contradict each other.
    #[error("damaged ELF headers")]
    Elf(#[source] object::Error),
    /// ELF for another machine, or nothing to load in it.
    #[error("an ELF file, but not an executable x86-64 kernel")]
    NotExecutable,
    /// A bzImage without the 64-bit entry, or older than boot protocol 2.12.
    #[error("a bzImage without 64-bit entry (boot protocol {major}.{minor})")]
    OldProtocol {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The kernel inside a bzImage can't be unpacked.
    #[error("unpack the kernel inside the bzImage")]
    Payload(#[source] io::Error),
}

/// What a kernel file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KernelFile {
    pub(super) format: KernelFormat,
    /// Release string (`uname -r`), where the file tells it.
    pub(super) release: Option<String>,
}

/// Recognises a kernel and checks that all of it is there.
///
/// # Errors
/// Not a kernel, or not a whole one.
pub(super) fn inspect(bytes: &[u8]) -> Result<KernelFile, KernelFormatError> {
    if bytes.starts_with(b"\x7fELF") {
        check_elf(bytes)?;
        return Ok(KernelFile { format: KernelFormat::Vmlinux, release: banner_release(bytes) });
    }
    let header = BzHeader::read(bytes)?;
    Ok(KernelFile { format: KernelFormat::BzImage, release: header.release(bytes) })
}

/// The ELF kernel packed in a bzImage, or nothing where its compression is not one we read.
///
/// Booting this one saves the guest the unpacking, most of a stock kernel's way to user space.
///
/// # Errors
/// Not a bzImage, or a damaged payload.
pub(super) fn unpack(bytes: &[u8]) -> Result<Option<Vec<u8>>, KernelFormatError> {
    let header = BzHeader::read(bytes)?;
    let mut payload = bytes.get(header.payload.clone()).unwrap_or_default();
    if payload.starts_with(b"\xfd7zXZ") {
        // The build appends the unpacked size, four bytes that xz itself does not know.
        payload = payload.split_last_chunk::<4>().map_or(payload, |(head, _)| head);
    }
    let unpacked = expand(payload, MAX_KERNEL).map_err(KernelFormatError::Payload)?;
    if !unpacked.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    check_elf(&unpacked)?;
    Ok(Some(unpacked.into_owned()))
}

fn check_elf(bytes: &[u8]) -> Result<(), KernelFormatError> {
    let found = len(bytes);
    if found < 64 {
        return Err(KernelFormatError::Short { found, wanted: 64 });
    }
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(KernelFormatError::Elf)?;
    let e = LittleEndian;
    let executable = matches!(header.e_type(e), ET_EXEC | ET_DYN);
    if !executable || header.e_machine(e) != EM_X86_64 {
        return Err(KernelFormatError::NotExecutable);
    }
    let short = |wanted| KernelFormatError::Short { found, wanted };
    let table_end =
        |offset: u64, entry: u16, count: u64| offset.saturating_add(u64::from(entry).saturating_mul(count));
    let ph_end = table_end(header.e_phoff(e), header.e_phentsize(e), header.e_phnum(e).into());
    let sh_end = table_end(header.e_shoff(e), header.e_shentsize(e), header.e_shnum(e).into());
    let tables = ph_end.max(sh_end);
    if tables > found {
        return Err(short(tables));
    }
    let segments = header.program_headers(e, bytes).map_err(KernelFormatError::Elf)?;
    let sections = header.section_headers(e, bytes).map_err(KernelFormatError::Elf)?;
    let ends = segments.iter().map(|p| p.p_offset(e).saturating_add(p.p_filesz(e)));
    let section_ends = sections.iter().filter_map(|s| s.file_range(e));
    let wanted = ends.chain(section_ends.map(|(at, size)| at.saturating_add(size))).max().unwrap_or(0);
    if wanted > found {
        return Err(short(wanted));
    }
    let loads = segments.iter().any(|p| p.p_type(e) == PT_LOAD && p.p_filesz(e) > 0);
    if loads { Ok(()) } else { Err(KernelFormatError::NotExecutable) }
}

/// `Linux version RELEASE (` in the kernel's own data.
fn banner_release(bytes: &[u8]) -> Option<String> {
    let mark = b"Linux version ";
    let finder = bytes.windows(mark.len()).enumerate().filter(|(_, window)| window == mark);
    finder
        .map(|(at, _)| release_at(bytes, at + mark.len()))
        // The format string `Linux version %s` comes first in some kernels.
        .find(|release| release.as_ref().is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit())))
        .flatten()
}

/// The word at `at`: printable, at most 64 bytes.
fn release_at(bytes: &[u8], at: usize) -> Option<String> {
    let word: Vec<u8> = bytes.get(at..)?.iter().copied().take(65).take_while(u8::is_ascii_graphic).collect();
    (!word.is_empty() && word.len() <= 64).then(|| String::from_utf8(word).ok()).flatten()
}

/// The parts of the boot protocol's header that matter here (Documentation/arch/x86/boot.rst).
struct BzHeader {
    payload: std::ops::Range<usize>,
    release_at: Option<usize>,
}

impl BzHeader {
    fn read(bytes: &[u8]) -> Result<Self, KernelFormatError> {
        if bytes.get(0x202..0x206) != Some(b"HdrS") {
            return Err(KernelFormatError::Unknown);
        }
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let word = |at: usize| usize::from(u16::from_le_bytes([byte(at), byte(at + 1)]));
        let long = |at: usize| word(at) | word(at + 2) << 16;
        let (minor, major) = (byte(0x206), byte(0x207));
        // xloadflags (2.12): bit 0 says that the kernel has the 64-bit entry at 0x200.
        if (major, minor) < (2, 12) || byte(0x236) & 1 == 0 {
            return Err(KernelFormatError::OldProtocol { major, minor });
        }
        let setup_sectors = match byte(0x1f1) {
            0 => 4,
            n => usize::from(n),
        };
        let setup = (setup_sectors + 1) * 512;
        let end = setup + long(0x1f4) * 16;
        let wanted = end.max(signed_end(bytes));
        if wanted > bytes.len() {
            return Err(KernelFormatError::Short {
                found: len(bytes),
                wanted: u64::try_from(wanted).unwrap_or(u64::MAX),
            });
        }
        let start = setup.saturating_add(long(0x248));
        let stop = start.saturating_add(long(0x24c));
        if stop > bytes.len() {
            return Err(KernelFormatError::Short {
                found: len(bytes),
                wanted: u64::try_from(stop).unwrap_or(u64::MAX),
            });
        }
        let release_at = Some(word(0x20e)).filter(|&at| at != 0).map(|at| at + 0x200);
        Ok(Self { payload: start..stop, release_at })
    }

    fn release(&self, bytes: &[u8]) -> Option<String> {
        release_at(bytes, self.release_at?)
    }
}

/// End of the signature behind a signed kernel, which is also a PE file; zero where there is none.
fn signed_end(bytes: &[u8]) -> usize {
    let long = |at: usize| {
        let b = bytes.get(at..)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*b)).ok()
    };
    let certificate = || {
        if bytes.get(..2)? != b"MZ" {
            return None;
        }
        let pe = long(0x3c)?;
        // Signature and file header are 24 bytes; PE32+ has its data directories 112 bytes further, and the
        // certificate table is the fifth: file offset and size.
        if bytes.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
            return None;
        }
        let directory = pe + 24 + 112 + 4 * 8;
        long(directory)?.checked_add(long(directory + 4)?)
    };
    certificate().unwrap_or(0)
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
