//! A root filesystem directory into the tree.
//!
//! Every directory is opened from the root descriptor with `openat2`: beneath it, no symlinks, no other mounts.
//! So a directory that changes while it is read can spoil the image, but never lets it reach outside.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::retry_on_intr;

use crate::budget::BudgetError;
use crate::escape::Escaped;
use crate::layer::Build;
use crate::report::LayerReport;
use crate::tree::{Inode, InodeId, Kind, Meta, Tree};

/// A directory that can't become an image.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A call failed.
    #[error("{call} {path}")]
    Call {
        /// What was tried.
        call: &'static str,
        /// Path below the root directory.
        path: Escaped,
        /// Why it failed.
        source: io::Error,
    },
    /// Another file than a moment before.
    #[error("{path} changed while it was read")]
    Changed {
        /// Path below the root directory.
        path: Escaped,
    },
    /// Too large.
    #[error("{path}")]
    Budget {
        /// Path below the root directory.
        path: Escaped,
        /// Which budget.
        source: BudgetError,
    },
}

/// A directory to read.
struct Pending {
    path: Vec<u8>,
    id: InodeId,
    depth: usize,
}

struct Reading<'a, 'b> {
    root: BorrowedFd<'a>,
    build: &'a mut Build<'b>,
    links: HashMap<(u64, u64), InodeId>,
    pending: Vec<Pending>,
    report: LayerReport,
}

/// Reads everything below an open directory.
pub(crate) fn read(
    root: BorrowedFd<'_>,
    build: &mut Build<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), DirectoryError> {
    let first = Pending { path: Vec::new(), id: Tree::ROOT, depth: 0 };
    let report = LayerReport::default();
    let mut reading = Reading { root, build, links: HashMap::new(), pending: vec![first], report };
    while let Some(dir) = reading.pending.pop() {
        reading.directory(&dir)?;
        progress(reading.report.stored_bytes);
    }
    let report = reading.report;
    build.spool.flush().map_err(|source| call("store", b"file contents", source))?;
    build.report.layers.push(report);
    Ok(())
}

fn call(call: &'static str, path: &[u8], source: impl Into<io::Error>) -> DirectoryError {
    DirectoryError::Call { call, path: Escaped::new(path), source: source.into() }
}

impl Reading<'_, '_> {
    fn directory(&mut self, dir: &Pending) -> Result<(), DirectoryError> {
        let path = if dir.path.is_empty() { &b"."[..] } else { &dir.path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let fd = retry_on_intr(|| rustix::fs::openat2(self.root, path, flags, Mode::empty(), inside));
        let fd = fd.map_err(|errno| match errno {
            rustix::io::Errno::XDEV => call("cross into the mount at", path, errno),
            errno => call("open directory", path, errno),
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| call("stat", path, errno))?;
        let attributes = self.xattrs(fd.as_fd(), path)?;
        let inode = self.build.tree.inode_mut(dir.id);
        inode.meta = meta(&stat);
        inode.xattrs = attributes;
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd).map_err(|errno| call("list", path, errno))? {
            let entry = entry.map_err(|errno| call("list", path, errno))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                self.charge(&dir.path, name, dir.depth)?;
                names.push(name.to_vec());
            }
        }
        // The order decides the order of contents in the image.
        names.sort_unstable();
        for name in names {
            self.entry(&fd, dir, &name)?;
        }
        Ok(())
    }

    fn charge(&mut self, dir: &[u8], name: &[u8], depth: usize) -> Result<(), DirectoryError> {
        let budgets = &self.build.meter.budgets;
        let (most, path_bytes) = (budgets.depth, budgets.path_bytes);
        let too_deep = (depth >= most).then_some(("nested directories", most));
        let too_long = (dir.len() + name.len() >= path_bytes).then_some(("bytes of a path", path_bytes));
        let over = match too_deep.or(too_long) {
            Some((what, limit)) => Err(BudgetError { what, limit: limit as u64 }),
            None => self.build.meter.entries(1).and_then(|()| self.build.meter.metadata(name.len())),
        };
        over.map_err(|source| DirectoryError::Budget { path: Escaped::new(dir), source })
    }

