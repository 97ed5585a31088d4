//! The image as a mount that no path leads to.
//!
//! Measured: a sealed memfd can't back EROFS; two mounts of one file get separate superblocks.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use crate::sys::{self, Inherited};

/// How often another process may take the free loop device before us.
const LOOP_TRIES: usize = 64;

/// What an instance's root is made from.
#[derive(Debug)]
pub enum RootSource {
    /// An EROFS file of our writer, or a block device with its content.
    Erofs(File),
    /// A directory of our own (rootless), shown read-only: writes go to an overlay, as with EROFS.
    Directory(OwnedFd),
}

/// The image could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The kernel does not know EROFS.
    #[error("the kernel has no EROFS (modprobe erofs, or use a kernel from 5.4 on)")]
    NoErofs,
    /// No `fsopen`, or not the privilege.
    #[error("open the filesystem type erofs")]
    Open(#[source] Errno),
    /// The file's kind.
    #[error("inspect the image file")]
    Inspect(#[source] std::io::Error),
    /// The kernel does not take it.
    #[error("mount the image as erofs{}", hint(message))]
    Mount {
        /// What the kernel says about it.
        message: String,
        /// Its error.
        source: Errno,
    },
    /// A loop device, needed before Linux 6.12.
    #[error("attach the image to a loop device ({step})")]
    Loop {
        /// Which step.
        step: &'static str,
        /// Why not.
        source: Errno,
    },
    /// Ids.
    #[error("map the ids of the image's mount")]
    IdMap(#[source] Errno),
    /// The directory has no path any more.
    #[error("find the directory of the image's copy")]
    Directory(#[source] std::io::Error),
}

/// The root as the launcher hands it to its child: with descriptors that it owns, or as the child knows them.
#[derive(Debug)]
pub(crate) enum Prepared<F> {
    /// A mount that is attached nowhere.
    Mount(F),
    /// A directory, to be opened anew: the kernel binds nothing of another mount namespace, and what was open before
    /// the child had its own belongs to ours.
    Directory {
        /// The one that is meant, whatever lies at the path by then.
        meant: F,
        /// Where it was.
        path: CString,
    },
}

impl Prepared<OwnedFd> {
    /// Mounts the image, or finds the directory's path.
    pub(crate) fn new(source: &RootSource) -> Result<Self, RootError> {
        match source {
            RootSource::Erofs(image) => Ok(Self::Mount(mount_erofs(image)?)),
            RootSource::Directory(dir) => {
                let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
                let path = std::fs::read_link(link).map_err(RootError::Directory)?;
                let path = CString::new(path.into_os_string().into_vec())
                    .map_err(|e| RootError::Directory(e.into()))?;
                let meant = dir.try_clone().map_err(RootError::Directory)?;
                Ok(Self::Directory { meant, path })
            }
        }
    }

    /// As a child that shares our memory knows it.
    pub(crate) fn for_child(&self) -> Prepared<Inherited> {
        match self {
            Self::Mount(mount) => Prepared::Mount(Inherited::of(mount)),
            Self::Directory { meant, path } => {
                Prepared::Directory { meant: Inherited::of(meant), path: path.clone() }
            }
        }
    }
}

impl<F: AsFd> Prepared<F> {
    /// *Child*: the descriptor to make the root from, valid in this mount namespace. Makes system calls only.
    pub(crate) fn open(&self) -> Result<OwnedFd, Errno> {
        match self {
            Self::Mount(mount) => rustix::io::fcntl_dupfd_cloexec(mount, sys::FIRST_HIGH),
            Self::Directory { meant, path } => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let found = open(path.as_c_str(), flags, Mode::empty())?;
                let (found, dir) = (rustix::io::fcntl_dupfd_cloexec(&found, sys::FIRST_HIGH)?, found);
                drop(dir);
                let (a, b) = (fstat(&found)?, fstat(meant)?);
                if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) { Ok(found) } else { Err(Errno::STALE) }
            }
        }
    }
}

fn hint(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

/// Mounts the image read-only, without devices and set-user-id, detached: it is gone with its last descriptor.
///
/// # Errors
/// [`RootError`].
pub fn mount_erofs(image: &File) -> Result<OwnedFd, RootError> {
    let kind = image.metadata().map_err(RootError::Inspect)?.file_type();
    match mount_from(image.as_fd()) {
        // Files as they are: from 6.12 on, and not on each filesystem.
        Err(RootError::Mount { source: Errno::NOTBLK | Errno::NOTSUP | Errno::INVAL, .. })
            if !kind.is_block_device() =>
        {
            let device = attach_loop(image.as_fd())?;
            mount_from(device.as_fd())
        }
        other => other,
    }
}

fn mount_from(source: BorrowedFd<'_>) -> Result<OwnedFd, RootError> {
    let context = fsopen(c"erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
        Errno::NODEV => RootError::NoErofs,
        e => RootError::Open(e),
    })?;
    let fail = |e| RootError::Mount { message: log(&context), source: e };
    let path = format!("/proc/self/fd/{}", source.as_raw_fd());
    fsconfig_set_string(&context, c"source", path).map_err(fail)?;
    fsconfig_set_flag(&context, c"ro").map_err(fail)?;
    fsconfig_create(&context).map_err(fail)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail)
}

/// The kernel's own words about a failed filesystem context, if it has any.
fn log(context: &OwnedFd) -> String {
    let mut buffer = [0; 512];
    match rustix::io::read(context, &mut buffer) {
        Ok(n) => String::from_utf8_lossy(&buffer[..n]).trim_start_matches("e ").trim().to_owned(),
        Err(_) => String::new(),
    }
}

fn attach_loop(image: BorrowedFd<'_>) -> Result<OwnedFd, RootError> {
    let fail = |step| move |source| RootError::Loop { step, source };
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let control = open(c"/dev/loop-control", flags, Mode::empty()).map_err(fail("open /dev/loop-control"))?;
    for _ in 0..LOOP_TRIES {
        let number = sys::loop_free(control.as_fd()).map_err(fail("find a free one"))?;
        let path = format!("/dev/loop{number}");
        let device = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail("open it"))?;
        match sys::loop_attach(device.as_fd(), image) {
            Ok(()) => return Ok(device),
            // Another process was quicker.
            Err(Errno::BUSY) => {}
            Err(e) => return Err(fail("configure it")(e)),
        }
    }
    Err(fail("find a free one")(Errno::BUSY))
}

/// Shows the owners of the mount's files as the ids of a user namespace. Must precede any attachment.
///
/// # Errors
/// [`RootError::IdMap`].
pub fn map_ids(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> Result<(), RootError> {
    sys::idmap_mount(mount, userns).map_err(RootError::IdMap)
}
