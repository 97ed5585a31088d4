//! Reading, writing, waiting.

use core::ffi::CStr;

use super::{Errno, Fd, again, call};

#[allow(missing_docs)]
pub mod open {
    pub const RDONLY: i32 = 0;
    pub const WRONLY: i32 = 1;
    pub const RDWR: i32 = 2;
    pub const CREAT: i32 = 0o100;
    pub const EXCL: i32 = 0o200;
    pub const NOCTTY: i32 = 0o400;
    pub const NONBLOCK: i32 = 0o4000;
    pub const DIRECTORY: i32 = 0o200_000;
    pub const NOFOLLOW: i32 = 0o400_000;
    pub const CLOEXEC: i32 = 0o2_000_000;
    pub const PATH: i32 = 0o10_000_000;
}

/// Opens a file below `dir`, again after a signal.
///
/// # Errors
/// As `openat(2)`.
pub fn open(dir: Fd, path: &CStr, flags: i32, mode: u32) -> Result<Fd, Errno> {
    again(|| call!(257, dir, path.to_bytes_with_nul(), flags, mode)).map(|fd| Fd(fd as i32))
}

/// Closes; after the call the number is free whatever the kernel answers.
pub fn close(fd: Fd) {
    let _ = call!(3, fd);
}

/// Reads once, again after a signal.
///
/// # Errors
/// As `read(2)`.
pub fn read(fd: Fd, into: &mut [u8]) -> Result<usize, Errno> {
    let len = into.len();
    again(|| call!(0, fd, &mut *into, len))
}

/// Writes once, again after a signal.
///
/// # Errors
/// As `write(2)`.
pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize, Errno> {
    again(|| call!(1, fd, bytes, bytes.len()))
}

/// Writes everything.
///
/// # Errors
/// As `write(2)`.
pub fn write_all(fd: Fd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = write(fd, bytes)?;
        bytes = bytes.get(n..).unwrap_or_default();
    }
    Ok(())
}

/// Reads once at an offset.
///
/// # Errors
/// As `pread(2)`.
pub fn read_at(fd: Fd, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let len = into.len();
    call!(17, fd, into, len, offset)
}

/// Asks the kernel to read so much of a file into its page cache.
///
/// # Errors
/// As `readahead(2)`.
pub fn read_ahead(fd: Fd, len: usize) -> Result<(), Errno> {
    call!(187, fd, 0_usize, len).map(drop)
}

/// Writes once at an offset.
///
/// # Errors
/// As `pwrite(2)`.
pub fn write_at(fd: Fd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    call!(18, fd, bytes, bytes.len(), offset)
}

/// Waits until what was written is on the medium.
///
/// # Errors
/// As `fsync(2)`.
pub fn sync(fd: Fd) -> Result<(), Errno> {
    call!(74, fd).map(drop)
}

/// A pipe: its reading and its writing end.
///
/// # Errors
/// As `pipe2(2)`.
pub fn pipe(flags: i32) -> Result<(Fd, Fd), Errno> {
    let mut ends = [0_i32; 2];
    call!(293, &mut ends, flags)?;
    Ok((Fd(ends[0]), Fd(ends[1])))
}

/// Makes `to` the same open file as `from`, kept at `execve`; again after a signal.
///
/// # Errors
/// As `dup2(2)`.
pub fn dup_to(from: Fd, to: Fd) -> Result<(), Errno> {
    again(|| call!(33, from, to)).map(drop)
}

/// Sets the status flags (`F_SETFL`).
///
/// # Errors
/// As `fcntl(2)`.
pub fn set_flags(fd: Fd, flags: i32) -> Result<(), Errno> {
    call!(72, fd, 4, flags).map(drop)
}

/// Sets or clears close-on-exec.
///
/// # Errors
/// As `fcntl(2)`.
pub fn set_close_on_exec(fd: Fd, on: bool) -> Result<(), Errno> {
    call!(72, fd, 2, i32::from(on)).map(drop)
}

/// Whether this number is an open descriptor.
#[must_use]
pub fn is_open(fd: Fd) -> bool {
    call!(72, fd, 1).is_ok()
}

/// Closes (or, with `mark_only`, closes at `execve`) every descriptor from `first` to `last`.
///
/// # Errors
/// As `close_range(2)`.
pub fn close_range(first: u32, last: u32, mark_only: bool) -> Result<(), Errno> {
    call!(436, first, last, if mark_only { 4 } else { 0 }).map(drop)
}

/// What to wait for, and what happened (`struct pollfd`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Poll {
    /// The descriptor; negative: ignored.
    pub fd: i32,
    /// What to wait for.
    pub events: i16,
    /// What happened.
    pub found: i16,
}

/// Readable.
pub const IN: i16 = 1;
/// Writable.
pub const OUT: i16 = 4;
/// Nobody reads this any more.
pub const ERR: i16 = 8;
/// The other side is gone.
pub const HUP: i16 = 16;

/// Waits without limit for one of `fds`.
///
/// # Errors
/// As `poll(2)`, never for a signal.
pub fn poll(fds: &mut [Poll]) -> Result<(), Errno> {
    loop {
        let len = fds.len();
        match call!(7, &mut *fds, len, -1) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Waits this long.
pub fn pause_ms(ms: i32) {
    let _ = call!(7, 0_usize, 0_usize, ms);
}

/// An edge-triggered watch on one descriptor: each wake-up of the file gives one event.
///
/// # Errors
/// As `epoll_create1(2)` and `epoll_ctl(2)`.
pub fn watch_edges(fd: Fd) -> Result<Fd, Errno> {
    let epoll = Fd(call!(291, open::CLOEXEC)? as i32);
    // struct epoll_event, packed: events (IN, OUT, HUP, edge-triggered), then eight bytes of ours.
    let event: [u32; 3] = [0x8000_0000 | 1 | 4 | 16, 0, 0];
    call!(233, epoll, 1, fd, &event)?;
    Ok(epoll)
}

/// The next event of [`watch_edges`].
///
/// # Errors
/// As `epoll_wait(2)`.
pub fn next_edge(epoll: Fd) -> Result<u32, Errno> {
    let mut event = [0_u32; 3];
    loop {
        match call!(232, epoll, &mut event, 1, -1) {
            Err(Errno::INTR) => {}
            other => return other.map(|_| event[0]),
        }
    }
}

/// Watches a directory for new names.
///
/// # Errors
/// As `inotify_init1(2)` and `inotify_add_watch(2)`.
pub fn watch_names(dir: &CStr) -> Result<Fd, Errno> {
    const CREATE_OR_MOVED_TO: u32 = 0x100 | 0x80;
    let fd = Fd(call!(294, open::CLOEXEC)? as i32);
    call!(254, fd, dir.to_bytes_with_nul(), CREATE_OR_MOVED_TO)?;
    Ok(fd)
}
