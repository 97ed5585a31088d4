//! Mounts.

use core::ffi::CStr;

use super::{Errno, Fd, call};

/// `mount(2)` flags.
#[allow(missing_docs)]
pub mod flag {
    pub const RDONLY: usize = 1;
    pub const NOSUID: usize = 2;
    pub const NODEV: usize = 4;
    pub const NOEXEC: usize = 8;
    pub const REMOUNT: usize = 32;
    pub const BIND: usize = 4096;
    pub const MOVE: usize = 8192;
    pub const REC: usize = 16384;
    pub const PRIVATE: usize = 1 << 18;
}

/// Mounts.
///
/// # Errors
/// As `mount(2)`.
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fs: Option<&CStr>,
    flags: usize,
    data: Option<&CStr>,
) -> Result<(), Errno> {
    call!(165, source, target.to_bytes_with_nul(), fs, flags, data).map(drop)
}

/// Attaches a detached mount to a path.
///
/// # Errors
/// As `move_mount(2)`.
pub fn attach(detached: Fd, path: &CStr) -> Result<(), Errno> {
    const FROM_EMPTY_PATH: u32 = 4;
    call!(429, detached, c"".to_bytes_with_nul(), super::CWD, path.to_bytes_with_nul(), FROM_EMPTY_PATH)
        .map(drop)
}

/// A detached copy of the mount below an open directory.
///
/// # Errors
/// As `open_tree(2)`.
pub fn detached_copy(dir: Fd) -> Result<Fd, Errno> {
    const CLONE_CLOEXEC_EMPTY_PATH: u32 = 1 | 0o2_000_000 | 0x1000;
    call!(428, dir, c"".to_bytes_with_nul(), CLONE_CLOEXEC_EMPTY_PATH).map(|fd| Fd(fd as i32))
}

/// Adds attributes (`MOUNT_ATTR_RDONLY` 1, `NOSUID` 2, `NODEV` 4: the same bits as [`flag`]) to one mount.
///
/// # Errors
/// As `mount_setattr(2)`.
pub fn add_attributes(path: &CStr, set: usize) -> Result<(), Errno> {
    let attributes: [u64; 4] = [set as u64, 0, 0, 0];
    call!(442, super::CWD, path.to_bytes_with_nul(), 0, &attributes, size_of_val(&attributes)).map(drop)
}

/// Makes the current directory the root and stacks the old root on it.
///
/// # Errors
/// As `pivot_root(2)`.
pub fn pivot_root_here() -> Result<(), Errno> {
    call!(155, c".".to_bytes_with_nul(), c".".to_bytes_with_nul()).map(drop)
}

/// Takes a mount and all below it out of the tree at once.
///
/// # Errors
/// As `umount2(2)`.
pub fn detach(path: &CStr) -> Result<(), Errno> {
    const DETACH: i32 = 2;
    call!(166, path.to_bytes_with_nul(), DETACH).map(drop)
}

/// A new detached mount of a kernel-made file system with one option.
///
/// # Errors
/// As `fsopen(2)`, `fsconfig(2)` and `fsmount(2)`.
pub fn detached_new(fs: &CStr, options: &[(&CStr, &CStr)], attributes: usize) -> Result<Fd, Errno> {
    const SET_STRING: i32 = 1;
    const CREATE: i32 = 6;
    const CLOEXEC: i32 = 1;
    let context = Fd(call!(430, fs.to_bytes_with_nul(), CLOEXEC)? as i32);
    let made = (|| {
        for (key, value) in options {
            call!(431, context, SET_STRING, key.to_bytes_with_nul(), value.to_bytes_with_nul(), 0)?;
        }
        call!(431, context, CREATE, 0, 0, 0)?;
        call!(432, context, CLOEXEC, attributes).map(|fd| Fd(fd as i32))
    })();
    super::io::close(context);
    made
}
