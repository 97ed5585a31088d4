//! A private copy of an image as plain files, for users who can't mount EROFS.
//!
//! Every call names one component below an open directory, with `RESOLVE_BENEATH` and without symlinks, so no
//! name of the image leads out. All files belong to the caller; the copy has no set-id bits, no extended
//! attributes, and each directory can be entered and changed by its owner (else nobody could remove it).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat,
    mknodat, openat2, symlinkat, utimensat,
};

use crate::erofs::{self, Checked, ErofsCheckError, ErofsReadError, Image};
use crate::tree::{InodeId, Kind, Meta, Tree};

/// Bytes copied at once.
const CHUNK: u64 = 1 << 20;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The image is not one of ours.
    #[error("check the image")]
    Check(#[from] ErofsCheckError),
    /// Contents can't be read.
    #[error("read the image")]
    Read(#[from] ErofsReadError),
    /// A file of the copy can't be made.
    #[error("{step} `{}` of the private copy", name.escape_ascii())]
    Make {
        /// What was tried.
        step: &'static str,
        /// Last component of the file.
        name: Vec<u8>,
        /// Why it failed.
        source: io::Error,
    },
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Inodes.
    pub inodes: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Copies the image into an empty directory of the caller's (see [`crate::store::Store::scratch`]). After an error the directory
/// holds a part; the caller removes it.
///
/// # Errors
/// An image that our writer did not make, or a file that can't be made.
pub fn unpack(image: &File, into: impl AsFd) -> Result<Unpacked, UnpackError> {
    let checked = erofs::check(image)?;
    let image = Image::open(image)?;
    let mut copy = Copy {
        checked: &checked,
        image,
        dirs: vec![(Vec::new(), 0)],
        places: HashMap::new(),
        done: Unpacked::default(),
    };
    copy.done.inodes = 1;
    let mut ids = vec![Tree::ROOT];
    let mut next = 0;
    while let Some(&id) = ids.get(next) {
        let dir = copy.open(&into, next)?;
        if let Kind::Dir(names) = &checked.tree.inode(id).kind {
            for (name, &child) in names {
                if copy.child(&into, &dir, next, name, child)? {
                    copy.dirs.push((name.clone(), next));
                    ids.push(child);
                }
            }
        }
        next += 1;
    }
    // Last and from below, because each new file changes its directory's time.
    for (index, &id) in ids.iter().enumerate().rev() {
        let meta = checked.tree.inode(id).meta;
        let dir = copy.open(&into, index)?;
        finish(&dir, meta, meta.mode & 0o1777 | 0o700)
            .map_err(|e| make("set mode and time of", &copy.dirs[index].0, e))?;
    }
    Ok(copy.done)
}

struct Copy<'a> {
    checked: &'a Checked,
    image: Image<'a>,
    /// Name and parent of each directory.
    dirs: Vec<(Vec<u8>, usize)>,
    /// Where an inode has its first name.
    places: HashMap<InodeId, (usize, Vec<u8>)>,
    done: Unpacked,
}

impl Copy<'_> {
    /// Opens a directory of the copy, component by component.
    fn open(&self, root: impl AsFd, index: usize) -> Result<OwnedFd, UnpackError> {
        let mut way = Vec::new();
        let mut at = index;
        while at != 0 {
            way.push(self.dirs[at].0.as_slice());
            at = self.dirs[at].1;
        }
        let mut dir = open_dir(root, b".")?;
        for name in way.into_iter().rev() {
            dir = open_dir(&dir, name)?;
        }
        Ok(dir)
    }

    /// Makes one entry; true for a directory.
    fn child(
        &mut self,
        root: impl AsFd,
        dir: &OwnedFd,
        index: usize,
        name: &[u8],
        id: InodeId,
    ) -> Result<bool, UnpackError> {
        if let Some((first, first_name)) = self.places.get(&id) {
            let from = self.open(root, *first)?;
            linkat(&from, first_name.as_slice(), dir, name, AtFlags::empty())
                .map_err(|e| make("link", name, e))?;
            return Ok(false);
        }
        let inode = self.checked.tree.inode(id);
        self.done.inodes += 1;
        match &inode.kind {
            Kind::Dir(_) => {
                mkdirat(dir, name, Mode::RWXU).map_err(|e| make("make directory", name, e))?;
                return Ok(true);
            }
            Kind::File(content) => {
                self.done.bytes += content.len;
                self.file(dir, name, id, inode.meta)?;
            }
            Kind::Symlink(target) => {
                symlinkat(target.as_slice(), dir, name).map_err(|e| make("make symlink", name, e))?;
                times_at(dir, name, inode.meta)?;
            }
            Kind::Fifo => {
                let mode = Mode::from_bits_truncate(u32::from(inode.meta.mode & 0o777));
                mknodat(dir, name, FileType::Fifo, mode, 0).map_err(|e| make("make named pipe", name, e))?;
                times_at(dir, name, inode.meta)?;
            }
        }
        self.places.insert(id, (index, name.to_vec()));
        Ok(false)
    }

    fn file(&self, dir: &OwnedFd, name: &[u8], id: InodeId, meta: Meta) -> Result<(), UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat2(dir, name, flags, Mode::RUSR | Mode::WUSR, beneath())
            .map_err(|e| make("create file", name, e))?;
        let mut file = File::from(file);
        let node = self.image.node(self.checked.nid(id))?;
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < node.size {
            let len = CHUNK.min(node.size - at);
            buffer.resize(usize::try_from(len).unwrap_or_default(), 0);
            self.image.read_at(&node, &mut buffer, at)?;
            file.write_all(&buffer).map_err(|source| UnpackError::Make {
                step: "write file",
                name: name.to_vec(),
                source,
            })?;
            at += len;
        }
        finish(&file, meta, meta.mode & 0o777).map_err(|e| make("set mode and time of", name, e))
    }
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV
}

fn open_dir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, UnpackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(dir, name, flags, Mode::empty(), beneath()).map_err(|e| make("open directory", name, e))
}

fn times(meta: Meta) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime_s, tv_nsec: meta.mtime_ns.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn times_at(dir: &OwnedFd, name: &[u8], meta: Meta) -> Result<(), UnpackError> {
    utimensat(dir, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| make("set time of", name, e))
}

fn finish(file: impl AsFd, meta: Meta, mode: u16) -> rustix::io::Result<()> {
    fchmod(&file, Mode::from_bits_truncate(mode.into()))?;
    futimens(&file, &times(meta))
}

fn make(step: &'static str, name: &[u8], source: rustix::io::Errno) -> UnpackError {
    UnpackError::Make { step, name: name.to_vec(), source: source.into() }
}
