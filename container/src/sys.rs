//! The system calls that need `unsafe`, each behind a safe signature. The only unsafe code of the crate.
//!
//! Functions marked *child* run between `clone3` and `execve` in a copy of the launcher: they make exactly the
//! system calls named and neither allocate nor lock, so that they work whatever the launcher was doing.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use isolab_wire::trace::Trace;
use rustix::io::Errno;

/// Descriptors that a child is going to place lie from here on, so that no placing overwrites one not yet placed.
pub(crate) const FIRST_HIGH: RawFd = 16;

/// Pointers for `execve`: one for each string, then null.
#[derive(Debug)]
pub(crate) struct PointerList<'a> {
    pointers: Vec<*const libc::c_char>,
    strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> PointerList<'a> {
    pub(crate) fn new(strings: impl Iterator<Item = &'a CStr>) -> Self {
        let pointers = strings.map(CStr::as_ptr).chain([std::ptr::null()]).collect();
        Self { pointers, strings: std::marker::PhantomData }
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(result: libc::c_long) -> Result<RawFd, Errno> {
    if result < 0 { Err(last_errno()) } else { RawFd::try_from(result).map_err(|_| Errno::OVERFLOW) }
}

/// What `clone3` gave back, in the process that reads it.
pub(crate) enum Cloned {
    /// The launcher: the child's number in our pid namespace, and its descriptor.
    Parent { pid: RawFd, pidfd: OwnedFd },
    /// The new process.
    Child,
}

/// `clone3` without shared memory: the child is a copy of the calling thread.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: libc::c_int = -1;
    let pointer: *mut libc::c_int = &raw mut pidfd;
    // SAFETY: `clone_args` is plain integers, for which zero is the documented "unset" value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | u64::try_from(libc::CLONE_PIDFD).unwrap_or(0);
    args.pidfd = pointer.addr() as u64;
    args.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or(0);
    if let Some(fd) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = u64::try_from(fd.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: the kernel reads `args` of the size given and writes one int to `pidfd`; both live past the call.
    // Without CLONE_VM the child runs on its own copy of this stack, so returning twice is sound; the caller
    // (`child::spawn`) demands a single thread, so no lock is held by a thread that the copy lacks.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: on success with CLONE_PIDFD the kernel stored a new descriptor here that nobody else owns.
    Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// *Child*: ends the process without destructors or exit handlers, which belong to the launcher.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no demands; it makes one system call and does not return.
    unsafe { libc::_exit(status) }
}

/// *Child*: puts `from` at number `to`, open across exec. `from` differs from `to`.
pub(crate) fn place(from: BorrowedFd<'_>, to: RawFd) -> Result<(), Errno> {
    // SAFETY: `from` is open (borrowed); what `to` was is closed, and the caller, a child about to exec, owns its
    // whole table and uses nothing at the low numbers any more.
    check(unsafe { libc::dup3(from.as_raw_fd(), to, 0) }.into()).map(drop)
}

/// *Child*: marks every descriptor from `first` on to be closed by exec.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: takes integers only and closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flag) }).map(drop)
}

/// *Child*: closes every descriptor from `first` to `last`.
pub(crate) fn close(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: takes integers only. What is closed belongs to the launcher's copy of this process, whose owners are never
    // dropped here: the child leaves by `exit_now`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// *Child*: marks one number to be closed by exec, if it is open.
pub(crate) fn close_on_exec(number: u32) {
    // SAFETY: takes integers only and closes nothing now.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, number, number, libc::CLOSE_RANGE_CLOEXEC) };
}

/// *Child*: default action for every signal (what the launcher's own parent ignored, as `nohup` does, would stay
/// ignored over exec, and Rust's runtime ignores `SIGPIPE`), and no blocked signals.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        default_signal(signal);
    }
    let none: u64 = 0;
    // SAFETY: the kernel reads 8 bytes (its sigset size, given) from `none`, and writes no old set.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            0_usize,
            size_of_val(&none),
        )
    };
}

/// Default action for a signal. KILL and STOP are refused, which changes nothing.
pub(crate) fn default_signal(signal: i32) {
    // `struct kernel_sigaction`: handler (0 is SIG_DFL), flags, restorer, mask.
    let action = [0_u64; 4];
    // SAFETY: the kernel reads 32 bytes from `action`, with its sigset size of 8, and writes no old action; no handler is
    // installed. Called by number: libc keeps two signals for itself.
    let _ =
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), 0_usize, size_of::<u64>()) };
}

/// Whether this process ignores a signal.
pub(crate) fn ignores(signal: i32) -> bool {
    const SIG_IGN: u64 = 1;
    let mut action = [0_u64; 4];
    // SAFETY: sets nothing (null) and writes the present action, 32 bytes with its sigset size of 8, to `action`.
    let got = check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            std::ptr::null::<u64>(),
            action.as_mut_ptr(),
            size_of::<u64>(),
        )
    });
    got.is_ok() && action[0] == SIG_IGN
}

