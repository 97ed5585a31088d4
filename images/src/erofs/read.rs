//! Reading an image file: by path, or inode by inode. Total: any bytes give a value or an error.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::{
    BLOCK, BLOCK_LEN, CHECKSUM_AT, DIRENT_LEN, INODE_LEN, Layout, MAX_TARGET, META_AT, ROOT_NID, RawInode,
    SLOT, SUPER_AT, SUPER_LEN, Superblock, XATTR_ENTRY_LEN, XATTR_HEADER_LEN, XATTR_PREFIXES, crc32c,
    file_type, u16_at, u32_at, u64_at,
};
use super::plan::is_name;
use crate::tree::Meta;

/// Most symlinks on one way (Linux, `MAXSYMLINKS`).
const MAX_HOPS: usize = 40;
/// Longest path that is looked up (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// Why an image can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ErofsReadError {
    /// Input failed.
    #[error("read {len} bytes of the image at {at}")]
    Read {
        /// Where.
        at: u64,
        /// How many.
        len: usize,
        /// Why.
        source: io::Error,
    },
    /// The superblock is not one that isolab writes.
    #[error("not an image made by isolab: {0} of the superblock")]
    Superblock(&'static str),
    /// A structure that isolab never writes.
    #[error("image is damaged: {what} at byte {at}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// No such file in the image.
    #[error("`{}` does not exist in the image", path.escape_ascii())]
    NotFound {
        /// The path as asked for.
        path: Vec<u8>,
    },
    /// Too many symlinks, or too long.
    #[error("`{}` leads through more than {MAX_HOPS} symlinks or {MAX_PATH} bytes", path.escape_ascii())]
    Loop {
        /// The path as asked for.
        path: Vec<u8>,
    },
    /// Another type or more bytes than the caller takes.
    #[error("inode {nid} of the image is not a {wanted} of at most {cap} bytes")]
    Unfit {
        /// Which inode.
        nid: u64,
        /// What was wanted.
        wanted: &'static str,
        /// Most bytes.
        cap: u64,
    },
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Directory.
    Dir,
    /// Regular file.
    File,
    /// Symlink.
    Symlink,
    /// Named pipe.
    Fifo,
}

/// One inode; its places were found to be inside the image.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Its number.
    pub nid: u64,
    /// What it is.
    pub kind: NodeKind,
    /// Owner, permissions and time.
    pub meta: Meta,
    /// Bytes of content, target or directory.
    pub size: u64,
    /// Names.
    pub nlink: u32,
    pub(super) raw: RawInode,
}

impl Node {
    fn at(&self) -> u64 {
        self.nid * SLOT as u64
    }

    /// Bytes behind the inode.
    fn tail(&self) -> u64 {
        match self.raw.layout {
            Layout::Plain => 0,
            Layout::Inline => self.size % BLOCK_LEN,
        }
    }

    /// Bytes of all that lies at the inode.
    pub(super) fn unit(&self) -> u64 {
        (INODE_LEN + self.raw.xattr_len()) as u64 + self.tail()
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name; `.` and `..` too.
    pub name: Vec<u8>,
    /// The inode's number.
    pub nid: u64,
    pub(super) file_type: u8,
}

/// An image with a good superblock.
#[derive(Debug)]
pub struct Image<'f> {
    file: &'f File,
    pub(super) len: u64,
}

impl<'f> Image<'f> {
    /// Reads and checks the superblock only.
    ///
    /// # Errors
    /// A superblock that we never write, or a file that has another length than it says.
    pub fn open(file: &'f File) -> Result<Self, ErofsReadError> {
        // By seeking: a block device (the lab's view of the store) has no size of its own in its inode.
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::End(0));
        let len = end.map_err(|errno| ErofsReadError::Read { at: 0, len: 0, source: errno.into() })?;
        if len < BLOCK_LEN {
            return Err(ErofsReadError::Superblock("length"));
        }
        let mut block = [0; BLOCK];
        read_at(file, &mut block, 0)?;
        let record = block[SUPER_AT..].first_chunk::<SUPER_LEN>();
        let superblock =
            record.and_then(Superblock::decode).ok_or(ErofsReadError::Superblock("magic or a feature"))?;
        let sum = u32_at(&block, CHECKSUM_AT);
        block[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
        if crc32c(&block[SUPER_AT..]) != sum {
            return Err(ErofsReadError::Superblock("checksum"));
        }
        if u64::from(superblock.blocks) * BLOCK_LEN != len {
            return Err(ErofsReadError::Superblock("number of blocks"));
        }
        Ok(Self { file, len })
    }

    /// The root directory.
    ///
    /// # Errors
    /// See [`ErofsReadError`].
    pub fn root(&self) -> Result<Node, ErofsReadError> {
        self.node(u64::from(ROOT_NID))
    }

