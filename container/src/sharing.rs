//! A child that shares the launcher's memory until it executes another program, as `vfork` has it, but with the launcher
//! running on: nothing is copied, and both prepare the start at the same time.
//!
//! What makes that sound: the child has a stack of its own; what it reads lives in [`Lent`], which is freed only after the
//! child has ended; it makes system calls and touches neither allocator nor thread-local storage (`sys`; dropping a descriptor
//! is libc's `close`, which writes `errno` only where it fails, and these are open); signal handlers never run in it, because it
//! starts with all signals blocked. It must not panic: the hook would allocate here.
//!
//! What it shares otherwise: the kernel's killer for memory takes every process of a memory with it, so what kills the child
//! before it executes its program also ends the launcher (the least limit, 4 MiB, leaves room for that much); and
//! `oom_score_adj`, were it written in the child, would be the launcher's, too.
#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use syscalls::{Sysno, syscall};

use crate::sys::{clone_args, exit_now, number};

/// Bytes of the child's stack; what it does not touch costs nothing.
const STACK: usize = 1 << 18;
/// Below the stack, not accessible: an overflow ends the child.
const GUARD: usize = 4096;

/// What the child runs: it gives the status with which the child ends if it executes nothing.
pub(crate) type Body = dyn Fn() -> i32 + Send + Sync;

/// What a child uses of our memory. Dropped, it stays allocated: only who knows that the child has ended frees it.
pub(crate) struct Lent {
    body: ManuallyDrop<Box<Box<Body>>>,
    /// Address of the guard page; the stack is above it.
    guard: usize,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

impl Lent {
    /// With a new stack.
    pub(crate) fn new(body: Box<Body>) -> Result<Self, Errno> {
        let (access, flags) = (ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::STACK);
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let guard = unsafe { mmap_anonymous(std::ptr::null_mut(), GUARD + STACK, access, flags) }?;
        // A `Box<dyn ..>` is two words; the child is told the address of one place.
        let lent = Self { body: ManuallyDrop::new(Box::new(body)), guard: guard.expose_provenance() };
        // SAFETY: the range lies within the mapping just made, to which nothing refers.
        match unsafe { mprotect(lent.stack(), STACK, MprotectFlags::READ | MprotectFlags::WRITE) } {
            Ok(()) => Ok(lent),
            Err(errno) => {
                lent.free();
                Err(errno)
            }
        }
    }

    fn stack(&self) -> *mut core::ffi::c_void {
        std::ptr::with_exposed_provenance_mut(self.guard + GUARD)
    }

    /// Frees it. The child has ended or has executed another program.
    pub(crate) fn free(mut self) {
        // SAFETY: `self` is consumed, so nothing uses the body after this; the child is gone.
        unsafe { ManuallyDrop::drop(&mut self.body) };
        // SAFETY: the mapping is ours, and the child, the only one that ran on it, is gone. Failing, it stays mapped.
        let _ = unsafe { munmap(std::ptr::with_exposed_provenance_mut(self.guard), GUARD + STACK) };
    }
}

/// `clone3` of a child that runs [`Lent`]'s body: its number in our pid namespace and its descriptor.
pub(crate) fn clone3(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    lent: &Lent,
) -> Result<(RawFd, OwnedFd), Errno> {
    let mut pidfd: libc::c_int = -1;
    let mut args = clone_args(flags | u64::try_from(libc::CLONE_VM).unwrap_or(0), cgroup, &mut pidfd)?;
    args.stack = lent.stack().expose_provenance() as u64;
    args.stack_size = STACK as u64;
    let body = std::ptr::from_ref(&**lent.body);
    let before = block_signals(u64::MAX)?;
    // SAFETY: the kernel reads `args` of the size given and writes one int to `pidfd`; both live past the call. The child
    // runs on `lent`'s stack, which nobody else uses, and reads `lent`'s body; both stay (`Lent`) until it is gone. It comes
    // back from `run` never.
    let pid = unsafe { clone3_raw(&raw const args, size_of_val(&args), run, body) };
    // Fails as little as it did before.
    let _ = block_signals(before);
    if pid < 0 {
        return Err(Errno::from_raw_os_error(i32::try_from(-pid).unwrap_or(libc::EIO)));
    }
    let pid = RawFd::try_from(pid).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: on success with CLONE_PIDFD the kernel stored a new descriptor here that nobody else owns.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// *Child*.
unsafe extern "C" fn run(body: *const Box<Body>) -> ! {
    // SAFETY: `clone3` passes the address of a body that outlives the child; nobody changes it.
    exit_now(unsafe { (*body)() })
}

/// `clone3(args, size)`; in the child, which starts on a stack of its own, `run(body)`.
#[unsafe(naked)]
unsafe extern "C" fn clone3_raw(
    args: *const libc::clone_args,
    size: usize,
    run: unsafe extern "C" fn(*const Box<Body>) -> !,
    body: *const Box<Body>,
) -> isize {
    naked_asm!(
        // `syscall` overwrites rcx and r11.
        "mov r8, rdx",
        "mov r9, rcx",
        "mov eax, {clone3}",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        // The outermost frame of this stack.
        "xor ebp, ebp",
        "mov rdi, r9",
        "call r8",
        "ud2",
        "2:",
        "ret",
        clone3 = const Sysno::clone3 as usize,
    )
}

/// Blocks exactly these signals (bit n-1: signal n); which were blocked before.
fn block_signals(set: u64) -> Result<u64, Errno> {
    let mut before = 0_u64;
    // SAFETY: the kernel reads 8 bytes (its sigset size, given) from `set` and writes as many to `before`.
    number(unsafe {
        syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, &raw const set, &raw mut before, size_of_val(&set))
    })?;
    Ok(before)
}