/// *Child*: executes the program behind a descriptor. Returns only an error.
pub(crate) fn exec_fd(program: BorrowedFd<'_>, argv: &PointerList<'_>, env: &PointerList<'_>) -> Errno {
    // SAFETY: the empty path is a C string; both lists end in null and point to C strings that live as long as the
    // lists (their lifetime); the kernel only reads them.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

/// *Child*: executes the program at a path. Returns only an error.
pub(crate) fn exec_path(path: &CStr, argv: &PointerList<'_>, env: &PointerList<'_>) -> Errno {
    // SAFETY: `path` is a C string; the lists are as for `exec_fd`. Called by number, not through libc, so that
    // no lock or allocation of libc is involved.
    let _ = unsafe {
        libc::syscall(libc::SYS_execve, path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr())
    };
    last_errno()
}

/// The time stamp counter.
#[must_use]
pub(crate) fn tsc() -> u64 {
    // SAFETY: `rdtsc` exists on every x86-64 and touches no memory; user space may be denied it only by prctl,
    // which isolab never asks for.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A page that this process and the children that it clones share, for as long as it lives; all zero.
pub(crate) fn shared_trace() -> Result<&'static Trace, Errno> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Trace>(), protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(last_errno());
    }
    // SAFETY: the mapping is page-aligned, of the type's size, never unmapped, and zero, which is a value of each of the
    // atomic integers that the type consists of; nobody writes it but through them.
    Ok(unsafe { &*page.cast::<Trace>() })
}

/// Maps the ids of a still detached mount through a user namespace.
pub(crate) fn idmap_mount(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(userns.as_raw_fd()).map_err(|_| Errno::BADF)?,
    };
    set_attributes(mount, &attr)
}

/// *Child*: adds attributes to a still detached mount.
pub(crate) fn restrict_mount(mount: BorrowedFd<'_>, attributes: u64) -> Result<(), Errno> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    set_attributes(mount, &attr)
}

fn set_attributes(mount: BorrowedFd<'_>, attr: &libc::mount_attr) -> Result<(), Errno> {
    // SAFETY: the empty path is a C string, `attr` is borrowed and read with its size, the descriptors in the call are open.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attr),
            size_of_val(attr),
        )
    })
    .map(drop)
}

/// Number of a free loop device.
pub(crate) fn loop_free(control: BorrowedFd<'_>) -> Result<RawFd, Errno> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    check(unsafe { libc::ioctl(control.as_raw_fd(), 0x4C82) }.into())
}

/// Attaches a file to a loop device, read-only, gone with its last user.
pub(crate) fn loop_attach(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<(), Errno> {
    const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
    /// `struct loop_config` as 64-bit words: fd and (default) block size; then `struct loop_info64`, whose flags are the high
    /// half of its word 6 (byte 52); then eight reserved words.
    const WORDS: usize = 1 + 29 + 8;
    const READ_ONLY: u64 = 1;
    const AUTOCLEAR: u64 = 4;
    /// Past the page cache of the file: its content is cached once, as the device's.
    const DIRECT: u64 = 16;
    let mut config = [0_u64; WORDS];
    config[0] = u64::from(u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?);
    config[1 + 6] = (READ_ONLY | AUTOCLEAR | DIRECT) << 32;
    // SAFETY: `config` has the size and alignment of `struct loop_config` (304 bytes), which the kernel only reads.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) }.into()).map(drop)
}

/// *Child*: makes descriptor 0, a terminal, the controlling one of this new session.
pub(crate) fn take_terminal() -> Result<(), Errno> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// *Child*: gives this process namespaces of its own, by `CLONE_NEW*` bits.
pub(crate) fn unshare(namespaces: u64) -> Result<(), Errno> {
    let flags = libc::c_int::try_from(namespaces).map_err(|_| Errno::INVAL)?;
    // SAFETY: the bits are of namespaces (the callers' constants), which change what this process sees, not its memory
    // or descriptors.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// *Child*: brings up the loopback device of this network namespace.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    let kind = rustix::net::SocketType::DGRAM;
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        kind,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain integers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *slot = libc::c_char::try_from(byte).map_err(|_| Errno::INVAL)?;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).map_err(|_| Errno::INVAL)?;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, here with name and flags set.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// *Child*: closes the copy of a descriptor that belongs to the launcher.
pub(crate) fn close_copy(fd: BorrowedFd<'_>) {
    // SAFETY: the number is open (borrowed); the owner is a value of the launcher, whose copy in this process is never
    // used or dropped again: the child ends by exec or `_exit`.
    let _ = unsafe { libc::close(fd.as_raw_fd()) };
}

/// Asks which pages of the first `length` bytes of a file are in memory: bit 0 of each byte.
pub(crate) fn resident_pages(file: BorrowedFd<'_>, length: usize, page: usize) -> Result<Vec<u8>, Errno> {
    let mut seen = vec![0; length.div_ceil(page)];
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours; it can't be accessed (PROT_NONE).
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if at == libc::MAP_FAILED {
        return Err(last_errno());
    }
    // SAFETY: the range is the mapping just made; the kernel writes one byte for each of its pages, and `seen` has as many.
    let told = unsafe { libc::mincore(at, length, seen.as_mut_ptr()) };
    let told = check(told.into());
    // SAFETY: the mapping is ours, and nothing refers to it.
    unsafe { libc::munmap(at, length) };
    told.map(|_| seen)
}