    /// The inode of a number.
    ///
    /// # Errors
    /// An inode that we never write, or one that leaves the image.
    pub fn node(&self, nid: u64) -> Result<Node, ErofsReadError> {
        let at = nid.checked_mul(SLOT as u64).filter(|&at| at >= META_AT as u64 && at < self.len);
        let at = at.ok_or(ErofsReadError::Malformed { what: "inode number outside the image", at: nid })?;
        let bad = |what| ErofsReadError::Malformed { what, at };
        if at + INODE_LEN as u64 > self.len {
            return Err(bad("inode cut off"));
        }
        let mut record = [0; INODE_LEN];
        read_at(self.file, &mut record, at)?;
        let raw =
            RawInode::decode(&record).ok_or_else(|| bad("inode of a format that isolab never writes"))?;
        let kind = match raw.mode & file_type::MASK {
            file_type::DIR => NodeKind::Dir,
            file_type::FILE => NodeKind::File,
            file_type::SYMLINK => NodeKind::Symlink,
            file_type::FIFO => NodeKind::Fifo,
            _ => return Err(bad("inode of a type that isolab never writes")),
        };
        let RawInode { uid, gid, mtime_s, mtime_ns, size, nlink, .. } = raw;
        let meta = Meta { mode: raw.mode & !file_type::MASK, uid, gid, mtime_s, mtime_ns };
        let node = Node { nid, kind, meta, size, nlink, raw };
        let sizes = match kind {
            NodeKind::Dir => (2 * DIRENT_LEN + 3) as u64..=self.len,
            NodeKind::File => 0..=self.len,
            NodeKind::Symlink => 1..=MAX_TARGET as u64,
            NodeKind::Fifo => 0..=0,
        };
        if !sizes.contains(&size) {
            return Err(bad("size out of range"));
        }
        let blocks = (size - node.tail()).div_ceil(BLOCK_LEN);
        if (u64::from(raw.block) + blocks) * BLOCK_LEN > self.len || at + node.unit() > self.len {
            return Err(bad("data outside the image"));
        }
        // The kernel's rule for tails: no block boundary inside.
        if node.tail() > 0 && at % BLOCK_LEN + node.unit() > BLOCK_LEN {
            return Err(bad("tail across a block boundary"));
        }
        Ok(node)
    }

    /// Fills `buf` with the node's bytes from `offset` on, which must not reach over its size.
    ///
    /// # Errors
    /// Input that fails.
    pub fn read_at(&self, node: &Node, buf: &mut [u8], offset: u64) -> Result<(), ErofsReadError> {
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= node.size);
        if end.is_none() {
            return Err(unfit(node, "file with these bytes", node.size));
        }
        let in_blocks = node.size - node.tail();
        let first = usize::try_from(in_blocks.saturating_sub(offset)).unwrap_or(buf.len()).min(buf.len());
        let (blocks, tail) = buf.split_at_mut(first);
        if !blocks.is_empty() {
            read_at(self.file, blocks, u64::from(node.raw.block) * BLOCK_LEN + offset)?;
        }
        if !tail.is_empty() {
            let tail_at = node.at() + node.unit() - node.tail();
            read_at(self.file, tail, tail_at + offset.saturating_sub(in_blocks))?;
        }
        Ok(())
    }

    /// All bytes of a node.
    ///
    /// # Errors
    /// More than `cap` bytes, or input that fails.
    pub fn read(&self, node: &Node, cap: u64) -> Result<Vec<u8>, ErofsReadError> {
        let len = usize::try_from(node.size).ok().filter(|_| node.size <= cap);
        let mut bytes = vec![0; len.ok_or_else(|| unfit(node, "file", cap))?];
        self.read_at(node, &mut bytes, 0)?;
        Ok(bytes)
    }

    /// Entries of a directory with `.` and `..`, in byte order.
    ///
    /// # Errors
    /// Not a directory, or entries that we never write.
    pub fn list(&self, dir: &Node) -> Result<Vec<DirEntry>, ErofsReadError> {
        if dir.kind != NodeKind::Dir {
            return Err(unfit(dir, "directory", self.len));
        }
        let bytes = self.read(dir, self.len)?;
        let mut entries: Vec<DirEntry> = Vec::new();
        for block in bytes.chunks(BLOCK) {
            if !dir_block(block, &mut entries) {
                return Err(ErofsReadError::Malformed { what: "entry of the directory", at: dir.at() });
            }
        }
        Ok(entries)
    }

    /// Extended attributes with full names.
    ///
    /// # Errors
    /// Attributes that we never write.
    pub fn xattrs(&self, node: &Node) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ErofsReadError> {
        let mut area = vec![0; node.raw.xattr_len()];
        if area.is_empty() {
            return Ok(BTreeMap::new());
        }
        read_at(self.file, &mut area, node.at() + INODE_LEN as u64)?;
        xattr_area(&area).ok_or_else(|| ErofsReadError::Malformed {
            what: "extended attributes of the inode",
            at: node.at(),
        })
    }

    /// The node of a path, resolved inside the image: `..` stops at the root, absolute targets start there.
    ///
    /// # Errors
    /// Nothing there, a loop, or a damaged image.
    pub fn lookup(&self, path: &[u8]) -> Result<Node, ErofsReadError> {
        let too_long = || ErofsReadError::Loop { path: path.to_vec() };
        let components = |path: &[u8]| -> Vec<Vec<u8>> {
            path.split(|&c| c == b'/').rev().filter(|c| !c.is_empty()).map(<[u8]>::to_vec).collect()
        };
        if path.len() > MAX_PATH {
            return Err(too_long());
        }
        let root = self.root()?;
        let mut todo = components(path);
        let mut parents = Vec::new();
        let mut here = root;
        let mut hops = 0;
        while let Some(name) = todo.pop() {
            if name == b"." {
                continue;
            }
            if name == b".." {
                here = parents.pop().unwrap_or(root);
                continue;
            }
            let not_found = || ErofsReadError::NotFound { path: path.to_vec() };
            if here.kind != NodeKind::Dir {
                return Err(not_found());
            }
            let entry =
                self.list(&here)?.into_iter().find(|entry| entry.name == name).ok_or_else(not_found)?;
            let next = self.node(entry.nid)?;
            if next.kind == NodeKind::Symlink {
                hops += 1;
                let target = self.read(&next, MAX_TARGET as u64)?;
                let rest: usize = todo.iter().map(|c| c.len() + 1).sum();
                if hops > MAX_HOPS || target.len() + rest > MAX_PATH {
                    return Err(too_long());
                }
                if target.first() == Some(&b'/') {
                    parents.clear();
                    here = root;
                }
                todo.extend(components(&target));
            } else {
                parents.push(std::mem::replace(&mut here, next));
            }
        }
        Ok(here)
    }
}

