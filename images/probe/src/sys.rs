//! System calls by number, and what else takes `unsafe`. Everything dangerous happens in a child that does nothing afterwards
//! but end.
#![allow(unsafe_code)]

use std::arch::asm;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// As large as an argument can be: a bad descriptor, a bad address and a bad flag at once.
pub(crate) const BAD: usize = usize::MAX;

/// How an attempt in a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It gave this value, negative for an error number.
    Value(i64),
    /// A signal ended it.
    Signal(i32),
    /// Its time was over.
    Late,
    /// There was no child.
    NoChild(i32),
}

/// Calls the kernel; a negative value is an error number. For calls that return twice the caller ends the child.
///
/// # Safety
/// As the kernel documents for call `number`. Arguments that the kernel refuses, and integers, are always fine.
#[inline(always)]
unsafe fn raw(number: usize, a: [usize; 6]) -> isize {
    let result;
    // SAFETY: the caller answers for what the arguments name; the kernel changes rax, rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// Calls with integers, and with addresses of memory that lives on or that the kernel refuses.
///
/// The probes give `BAD` addresses, or [`address`]es of values that they hold until the call has returned and that have the
/// size that the kernel reads or writes.
pub(crate) fn call(number: u32, args: &[usize]) -> Result<usize, i32> {
    let mut all = [0; 6];
    for (slot, arg) in all.iter_mut().zip(args) {
        *slot = *arg;
    }
    // SAFETY: the callers hold to the rule above.
    let result = unsafe { raw(number as usize, all) };
    if (-4095..0).contains(&result) { Err(-(result as i32)) } else { Ok(result as usize) }
}

/// Where a value lies.
pub(crate) fn address<T: ?Sized>(value: &T) -> usize {
    std::ptr::from_ref(value).cast::<u8>().addr()
}

/// The same of a value that the kernel writes.
pub(crate) fn address_mut<T: ?Sized>(value: &mut T) -> usize {
    std::ptr::from_mut(value).cast::<u8>().expose_provenance()
}

/// A path for a call.
pub(crate) fn path(path: &str) -> CString {
    CString::new(path).unwrap_or_default()
}

/// Ends this process at once.
pub(crate) fn exit(status: i32) -> ! {
    loop {
        let _ = call(231, &[status as usize]);
    }
}

/// A copy of this process; 0 in the copy. This program has one thread.
pub(crate) fn fork() -> Result<i32, i32> {
    call(57, &[]).map(|pid| pid as i32)
}

/// Kills a process, or with a negative number a group.
pub(crate) fn kill(pid: i32, signal: i32) -> Result<(), i32> {
    call(62, &[pid as usize, signal as usize]).map(drop)
}

/// Waits for a child this long: its wait status.
pub(crate) fn wait(pid: i32, limit: Duration) -> Option<i32> {
    let end = Instant::now() + limit;
    // A descriptor wakes at once; where there is none, look again and again.
    let watched = call(434, &[pid as usize, 0]).ok();
    loop {
        let mut status = 0_i32;
        match call(61, &[pid as usize, address_mut(&mut status), 1, 0]) {
            Ok(0) => {}
            Ok(_) => {
                close(watched);
                return Some(status);
            }
            Err(libc::EINTR) => continue,
            Err(_) => {
                close(watched);
                return None;
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            close(watched);
            return None;
        }
        match watched {
            Some(fd) => {
                let mut polled = libc::pollfd { fd: fd as i32, events: libc::POLLIN, revents: 0 };
                let ms = left.as_millis().clamp(1, 1000) as usize;
                let _ = call(7, &[address_mut(&mut polled), 1, ms]);
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn close(fd: Option<usize>) {
    if let Some(fd) = fd {
        let _ = call(3, &[fd]);
    }
}

/// A page that children share with this process: a value and a count.
#[derive(Debug)]
struct SharedValue(*mut i64);

impl SharedValue {
    fn map() -> Result<Self, i32> {
        const READ_WRITE: usize = 3;
        const SHARED_ANONYMOUS: usize = 0x21;
        let at = call(9, &[0, 4096, READ_WRITE, SHARED_ANONYMOUS, BAD, 0])?;
        Ok(Self(std::ptr::with_exposed_provenance_mut(at)))
    }

    fn set(&self, value: i64) {
        // SAFETY: the page was mapped for this value, is aligned and writable until `drop`.
        unsafe { self.0.write_volatile(value) }
    }

    fn count(&self, count: i64) {
        // SAFETY: as above; the page has room for two.
        unsafe { self.0.wrapping_add(1).write_volatile(count) }
    }

    fn counted(&self) -> i64 {
        // SAFETY: as above; zero before a child wrote it.
        unsafe { self.0.wrapping_add(1).read_volatile() }
    }

    fn get(&self) -> i64 {
        // SAFETY: as above; the child that wrote it has ended.
        unsafe { self.0.read_volatile() }
    }
}

impl Drop for SharedValue {
    fn drop(&mut self) {
        let _ = call(11, &[self.0.addr(), 4096]);
    }
}

/// What the page holds before a child has said anything.
const NOTHING: i64 = i64::MIN;

/// Runs something in a child of its own, for at most so long.
pub(crate) fn in_child(limit: Duration, attempt: impl FnOnce() -> i64) -> Ended {
    in_child_counting(limit, |_| attempt()).0
}

/// The same of something that counts how far it gets: what it counted last is known however it ends.
pub(crate) fn in_child_counting(limit: Duration, attempt: impl FnOnce(&dyn Fn(i64)) -> i64) -> (Ended, i64) {
    let shared = match SharedValue::map() {
        Ok(shared) => shared,
        Err(errno) => return (Ended::NoChild(errno), 0),
    };
    let ended = child(&shared, limit, attempt);
    (ended, shared.counted())
}

fn child(shared: &SharedValue, limit: Duration, attempt: impl FnOnce(&dyn Fn(i64)) -> i64) -> Ended {
    shared.set(NOTHING);
    let pid = match fork() {
        Ok(0) => {
            // Signals to the group, and a hang-up, must not reach the rest.
            let _ = call(112, &[]);
            shared.set(attempt(&|count| shared.count(count)));
            exit(0)
        }
        Ok(pid) => pid,
        Err(errno) => return Ended::NoChild(errno),
    };
    let Some(status) = wait(pid, limit) else {
        let _ = kill(pid, libc::SIGKILL);
        let _ = wait(pid, Duration::from_secs(1));
        return Ended::Late;
    };
    match (status & 0x7f, shared.get()) {
        (0, NOTHING) if status >> 8 == 0 => Ended::NoChild(0),
        // It became another program, whose status this is.
        (0, NOTHING) => Ended::Value(i64::from(status >> 8)),
        (0, value) => Ended::Value(value),
        (signal, _) => Ended::Signal(signal),
    }
}

/// Calls in a child that does nothing afterwards.
pub(crate) fn attempt(limit: Duration, number: u32, args: &[usize]) -> Ended {
    const RETURN_TWICE: [u32; 4] = [56, 57, 58, 435];
    let mut all = [0; 6];
    for (slot, arg) in all.iter_mut().zip(args) {
        *slot = *arg;
    }
    in_child(limit, || {
        // SAFETY: this process is a copy of which nothing is needed any more but the shared page and its end. The arguments
        // are `BAD`, integers, or addresses as `call` has them. A call that returns twice is ended in the copy before it
        // touches anything below this frame.
        let result = unsafe { raw(number as usize, all) };
        if result == 0 && RETURN_TWICE.contains(&number) {
            exit(0);
        }
        result as i64
    })
}

/// `getpid` of the 32-bit table.
pub(crate) fn getpid_32() -> Ended {
    in_child(Duration::from_secs(3), || {
        let result: u32;
        // SAFETY: the call has no arguments and touches no memory.
        unsafe { asm!("int 0x80", inlateout("eax") 20_u32 => result, options(nostack)) };
        i64::from(result.cast_signed())
    })
}

/// CPUID.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    #[allow(unused_unsafe, reason = "safe from Rust 1.94 on")]
    // SAFETY: every x86-64 processor has the instruction.
    let r = unsafe { std::arch::x86_64::__cpuid_count(leaf, subleaf) };
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// The time stamp counter, in a child: the instruction can be refused.
pub(crate) fn tsc() -> Ended {
    in_child(Duration::from_secs(3), || {
        // SAFETY: where it is refused a signal ends the child.
        let tsc = unsafe { std::arch::x86_64::_rdtsc() };
        (tsc & 0x7fff_ffff_ffff_ffff) as i64
    })
}

/// Writes a byte to a port that is no device's, in a child of which nothing is needed any more but its end.
pub(crate) fn write_port() -> Result<(), i32> {
    // Far from those of PC devices.
    const NOBODYS: u16 = 0x5eb0;
    const ALL_PORTS: usize = 3;
    call(172, &[ALL_PORTS])?;
    // SAFETY: the kernel has just given this process all ports; no device of a guest listens on this one.
    unsafe { asm!("out dx, al", in("dx") NOBODYS, in("al") 0_u8, options(nomem, nostack, preserves_flags)) };
    Ok(())
}

/// Maps so many bytes, has the kernel fill them, and unmaps them.
pub(crate) fn map_and_unmap(len: usize) -> Result<(), i32> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS_FILLED: usize = 0x8022;
    let at = call(9, &[0, len, READ_WRITE, PRIVATE_ANONYMOUS_FILLED, BAD, 0])?;
    call(11, &[at, len]).map(drop)
}

/// Text in a System V segment.
pub(crate) fn shared_memory(id: i32) -> Result<String, i32> {
    const READ_ONLY: usize = 0o10000;
    let at = call(30, &[id as usize, 0, READ_ONLY])?;
    // SAFETY: the segment is attached here for reading and has a page at least; it is detached below.
    let bytes = unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(at), 256) };
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let _ = call(67, &[at]);
    Ok(text)
}

/// A segment with this text that is gone with its last user.
pub(crate) fn new_shared_memory(text: &str) -> Result<i32, i32> {
    const PRIVATE: usize = 0;
    const ALL_MAY: usize = 0o666;
    const REMOVE: usize = 0;
    let id = call(29, &[PRIVATE, 4096, ALL_MAY | libc::IPC_CREAT as usize])?;
    let at = call(30, &[id, 0, 0])?;
    let len = text.len().min(4095);
    // SAFETY: the segment is attached for writing, has 4096 bytes, and overlaps nothing of ours.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), std::ptr::with_exposed_provenance_mut(at), len) };
    call(31, &[id, REMOVE, 0])?;
    Ok(id as i32)
}

/// How many of a file's first pages are in memory.
pub(crate) fn resident(file: &impl AsRawFd, pages: usize) -> Result<usize, i32> {
    const READ: usize = 1;
    const SHARED: usize = 1;
    let len = pages * 4096;
    let at = call(9, &[0, len, READ, SHARED, file.as_raw_fd() as usize, 0])?;
    let mut seen = vec![0_u8; pages];
    let told = call(27, &[at, len, address_mut(seen.as_mut_slice())]);
    let _ = call(11, &[at, len]);
    told.map(|_| seen.iter().filter(|page| **page & 1 == 1).count())
}

/// Offers a page of its own to be merged with others that hold the same. For a child that does nothing afterwards.
pub(crate) fn offer_to_merge() -> Result<usize, i32> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    const MERGEABLE: usize = 12;
    let at = call(9, &[0, 4096, READ_WRITE, PRIVATE_ANONYMOUS, BAD, 0])?;
    call(28, &[at, 4096, MERGEABLE])
}

/// A pipe: reading and writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0_i32; 2];
    call(293, &[address_mut(&mut ends), libc::O_CLOEXEC as usize]).map_err(io::Error::from_raw_os_error)?;
    // SAFETY: the kernel has just made it, and nobody else owns it.
    let read = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    Ok((read, unsafe { OwnedFd::from_raw_fd(ends[1]) }))
}

/// Room, inodes and flags of the file system at a path: `struct statfs` as words.
pub(crate) fn statfs(at: &str) -> Result<[u64; 15], i32> {
    let mut words = [0_u64; 15];
    let at = path(at);
    call(137, &[at.as_ptr().addr(), address_mut(&mut words)])?;
    Ok(words)
}
