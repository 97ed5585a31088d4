//! The tree: one image's files in memory, names as bytes, links as data.
//!
//! File contents lie in a [`Spool`], one anonymous temporary file; an inode holds only offset and length.

use std::collections::BTreeMap;
use std::fs::File;

/// Index of an inode in its [`Tree`]; several names with the same id are hard links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub(crate) u32);

/// Owner, permissions and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-id and sticky bits: `mode & 0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime_s: i64,
    /// Nanoseconds part.
    pub mtime_ns: u32,
}

/// A range of the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// First byte in the spool.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Names in byte order.
    Dir(BTreeMap<Vec<u8>, InodeId>),
    /// Regular file.
    File(Content),
    /// Target as data.
    Symlink(Vec<u8>),
    /// Named pipe.
    Fifo,
}

/// One inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Owner, permissions and time.
    pub meta: Meta,
    /// Full names (`user.x`) and values.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it is.
    pub kind: Kind,
}

/// All files of an image. Inode 0 is the root directory; inodes that no name reaches any more (whiteouts) stay
/// in the list and are not written.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(crate) inodes: Vec<Inode>,
}

impl Tree {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// A tree with an empty root of mode 0755.
    #[must_use]
    pub fn new() -> Self {
        let meta = Meta { mode: 0o755, ..Meta::default() };
        Self { inodes: vec![Inode { meta, xattrs: BTreeMap::new(), kind: Kind::Dir(BTreeMap::new()) }] }
    }

    /// The inode of an id of this tree.
    #[must_use]
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.0 as usize]
    }

    /// The same, to change.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.0 as usize]
    }

    /// Adds an inode that no name reaches yet; nothing at 2^32 inodes.
    pub fn add(&mut self, inode: Inode) -> Option<InodeId> {
        let id = InodeId(u32::try_from(self.inodes.len()).ok()?);
        self.inodes.push(inode);
        Some(id)
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

/// File contents of a tree under construction: an unnamed temporary file, appended to.
#[derive(Debug)]
pub struct Spool {
    /// The file, open for reading and writing.
    pub file: File,
    /// Bytes written so far.
    pub len: u64,
}
