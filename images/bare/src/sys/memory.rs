//! Anonymous memory.

use core::ops::{Deref, DerefMut};

use super::{Errno, call};

/// Private zeroed pages; given back when dropped.
#[derive(Debug)]
pub struct Pages {
    at: usize,
    len: usize,
}

impl Pages {
    /// Maps `len` bytes; no page is there before it is touched.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn map(len: usize) -> Result<Self, Errno> {
        const READ_WRITE: i32 = 3;
        const PRIVATE_ANONYMOUS_NORESERVE: i32 = 0x4022;
        call!(9, 0, len, READ_WRITE, PRIVATE_ANONYMOUS_NORESERVE, -1, 0).map(|at| Self { at, len })
    }

    /// Gives the pages back but keeps the addresses: the next touch finds zeros again.
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
        // SAFETY: the kernel mapped `len` zeroed bytes here for this value alone, until it is dropped.
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