fn read_at(file: &File, buf: &mut [u8], at: u64) -> Result<(), ErofsReadError> {
    let len = buf.len();
    file.read_exact_at(buf, at).map_err(|source| ErofsReadError::Read { at, len, source })
}

fn unfit(node: &Node, wanted: &'static str, cap: u64) -> ErofsReadError {
    ErofsReadError::Unfit { nid: node.nid, wanted, cap }
}

/// Appends the entries of one block; false where they are not as we write them.
fn dir_block(block: &[u8], entries: &mut Vec<DirEntry>) -> bool {
    let names_at = usize::from(u16_at(block, 8));
    let count = names_at / DIRENT_LEN;
    if count == 0 || names_at % DIRENT_LEN != 0 || names_at > block.len() {
        return false;
    }
    let name_at = |i: usize| usize::from(u16_at(block, i * DIRENT_LEN + 8));
    for i in 0..count {
        let start = name_at(i);
        let name = if i + 1 < count {
            block.get(start..name_at(i + 1))
        } else {
            // The last name ends with the block or at the zeros that fill it.
            block.get(start..).and_then(|rest| rest.split(|&c| c == 0).next())
        };
        let Some(name) = name.filter(|name| is_name(name) || *name == b"." || *name == b"..") else {
            return false;
        };
        if entries.last().is_some_and(|last| last.name.as_slice() >= name) {
            return false;
        }
        let at = i * DIRENT_LEN;
        let [file_type, 0] = block[at + 10..at + DIRENT_LEN] else { return false };
        entries.push(DirEntry { name: name.to_vec(), nid: u64_at(block, at), file_type });
    }
    true
}

/// Attributes of an area; nothing where they are not as we write them.
fn xattr_area(area: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let (header, mut rest) = area.split_at_checked(XATTR_HEADER_LEN)?;
    if header.iter().any(|&b| b != 0) || rest.is_empty() {
        return None;
    }
    let mut all = BTreeMap::new();
    while !rest.is_empty() {
        let &[name_len, index, v0, v1] = rest.first_chunk()?;
        let value_at = XATTR_ENTRY_LEN + usize::from(name_len);
        let end = value_at + usize::from(u16::from_le_bytes([v0, v1]));
        let &(_, prefix) = XATTR_PREFIXES.iter().find(|(i, _)| *i == index)?;
        let name = [prefix, rest.get(XATTR_ENTRY_LEN..value_at)?].concat();
        let value = rest.get(value_at..end)?.to_vec();
        if all.insert(name, value).is_some() {
            return None;
        }
        rest = rest.get(end.next_multiple_of(XATTR_ENTRY_LEN)..)?;
    }
    Some(all)
}
