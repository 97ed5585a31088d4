//! The system calls that need `unsafe`, each behind a safe signature. With `sharing`, the only unsafe code of the crate.
//!
//! Functions marked *child* run between `clone3` and `execve`, in a copy of the launcher or in its own memory: they make
//! exactly the system calls named, by number (libc's `errno` would be the launcher's), and neither allocate nor lock, so
//! that they work whatever the launcher is doing.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use isolab_wire::trace::Trace;
use rustix::io::{Errno, retry_on_intr};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use syscalls::{Sysno, syscall};

/// Descriptors that a child is going to place lie from here on, so that no placing overwrites one not yet placed.
pub(crate) const FIRST_HIGH: RawFd = 16;

/// Strings for `execve`, and where each is (as addresses), then 0.
#[derive(Debug)]
pub(crate) struct PointerList {
    pointers: Vec<usize>,
    _strings: Vec<CString>,
}

impl PointerList {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        // A string's bytes lie elsewhere than the string, and stay there when that is moved.
        let pointers = strings.iter().map(|string| string.as_ptr().addr()).chain([0]).collect();
        Self { pointers, _strings: strings }
    }
}

/// A descriptor of the launcher's by its number. A child has a copy of the launcher's whole table from its start on, whatever
/// the launcher does with its own afterwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inherited(RawFd);

impl Inherited {
    /// Of a descriptor that is open when the child starts.
    pub(crate) fn of(fd: &impl AsFd) -> Self {
        Self(fd.as_fd().as_raw_fd())
    }
}

impl AsFd for Inherited {
    /// *Child*.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number was open when the table was copied, and in the child nobody owns it: it is closed by exec, by
        // `close_copy` of it, or with the process.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

/// A copy, closed by exec, of a descriptor that whoever started us left open.
///
/// # Errors
/// No such descriptor is open.
pub fn copy_of_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the number is not -1; it is borrowed for this call only, which fails where it names nothing.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(inherited, 3)
}

