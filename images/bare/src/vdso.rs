//! The clock function that the kernel maps into every program (vDSO), found by reading the mapped ELF image.

use core::ffi::{CStr, c_char};

use crate::start::Start;
use crate::sys;

/// Reads `CLOCK_MONOTONIC`: by the mapped function, else by the system call.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Option<extern "C" fn(i32, &mut [i64; 2]) -> i32>);

impl Clock {
    /// Looks for the mapped function.
    #[must_use]
    pub fn find(start: &Start) -> Self {
        const SYSINFO_EHDR: usize = 33;
        let base = start.auxiliary(SYSINFO_EHDR).filter(|b| *b != 0);
        let function = base.and_then(|b| Image { base: b }.function(c"__vdso_clock_gettime"));
        // SAFETY: the kernel's own image gives this name to a function of exactly this C signature.
        Self(
            function.map(|at| unsafe {
                core::mem::transmute::<usize, extern "C" fn(i32, &mut [i64; 2]) -> i32>(at)
            }),
        )
    }

    /// Whether the mapped function is used.
    #[must_use]
    pub const fn is_mapped(&self) -> bool {
        self.0.is_some()
    }

    /// The time in nanoseconds.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        const MONOTONIC: i32 = 1;
        let Some(read) = self.0 else { return sys::clock::monotonic_ns() };
        let mut time = [0; 2];
        read(MONOTONIC, &mut time);
        time[0].unsigned_abs().wrapping_mul(1_000_000_000).wrapping_add(time[1].unsigned_abs())
    }
}

/// The mapped image. The kernel made it, so its offsets are right by construction.
struct Image {
    base: usize,
}

impl Image {
    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: callers read fields of the ELF structures that the kernel mapped, all inside the image.
        unsafe { ((self.base + offset) as *const T).read_unaligned() }
    }

    /// Address of a function by its name in the dynamic symbol table.
    fn function(&self, name: &CStr) -> Option<usize> {
        const DYNAMIC: u32 = 2;
        let (headers, count) = (self.read::<u64>(32) as usize, usize::from(self.read::<u16>(56)));
        let dynamic = (0..count).map(|i| headers + i * 56).find(|h| self.read::<u32>(*h) == DYNAMIC)?;
        let entries = self.read::<u64>(dynamic + 8) as usize;
        let value = |tag: u64| {
            let mut pairs = (0..).map(|i| entries + i * 16).take_while(|e| self.read::<u64>(*e) != 0);
            pairs.find(|e| self.read::<u64>(*e) == tag).map(|e| self.read::<u64>(e + 8) as usize)
        };
        // DT_STRTAB, DT_SYMTAB; the string table follows the symbols in every vDSO, so their space gives their number.
        let (strings, symbols) = (value(5)?, value(6)?);
        let n = strings.checked_sub(symbols)? / 24;
        (0..n).map(|i| symbols + i * 24).find_map(|symbol| {
            let at = (self.base + strings + self.read::<u32>(symbol) as usize) as *const c_char;
            // SAFETY: a symbol's name is a string of the image's own table.
            let found = unsafe { CStr::from_ptr(at) } == name;
            let address = self.read::<u64>(symbol + 8) as usize;
            (found && address != 0).then_some(self.base + address)
        })
    }
}
