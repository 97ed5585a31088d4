//! Mapped memory.

use core::ops::{Deref, DerefMut};

use super::{Errno, Fd, call};

/// RAM of the machine as the kernel tells it: all of it, and what is free, in KiB (`sysinfo(2)`).
#[must_use]
pub fn ram_kib() -> Option<[u32; 2]> {
    let mut words = [0_u64; 14];
    call!(99, &mut words).ok()?;
    // uptime, three loads, total, free, shared, buffers, total and free swap; then 32 bits at byte 104: the unit.
    let unit = words[13] & 0xffff_ffff;
    let kib = |n: u64| u32::try_from(n.saturating_mul(unit) >> 10).unwrap_or(u32::MAX);
    Some([kib(words[4]), kib(words[5])])
}

const READ_WRITE: i32 = 3;

/// Mapped pages; given back when dropped.
#[derive(Debug)]
pub struct Pages {
    at: usize,
    len: usize,
}

impl Pages {
    /// Maps `len` private zeroed bytes; no page is there before it is touched.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn map(len: usize) -> Result<Self, Errno> {
        const PRIVATE_ANONYMOUS_NORESERVE: i32 = 0x4022;
        call!(9, 0, len, READ_WRITE, PRIVATE_ANONYMOUS_NORESERVE, -1, 0).map(|at| Self { at, len })
    }

    /// Maps the first `len` bytes of a file of our own that nobody else changes or cuts.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub(super) fn map_shared(file: Fd, len: usize) -> Result<Self, Errno> {
        const SHARED: i32 = 1;
        call!(9, 0, len, READ_WRITE, SHARED, file, 0).map(|at| Self { at, len })
    }

    /// Each page by itself, never a huge one.
    #[must_use]
    pub fn small(self) -> Self {
        const NOHUGEPAGE: i32 = 15;
        // A kernel without huge pages refuses, and has only small ones.
        let _ = call!(28, self.at, self.len, NOHUGEPAGE);
        self
    }

    /// Gives the pages back but keeps the addresses: the next touch finds zeros, or the file's page again.
    ///
    /// # Errors
    /// As `madvise(2)`.
    pub fn forget(&mut self) -> Result<(), Errno> {
        const DONTNEED: i32 = 4;
        call!(28, self.at, self.len, DONTNEED).map(drop)
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel mapped `len` bytes here for this value alone, until it is dropped; a file below it is this
        // value's own as well.
        unsafe { core::slice::from_raw_parts(self.at as *const u8, self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.at as *mut u8, self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = call!(11, self.at, self.len);
    }
}

/// Pages of a file that lives in memory only: they are in the page cache before anything is mapped.
///
/// # Errors
/// As `memfd_create(2)`, `pwrite(2)` and `mmap(2)`.
pub fn file_pages(len: usize) -> Result<Pages, Errno> {
    const CLOEXEC: i32 = 1;
    let file = Fd(call!(319, c"isolab-work".to_bytes_with_nul(), CLOEXEC)? as i32);
    let made = (|| {
        let block = [1_u8; 4096];
        for at in (0..len).step_by(block.len()) {
            super::io::write_at(file, &block, at as u64)?;
        }
        Pages::map_shared(file, len)
    })();
    super::io::close(file);
    made
}