/// Whether the kernel gave this program rights that its caller has not (`AT_SECURE`): by set-id bits, by capabilities of its file, or by a
/// policy of the host.
#[must_use]
pub fn has_borrowed_rights() -> bool {
    // SAFETY: takes an integer, and reads what the kernel left to this program at its start; for what that is not, it says 0.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

pub(crate) fn number(result: Result<usize, syscalls::Errno>) -> Result<RawFd, Errno> {
    match result {
        Ok(n) => RawFd::try_from(n).map_err(|_| Errno::OVERFLOW),
        Err(e) => Err(Errno::from_raw_os_error(e.into_raw())),
    }
}

/// What `clone3` gave back, in the process that reads it.
pub(crate) enum Cloned {
    /// The launcher: the child's number in our pid namespace, and its descriptor.
    Parent { pid: RawFd, pidfd: OwnedFd },
    /// The new process.
    Child,
}

/// `struct clone_args` for a child of these `CLONE_*` flags that ends with `SIGCHLD`; its descriptor goes to `pidfd`.
pub(crate) fn clone_args(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    pidfd: &mut libc::c_int,
) -> Result<libc::clone_args, Errno> {
    // SAFETY: `clone_args` is plain integers, for which zero is the documented "unset" value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | u64::try_from(libc::CLONE_PIDFD).unwrap_or(0);
    args.pidfd = std::ptr::from_mut(pidfd).expose_provenance() as u64;
    args.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or(0);
    if let Some(fd) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = u64::try_from(fd.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    Ok(args)
}

/// `clone3` without shared memory: the child is a copy of the calling thread.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: libc::c_int = -1;
    let args = clone_args(flags, cgroup, &mut pidfd)?;
    // SAFETY: the kernel reads `args` of the size given and writes one int to `pidfd`; both live past the call.
    // Without CLONE_VM the child runs on its own copy of this stack, so returning twice is sound; the caller
    // (`child::spawn`) demands a single thread, so no lock is held by a thread that the copy lacks.
    let pid = number(unsafe { syscall!(Sysno::clone3, &raw const args, size_of_val(&args)) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: on success with CLONE_PIDFD the kernel stored a new descriptor here that nobody else owns.
    Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// *Child*: ends the process without destructors or exit handlers, which belong to the launcher.
pub(crate) fn exit_now(status: i32) -> ! {
    loop {
        // SAFETY: ends this process; touches no memory.
        let _ = unsafe { syscall!(Sysno::exit_group, status) };
    }
}

/// *Child*: puts `from` at number `to`, open across exec. `from` differs from `to`.
pub(crate) fn place(from: BorrowedFd<'_>, to: RawFd) -> Result<(), Errno> {
    // SAFETY: `from` is open (borrowed); what `to` was is closed, and the caller, a child about to exec, owns its
    // whole table and uses nothing at the low numbers any more.
    retry_on_intr(|| number(unsafe { syscall!(Sysno::dup3, from.as_raw_fd(), to, 0) })).map(drop)
}

/// *Child*: marks every descriptor from `first` on to be closed by exec.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: takes integers only and closes nothing now.
    number(unsafe { syscall!(Sysno::close_range, first, u32::MAX, flag) }).map(drop)
}

/// *Child*: closes every descriptor from `first` to `last`.
pub(crate) fn close(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: takes integers only. What is closed belongs to the launcher's copy of this process, whose owners are never
    // dropped here: the child leaves by `exit_now`.
    number(unsafe { syscall!(Sysno::close_range, first, last, 0) }).map(drop)
}

/// *Child*: marks one number to be closed by exec, if it is open.
pub(crate) fn close_on_exec(number: u32) {
    // SAFETY: takes integers only and closes nothing now.
    let _ = unsafe { syscall!(Sysno::close_range, number, number, libc::CLOSE_RANGE_CLOEXEC) };
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
        syscall!(Sysno::rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0_usize, size_of_val(&none))
    };
}

/// Default action for a signal. KILL and STOP are refused, which changes nothing.
pub(crate) fn default_signal(signal: i32) {
    // `struct kernel_sigaction`: handler (0 is SIG_DFL), flags, restorer, mask.
    let action = [0_u64; 4];
    // SAFETY: the kernel reads 32 bytes from `action`, with its sigset size of 8, and writes no old action; no handler is
    // installed. Called by number: libc keeps two signals for itself.
    let _ = unsafe { syscall!(Sysno::rt_sigaction, signal, action.as_ptr(), 0_usize, size_of::<u64>()) };
}

/// Whether this process ignores a signal.
pub(crate) fn ignores(signal: i32) -> bool {
    const SIG_IGN: u64 = 1;
    let mut action = [0_u64; 4];
    // SAFETY: sets nothing (null) and writes the present action, 32 bytes with its sigset size of 8, to `action`.
    let got = number(unsafe {
        syscall!(Sysno::rt_sigaction, signal, 0_usize, action.as_mut_ptr(), size_of::<u64>())
    });
    got.is_ok() && action[0] == SIG_IGN
}

/// *Child*: executes the program behind a descriptor. Returns only an error.
pub(crate) fn exec_fd(program: BorrowedFd<'_>, argv: &PointerList, env: &PointerList) -> Errno {
    // SAFETY: the empty path is a C string; both lists end in 0 and point to C strings that live as long as the
    // lists; the kernel only reads them.
    number(unsafe {
        syscall!(
            Sysno::execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH
        )
    })
    .err()
    .unwrap_or(Errno::IO)
}

/// *Child*: executes the program at a path. Returns only an error.
pub(crate) fn exec_path(path: &CStr, argv: &PointerList, env: &PointerList) -> Errno {
    // SAFETY: `path` is a C string; the lists are as for `exec_fd`.
    number(unsafe { syscall!(Sysno::execve, path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) })
        .err()
        .unwrap_or(Errno::IO)
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
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let page =
        unsafe { mmap_anonymous(std::ptr::null_mut(), size_of::<Trace>(), protection, MapFlags::SHARED) }?;
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
    number(unsafe {
        syscall!(
            Sysno::mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attr),
            size_of_val(attr)
        )
    })
    .map(drop)
}

/// Number of a free loop device.
pub(crate) fn loop_free(control: BorrowedFd<'_>) -> Result<RawFd, Errno> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    number(unsafe { syscall!(Sysno::ioctl, control.as_raw_fd(), 0x4C82) })
}

/// Attaches a file to a loop device, read-only, gone with its last user.
pub(crate) fn loop_attach(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<(), Errno> {
    const LOOP_CONFIGURE: u32 = 0x4C0A;
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
    number(unsafe { syscall!(Sysno::ioctl, device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) }).map(drop)
}

/// *Child*: makes descriptor 0, a terminal, the controlling one of this new session.
pub(crate) fn take_terminal() -> Result<(), Errno> {
    // SAFETY: TIOCSCTTY takes an integer.
    number(unsafe { syscall!(Sysno::ioctl, 0, libc::TIOCSCTTY, 0) }).map(drop)
}

/// *Child*: gives this process namespaces of its own, by `CLONE_NEW*` bits.
pub(crate) fn unshare(namespaces: u64) -> Result<(), Errno> {
    // SAFETY: the bits are of namespaces (the callers' constants), which change what this process sees, not its memory
    // or descriptors.
    number(unsafe { syscall!(Sysno::unshare, namespaces) }).map(drop)
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
    number(unsafe { syscall!(Sysno::ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
        .map(drop)
}

/// *Child*: closes the copy of a descriptor that belongs to the launcher.
pub(crate) fn close_copy(fd: BorrowedFd<'_>) {
    // SAFETY: the number is open (borrowed); the owner is a value of the launcher, whose copy in this process is never
    // used or dropped again: the child ends by exec or `exit_now`.
    let _ = unsafe { syscall!(Sysno::close, fd.as_raw_fd()) };
}

/// Asks which pages of the first `length` bytes of a file are in memory: bit 0 of each byte.
pub(crate) fn resident_pages(file: BorrowedFd<'_>, length: usize, page: usize) -> Result<Vec<u8>, Errno> {
    let mut seen = vec![0; length.div_ceil(page)];
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours; it can't be accessed (PROT_NONE).
    let at = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::empty(), MapFlags::SHARED, file, 0) }?;
    // SAFETY: the range is the mapping just made; the kernel writes one byte for each of its pages, and `seen` has as many.
    let told = number(unsafe { syscall!(Sysno::mincore, at, length, seen.as_mut_ptr()) });
    // SAFETY: the mapping is ours, and nothing refers to it.
    let _ = unsafe { munmap(at, length) };
    told.map(|_| seen)
}
