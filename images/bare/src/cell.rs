//! Static buffers of a program with one thread.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A static that is handed out once, as a mutable reference for the rest of the program's life.
#[derive(Debug)]
pub struct Once<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `take` gives the only reference that ever exists to one caller.
unsafe impl<T: Send> Sync for Once<T> {}

impl<T> Once<T> {
    /// A value to be taken.
    pub const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The value; nothing the second time.
    #[allow(clippy::mut_from_ref)] // The swap below is what makes the reference the only one.
    pub fn take(&'static self) -> Option<&'static mut T> {
        if self.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: the pointer is valid for 'static, and the swap lets exactly one caller pass.
        Some(unsafe { &mut *self.value.get() })
    }
}
