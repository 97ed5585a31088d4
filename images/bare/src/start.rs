//! The entry: time first, then the stack that the kernel made.

use core::ffi::CStr;

/// What the kernel gives a program: arguments and environment on the stack, and the time of the first instruction.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    stack: *const usize,
    /// The time stamp counter at the first instruction.
    pub tsc: u64,
}

impl Start {
    /// # Safety
    /// `stack` is the stack pointer as the kernel set it at `execve`: count, arguments, 0, environment, 0.
    #[must_use]
    pub const unsafe fn new(stack: *const usize, tsc: u64) -> Self {
        Self { stack, tsc }
    }

    fn word(&self, i: usize) -> usize {
        // SAFETY: callers stay between the count and the 0 that ends the environment; the kernel wrote those words.
        unsafe { self.stack.wrapping_add(i).read() }
    }

    fn string(&self, i: usize) -> Option<&'static CStr> {
        let at = self.word(i) as *const core::ffi::c_char;
        // SAFETY: a word that is not 0 points to a string with its NUL, which lies above the stack for good.
        (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) })
    }

    /// How many arguments, the program's name included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.word(0)
    }

    /// An argument; 0 is the program's name.
    #[must_use]
    pub fn arg(&self, i: usize) -> Option<&'static CStr> {
        if i < self.count() { self.string(1 + i) } else { None }
    }

    /// The environment.
    pub fn env(&self) -> impl Iterator<Item = &'static CStr> + '_ {
        let first = self.count() + 2;
        (first..).map_while(|i| self.string(i))
    }

    /// The value of an environment variable.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&'static [u8]> {
        self.env().find_map(|e| e.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// An entry of the auxiliary vector, which follows the environment: pairs of type and value, ended by type 0.
    #[must_use]
    pub fn auxiliary(&self, kind: usize) -> Option<usize> {
        let first = self.count() + 2 + self.env().count() + 1;
        (0..)
            .map(|i| first + 2 * i)
            .take_while(|i| self.word(*i) != 0)
            .find(|i| self.word(*i) == kind)
            .map(|i| self.word(i + 1))
    }

    /// The environment's words as `execve` takes them.
    #[must_use]
    pub fn env_words(&self) -> *const usize {
        self.stack.wrapping_add(self.count() + 2)
    }
}

/// Makes a function `fn(Start) -> !` the program's entry.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Takes the time, then calls main with the kernel's stack pointer; the frame chain ends here.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        extern "C" fn _start() -> ! {
            core::arch::naked_asm!(
                "rdtsc", "shl rdx, 32", "or rax, rdx", "xor ebp, ebp", "mov rdi, rsp", "mov rsi, rax",
                "and rsp, -16", "call {}", "ud2", sym begin)
        }

        extern "C" fn begin(stack: *const usize, tsc: u64) -> ! {
            // SAFETY: `_start` passes the stack pointer that it was entered with.
            $main(unsafe { $crate::start::Start::new(stack, tsc) })
        }
    };
}

/// A bug of ours: nothing can be printed for sure, so the number says it.
#[cfg(feature = "process")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    crate::sys::process::exit(254)
}
