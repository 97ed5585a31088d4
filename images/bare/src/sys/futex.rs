//! Words that processes and threads wait on.

use core::sync::atomic::{AtomicU32, Ordering};

use super::{Errno, Fd, call};

/// Words of a page that children made by `fork` share with their parent.
#[derive(Debug)]
pub struct SharedWords(&'static [AtomicU32; 2]);

impl SharedWords {
    /// Two words, both 0. The page stays mapped for the rest of the program's life.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn map() -> Result<Self, Errno> {
        const READ_WRITE: i32 = 3;
        const SHARED_ANONYMOUS: i32 = 0x21;
        let at = call!(9, 0, 4096, READ_WRITE, SHARED_ANONYMOUS, Fd(-1), 0)?;
        // SAFETY: the kernel mapped a zeroed page here that nothing unmaps; all accesses, those of other processes too,
        // go through atomics.
        Ok(Self(unsafe { &*(at as *const [AtomicU32; 2]) }))
    }

    /// Sets a word and wakes who waits for it.
    ///
    /// # Errors
    /// Never for a good pointer.
    pub fn post(&self, which: Word, value: u32) -> Result<(), Errno> {
        let word = &self.0[which as usize];
        word.store(value, Ordering::Release);
        wake(word)
    }

    /// Waits until a word has one of these values, and gives it.
    ///
    /// # Errors
    /// As `futex(2)`.
    pub fn await_value(&self, which: Word, values: &[u32]) -> Result<u32, Errno> {
        let word = &self.0[which as usize];
        loop {
            let now = word.load(Ordering::Acquire);
            if values.contains(&now) {
                return Ok(now);
            }
            wait_while(word, now)?;
        }
    }
}

/// One of the two words.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// The first.
    There = 0,
    /// The second.
    Back = 1,
}

/// Sleeps while a word has this value; a wake-up without reason is possible.
pub(super) fn wait_while(word: &AtomicU32, value: u32) -> Result<(), Errno> {
    const WAIT: i32 = 0;
    match call!(202, word, WAIT, value, 0_usize) {
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(e) => Err(e),
    }
}

fn wake(word: &AtomicU32) -> Result<(), Errno> {
    const WAKE: i32 = 1;
    call!(202, word, WAKE, 1).map(drop)
}
