//! Linux system calls of x86-64 with safe signatures: [`io`], [`fs`], [`mount`], [`process`],
//! [`tty`], [`memory`], [`futex`], [`clock`], [`net`].
//!
//! One macro, `call!`, holds the unsafe block. Its arguments are integers or are made from references that live
//! until the call returns (`Word`); each wrapper passes the length of the very slice it passes.

use core::arch::asm;
use core::ffi::CStr;

pub mod clock;
pub mod fs;
pub mod futex;
pub mod io;
pub mod memory;
pub mod mount;
pub mod net;
pub mod process;
pub mod tty;

/// A file descriptor. Copied freely: the programs close what they must not keep, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd(pub i32);

/// The current directory, where a call takes a directory.
pub const CWD: Fd = Fd(-100);

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u16);

#[allow(missing_docs)]
impl Errno {
    pub const PERM: Self = Self(1);
    pub const NOENT: Self = Self(2);
    pub const INTR: Self = Self(4);
    pub const IO: Self = Self(5);
    pub const NXIO: Self = Self(6);
    pub const AGAIN: Self = Self(11);
    pub const ACCES: Self = Self(13);
    pub const EXIST: Self = Self(17);
    pub const NODEV: Self = Self(19);
    pub const NOTDIR: Self = Self(20);
    pub const INVAL: Self = Self(22);
    pub const PIPE: Self = Self(32);
    pub const NAMETOOLONG: Self = Self(36);
    pub const NOSYS: Self = Self(38);
    pub const PROTO: Self = Self(71);
}

/// An argument of a system call.
trait Word {
    fn word(self) -> usize;
}

impl Word for usize {
    fn word(self) -> usize {
        self
    }
}

impl Word for i32 {
    fn word(self) -> usize {
        self as isize as usize
    }
}

impl Word for u32 {
    fn word(self) -> usize {
        self as usize
    }
}

impl Word for u64 {
    fn word(self) -> usize {
        self as usize
    }
}

impl Word for Fd {
    fn word(self) -> usize {
        self.0.word()
    }
}

impl<T: ?Sized> Word for &T {
    fn word(self) -> usize {
        core::ptr::from_ref(self).cast::<u8>() as usize
    }
}

impl<T: ?Sized> Word for &mut T {
    fn word(self) -> usize {
        core::ptr::from_mut(self).cast::<u8>() as usize
    }
}

impl Word for Option<&CStr> {
    fn word(self) -> usize {
        self.map_or(0, |s| s.as_ptr() as usize)
    }
}

impl Word for *const usize {
    fn word(self) -> usize {
        self as usize
    }
}

/// # Safety
/// As the kernel documents for call `n`: pointers valid for what it reads and writes.
#[inline]
unsafe fn raw(n: usize, a: [usize; 6]) -> isize {
    let result;
    // SAFETY: the caller answers for the pointers; the kernel changes rcx, r11, rax and the memory they point to.
    unsafe {
        asm!("syscall", inlateout("rax") n => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

const fn check(result: isize) -> Result<usize, Errno> {
    if result < 0 { Err(Errno(result.unsigned_abs() as u16)) } else { Ok(result as usize) }
}

const fn pad<const N: usize>(words: [usize; N]) -> [usize; 6] {
    let mut out = [0; 6];
    let mut i = 0;
    while i < N {
        out[i] = words[i];
        i += 1;
    }
    out
}

/// Makes a call, again where a signal ended it.
fn again(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

macro_rules! call {
    ($n:expr $(, $arg:expr)* $(,)?) => {
        // A `match`, because values made in the argument list must live until the call has returned.
        match $crate::sys::pad([$( $crate::sys::Word::word($arg) ),*]) {
            // SAFETY: every pointer among the words comes from a reference that lives longer than the call, and
            // the wrapper passes the size of what it refers to where the kernel asks for one.
            words => $crate::sys::check(unsafe { $crate::sys::raw($n, words) }),
        }
    };
}
pub(crate) use call;

/// The time stamp counter.
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has it, and the kernel leaves it open to programs.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Writes a byte to a port. Without `ioperm` the program dies of SIGSEGV.
pub fn out8(port: u16, value: u8) {
    // SAFETY: a port write touches no memory of the program.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, nomem, preserves_flags)) }
}

/// Writes 32 bits to a port. Without `ioperm` the program dies of SIGSEGV.
pub fn out32(port: u16, value: u32) {
    // SAFETY: a port write touches no memory of the program.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, nomem, preserves_flags)) }
}
