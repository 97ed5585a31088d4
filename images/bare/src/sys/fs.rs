//! Names in the file system.

use core::ffi::CStr;

use super::{Errno, Fd, again, call, io::open};

/// `openat2` restrictions.
#[allow(missing_docs)]
pub mod resolve {
    pub const NO_XDEV: u64 = 1;
    pub const NO_MAGICLINKS: u64 = 2;
    pub const NO_SYMLINKS: u64 = 4;
    pub const BENEATH: u64 = 8;
}

/// Opens a directory below `dir` through nothing but real directories of the same mount, again after a signal.
///
/// # Errors
/// As `openat2(2)`: a symbolic link or a file on the way, or nothing there.
pub fn open_real_dir(dir: Fd, path: &CStr) -> Result<Fd, Errno> {
    let how: [u64; 3] = [
        (open::PATH | open::DIRECTORY | open::NOFOLLOW | open::CLOEXEC) as u64,
        0,
        resolve::NO_XDEV | resolve::NO_MAGICLINKS | resolve::NO_SYMLINKS | resolve::BENEATH,
    ];
    again(|| call!(437, dir, path.to_bytes_with_nul(), &how, size_of_val(&how))).map(|fd| Fd(fd as i32))
}

/// Makes a directory.
///
/// # Errors
/// As `mkdirat(2)`.
pub fn mkdir(dir: Fd, path: &CStr, mode: u32) -> Result<(), Errno> {
    call!(258, dir, path.to_bytes_with_nul(), mode).map(drop)
}

/// Makes a symbolic link.
///
/// # Errors
/// As `symlinkat(2)`.
pub fn symlink(target: &CStr, dir: Fd, path: &CStr) -> Result<(), Errno> {
    call!(266, target.to_bytes_with_nul(), dir, path.to_bytes_with_nul()).map(drop)
}

/// Makes a character device.
///
/// # Errors
/// As `mknodat(2)`.
pub fn mknod_char(dir: Fd, path: &CStr, mode: u32, major: u32, minor: u32) -> Result<(), Errno> {
    let device = (major << 8) | minor;
    call!(259, dir, path.to_bytes_with_nul(), 0o020_000 | mode, device).map(drop)
}

/// Sets the mode, past the umask.
///
/// # Errors
/// As `fchmodat(2)`.
pub fn chmod(dir: Fd, path: &CStr, mode: u32) -> Result<(), Errno> {
    call!(268, dir, path.to_bytes_with_nul(), mode).map(drop)
}

/// Changes the owner of an open file.
///
/// # Errors
/// As `fchown(2)`.
pub fn chown_fd(fd: Fd, uid: u32, gid: u32) -> Result<(), Errno> {
    call!(93, fd, uid, gid).map(drop)
}

/// Changes the current directory.
///
/// # Errors
/// As `chdir(2)`.
pub fn chdir(path: &CStr) -> Result<(), Errno> {
    call!(80, path.to_bytes_with_nul()).map(drop)
}

/// Changes the current directory to an open one.
///
/// # Errors
/// As `fchdir(2)`.
pub fn chdir_fd(fd: Fd) -> Result<(), Errno> {
    call!(81, fd).map(drop)
}

/// Changes the root directory.
///
/// # Errors
/// As `chroot(2)`.
pub fn chroot(path: &CStr) -> Result<(), Errno> {
    call!(161, path.to_bytes_with_nul()).map(drop)
}

/// The current directory's name, with its NUL.
///
/// # Errors
/// As `getcwd(2)`.
pub fn getcwd(into: &mut [u8]) -> Result<usize, Errno> {
    let len = into.len();
    call!(79, into, len)
}

/// Whether a name can be reached (links followed).
#[must_use]
pub fn exists(path: &CStr) -> bool {
    call!(21, path.to_bytes_with_nul(), 0).is_ok()
}

/// Status of a name or of an open file (`struct stat`), 18 words.
///
/// # Errors
/// As `newfstatat(2)`.
pub fn stat(dir: Fd, path: &CStr, flags: i32) -> Result<[u64; 18], Errno> {
    let mut status = [0_u64; 18];
    call!(262, dir, path.to_bytes_with_nul(), &mut status, flags).map(|_| status)
}

/// Directory entries as the kernel packs them.
///
/// # Errors
/// As `getdents64(2)`.
pub fn entries(fd: Fd, into: &mut [u8]) -> Result<usize, Errno> {
    let len = into.len();
    call!(217, fd, into, len)
}

/// The entry's name, its type and the rest, from what [`entries`] gave.
#[must_use]
pub fn next_entry(packed: &[u8]) -> Option<(&CStr, u8, &[u8])> {
    let len = usize::from(u16::from_le_bytes([*packed.get(16)?, *packed.get(17)?]));
    let kind = *packed.get(18)?;
    let name = CStr::from_bytes_until_nul(packed.get(19..len)?).ok()?;
    Some((name, kind, packed.get(len..)?))
}

/// The `AT_EMPTY_PATH` flag.
pub const EMPTY_PATH: i32 = 0x1000;

/// Removes a file's name.
///
/// # Errors
/// As `unlinkat(2)`.
pub fn unlink(dir: Fd, path: &CStr) -> Result<(), Errno> {
    call!(263, dir, path.to_bytes_with_nul(), 0).map(drop)
}