    fn entry(&mut self, fd: &OwnedFd, dir: &Pending, name: &[u8]) -> Result<(), DirectoryError> {
        let path = if dir.path.is_empty() { name.to_vec() } else { [&dir.path, &b"/"[..], name].concat() };
        let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| call("stat", &path, errno))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let shared = (kind != FileType::Directory && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        if let Some(&id) = shared.and_then(|key| self.links.get(&key)) {
            self.build.tree.link(dir.id, name, id);
            return Ok(());
        }
        let mut inode = Inode { meta: meta(&stat), xattrs: BTreeMap::new(), kind: Kind::Fifo };
        match kind {
            FileType::Directory => inode.kind = Kind::Dir(BTreeMap::new()),
            FileType::RegularFile => self.file(fd, name, &path, &stat, &mut inode)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(fd, name, Vec::new());
                inode.kind =
                    Kind::Symlink(target.map_err(|errno| call("read link", &path, errno))?.into_bytes());
            }
            FileType::Fifo => {}
            FileType::Socket => {
                self.build.report.sockets_dropped += 1;
                return Ok(());
            }
            _ => {
                self.build.report.devices_dropped += 1;
                return Ok(());
            }
        }
        self.report.entries += 1;
        let full = BudgetError { what: "inodes", limit: u32::MAX.into() };
        let full = |path: &[u8]| DirectoryError::Budget { path: Escaped::new(path), source: full };
        let id = self.build.tree.add(inode).ok_or_else(|| full(&path))?;
        self.build.tree.link(dir.id, name, id);
        if let Some(key) = shared {
            self.links.insert(key, id);
        }
        if kind == FileType::Directory {
            self.pending.push(Pending { path, id, depth: dir.depth + 1 });
        }
        Ok(())
    }

    fn file(
        &mut self,
        fd: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        inode: &mut Inode,
    ) -> Result<(), DirectoryError> {
        // Not blocking: between the two calls somebody could put a pipe in its place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = retry_on_intr(|| rustix::fs::openat(fd, name, flags, Mode::empty()));
        let file = File::from(file.map_err(|errno| call("open", path, errno))?);
        let now = rustix::fs::fstat(&file).map_err(|errno| call("stat", path, errno))?;
        if (now.st_ino, now.st_mode) != (stat.st_ino, stat.st_mode) {
            return Err(DirectoryError::Changed { path: Escaped::new(path) });
        }
        if stat.st_mode & 0o6000 != 0 {
            self.build.report.set_id_files += 1;
        }
        inode.xattrs = self.xattrs(file.as_fd(), path)?;
        let left = self.build.meter.decompressed_left();
        let content = self.build.spool.append_all(&file, left);
        let content = content.map_err(|source| call("copy", path, source))?;
        let budget = self.build.meter.decompressed(content.len);
        budget.map_err(|source| DirectoryError::Budget { path: Escaped::new(path), source })?;
        self.report.stored_bytes += content.len;
        inode.kind = Kind::File(content);
        Ok(())
    }

    fn xattrs(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, DirectoryError> {
        let mut names = [0; 4096];
        let limit = self.build.meter.budgets.xattr_bytes;
        let over = |limit| BudgetError { what: "bytes of one file's extended attributes", limit };
        let over =
            |limit: usize| DirectoryError::Budget { path: Escaped::new(path), source: over(limit as u64) };
        let len = match rustix::fs::flistxattr(fd, &mut names[..]) {
            Ok(len) => len,
            Err(rustix::io::Errno::NOTSUP) => return Ok(BTreeMap::new()),
            Err(rustix::io::Errno::RANGE) => return Err(over(names.len())),
            Err(errno) => return Err(call("list extended attributes of", path, errno)),
        };
        let mut found = Vec::new();
        let mut total = 0;
        for name in names[..len].split(|&b| b == 0).filter(|name| !name.is_empty()) {
            let mut value = Vec::new();
            // Only what is kept is read.
            if name.starts_with(b"user.") {
                value.resize(limit, 0);
                let got = rustix::fs::fgetxattr(fd, name, &mut value[..]);
                let got = match got {
                    Err(rustix::io::Errno::RANGE) => return Err(over(limit)),
                    got => got.map_err(|errno| call("read an extended attribute of", path, errno))?,
                };
                value.truncate(got);
            }
            total += name.len() + value.len();
            found.push((name.to_vec(), value));
        }
        if total > limit {
            return Err(over(limit));
        }
        let budget = self.build.meter.metadata(total);
        budget.map_err(|source| DirectoryError::Budget { path: Escaped::new(path), source })?;
        Ok(self.build.report.keep_xattrs(found, true))
    }
}

fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or_default(),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_s: stat.st_mtime,
        mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}
