//! Layout: where each inode, directory and content of a tree lies, and all bytes but the contents.
//!
//! Order: superblock and inodes (breadth first, so that the inodes of one directory are neighbours), then whole
//! blocks of directories and symlinks, then whole blocks of files. An inode with attributes and tail crosses no
//! block boundary unless it is larger than a block; then it starts one.

use std::io;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::format::{
    BLOCK, BLOCK_LEN, CHECKSUM_AT, DIRENT_LEN, INODE_LEN, Layout, MAX_DEPTH, MAX_NAME, MAX_TARGET, META_AT,
    ROOT_NID, RawInode, SLOT, SUPER_AT, SUPER_LEN, Superblock, UUID_AT, XATTR_ENTRY_LEN, XATTR_HEADER_LEN,
    XATTR_PREFIXES, crc32c, file_type,
};
use crate::tree::{Inode, InodeId, Kind, Meta, Tree};

/// Longest tail of a file that goes behind its inode. Longer ones waste little of a block, and keeping them out
/// keeps the inodes close together, which is what a directory walk reads.
const MAX_FILE_TAIL: usize = 1024;

/// Why a tree has no EROFS form.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A name that no directory can hold.
    #[error("name `{}` in a directory is empty, longer than {MAX_NAME} bytes, `.`, `..`, or holds `/` or NUL", name.escape_ascii())]
    Name {
        /// The name.
        name: Vec<u8>,
    },
    /// Two names for one directory.
    #[error("directory `{}` has a second name", name.escape_ascii())]
    SharedDirectory {
        /// The second name.
        name: Vec<u8>,
    },
    /// Too deep.
    #[error("directory `{}` is more than {MAX_DEPTH} levels deep", name.escape_ascii())]
    Depth {
        /// Its last component.
        name: Vec<u8>,
    },
    /// An attribute of unknown kind or too large.
    #[error("extended attribute `{}` of {len} bytes does not fit or has an unknown prefix", name.escape_ascii())]
    Xattr {
        /// The attribute.
        name: Vec<u8>,
        /// Bytes of its value.
        len: usize,
    },
    /// An empty or overlong target.
    #[error("target of a symlink has {len} bytes instead of 1 to {MAX_TARGET}")]
    Target {
        /// Its bytes.
        len: usize,
    },
    /// Mode or time out of range.
    #[error("mode {:#o} or nanoseconds {} of an inode is out of range", .0.mode, .0.mtime_ns)]
    Meta(Meta),
    /// More than the numbers on disk can say.
    #[error("image is over the limit of 16 TiB or 2^32 inodes")]
    TooLarge,
    /// The end of a file's content.
    #[error("read the tail of a file")]
    Tail(#[source] io::Error),
}

/// All but the contents.
#[derive(Debug)]
pub(super) struct Plan {
    /// First blocks of the image, complete.
    pub(super) meta: Vec<u8>,
    /// Files with whole blocks, in the order of the blocks: id and bytes in them. The first follows `meta`, each
    /// next one follows the padded one before.
    pub(super) files: Vec<(InodeId, u64)>,
    /// Blocks of the image.
    pub(super) blocks: u32,
    /// Inodes of the image.
    pub(super) inodes: u64,
}

/// One inode on its way to disk.
struct Item<'t> {
    id: InodeId,
    inode: &'t Inode,
    /// Index of the directory that holds it (the root: itself).
    parent: usize,
    depth: usize,
    nlink: u32,
    xattrs: Vec<u8>,
    size: u64,
    layout: Layout,
    /// Byte in the image.
    at: usize,
    block: u32,
}

impl Item<'_> {
    /// Bytes behind the inode.
    fn tail(&self) -> usize {
        match self.layout {
            Layout::Plain => 0,
            Layout::Inline => (self.size % BLOCK_LEN) as usize,
        }
    }

    /// Bytes in whole blocks.
    fn in_blocks(&self) -> u64 {
        self.size - self.tail() as u64
    }

    fn nid(&self) -> u64 {
        (self.at / SLOT) as u64
    }
}

/// Lays out a tree; `tails` fills in the last bytes of a file's content.
pub(super) fn plan(
    tree: &Tree,
    tails: &mut dyn FnMut(InodeId, &mut [u8]) -> io::Result<()>,
) -> Result<Plan, PlanError> {
    let (mut items, index) = walk(tree)?;
    for i in 0..items.len() {
        size(&mut items, i)?;
    }
    let meta_end = place_inodes(&mut items);
    let (meta_blocks, blocks) = place_blocks(&mut items, meta_end)?;
    let mut meta = vec![0; meta_blocks as usize * BLOCK];
    let inodes = items.len() as u64;
    let head = Superblock { inodes, blocks }.encode();
    meta[SUPER_AT..SUPER_AT + SUPER_LEN].copy_from_slice(&head);
    for (i, item) in items.iter().enumerate() {
        let ino = u32::try_from(i + 1).map_err(|_| PlanError::TooLarge)?;
        meta[item.at..item.at + INODE_LEN].copy_from_slice(&raw(item, ino).encode());
        let xattrs_at = item.at + INODE_LEN;
        let tail_at = xattrs_at + item.xattrs.len();
        meta[xattrs_at..tail_at].copy_from_slice(&item.xattrs);
        let tail = tail_at..tail_at + item.tail();
        match &item.inode.kind {
            Kind::Dir(_) => put(&mut meta, item, tail, &directory(&items, &index, i)),
            Kind::Symlink(target) => put(&mut meta, item, tail, target),
            Kind::File(_) if !tail.is_empty() => {
                tails(item.id, &mut meta[tail]).map_err(PlanError::Tail)?;
            }
            Kind::File(_) | Kind::Fifo => {}
        }
    }
    seal(&mut meta);
    let files = items
        .iter()
        .filter(|item| matches!(item.inode.kind, Kind::File(_)) && item.in_blocks() > 0)
        .map(|item| (item.id, item.in_blocks()))
        .collect();
    Ok(Plan { meta, files, blocks, inodes })
}

/// Inodes in order with their link counts, and the place of each id in that order.
fn walk(tree: &Tree) -> Result<(Vec<Item<'_>>, Vec<usize>), PlanError> {
    const NOT_YET: usize = usize::MAX;
    let item = |id, parent, depth, nlink| -> Result<Item<'_>, PlanError> {
        let inode = tree.inode(id);
        if inode.meta.mode & !0o7777 != 0 || inode.meta.mtime_ns >= 1_000_000_000 {
            return Err(PlanError::Meta(inode.meta));
        }
        let (xattrs, layout) = (encode_xattrs(inode)?, Layout::Plain);
        Ok(Item { id, inode, parent, depth, nlink, xattrs, size: 0, layout, at: 0, block: 0 })
    };
    let mut index = vec![NOT_YET; tree.inodes.len()];
    index[0] = 0;
    let mut items = vec![item(Tree::ROOT, 0, 0, 2)?];
    let mut next = 0;
    while let Some(&Item { inode, depth, .. }) = items.get(next) {
        if let Kind::Dir(names) = &inode.kind {
            for (name, &id) in names {
                check_name(name)?;
                let is_dir = matches!(tree.inode(id).kind, Kind::Dir(_));
                let slot = &mut index[id.0 as usize];
                if *slot != NOT_YET {
                    if is_dir {
                        return Err(PlanError::SharedDirectory { name: name.clone() });
                    }
                    items[*slot].nlink = items[*slot].nlink.checked_add(1).ok_or(PlanError::TooLarge)?;
                    continue;
                }
                if is_dir && depth >= MAX_DEPTH {
                    return Err(PlanError::Depth { name: name.clone() });
                }
                *slot = items.len();
                items.push(item(id, next, depth + 1, if is_dir { 2 } else { 1 })?);
                if is_dir {
                    items[next].nlink = items[next].nlink.checked_add(1).ok_or(PlanError::TooLarge)?;
                }
            }
        }
        next += 1;
    }
    Ok((items, index))
}

fn check_name(name: &[u8]) -> Result<(), PlanError> {
    if is_name(name) { Ok(()) } else { Err(PlanError::Name { name: name.to_vec() }) }
}

/// Whether a directory can hold this name.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|&c| c == b'/' || c == 0)
}

/// The attribute area of an inode; empty without attributes.
fn encode_xattrs(inode: &Inode) -> Result<Vec<u8>, PlanError> {
    if inode.xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = vec![0; XATTR_HEADER_LEN];
    for (name, value) in &inode.xattrs {
        let refuse = || PlanError::Xattr { name: name.clone(), len: value.len() };
        let (index, rest) = XATTR_PREFIXES
            .iter()
            .find_map(|&(index, prefix)| Some((index, name.strip_prefix(prefix)?)))
            .filter(|(index, rest)| rest.is_empty() == matches!(index, 2 | 3) && !rest.contains(&0))
            .ok_or_else(refuse)?;
        let name_len = u8::try_from(rest.len()).map_err(|_| refuse())?;
        let value_len = u16::try_from(value.len()).map_err(|_| refuse())?;
        out.extend_from_slice(&[name_len, index]);
        out.extend_from_slice(&value_len.to_le_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(XATTR_ENTRY_LEN), 0);
        if (out.len() - XATTR_HEADER_LEN) / 4 >= usize::from(u16::MAX) {
            return Err(refuse());
        }
    }
    Ok(out)
}

/// Fills in size and layout of an item.
fn size(items: &mut [Item<'_>], i: usize) -> Result<(), PlanError> {
    let (size, max_tail) = match &items[i].inode.kind {
        Kind::Dir(_) => (dir_size(&names(items[i].inode)), BLOCK),
        Kind::Symlink(target) if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) => {
            return Err(PlanError::Target { len: target.len() });
        }
        Kind::Symlink(target) => (target.len() as u64, BLOCK),
        Kind::File(content) => (content.len, MAX_FILE_TAIL),
        Kind::Fifo => (0, 0),
    };
    let tail = (size % BLOCK_LEN) as usize;
    let item = &mut items[i];
    let fits = INODE_LEN + item.xattrs.len() + tail <= BLOCK;
    item.size = size;
    item.layout = if tail > 0 && tail <= max_tail && fits { Layout::Inline } else { Layout::Plain };
    Ok(())
}

/// Places the inodes; the first free byte behind them.
fn place_inodes(items: &mut [Item<'_>]) -> usize {
    let mut next = META_AT;
    for item in items {
        let len = INODE_LEN + item.xattrs.len() + item.tail();
        let at = next.next_multiple_of(SLOT);
        let crosses = at % BLOCK + len > BLOCK;
        item.at = if crosses { at.next_multiple_of(BLOCK) } else { at };
        next = item.at + len;
    }
    next
}

/// Places whole blocks; blocks of metadata and of all.
fn place_blocks(items: &mut [Item<'_>], meta_end: usize) -> Result<(u32, u32), PlanError> {
    let mut next = u32::try_from(meta_end.div_ceil(BLOCK)).map_err(|_| PlanError::TooLarge)?;
    let mut ends = [0; 2];
    for (files, end) in [false, true].into_iter().zip(&mut ends) {
        for item in items.iter_mut() {
            if matches!(item.inode.kind, Kind::File(_)) == files && item.in_blocks() > 0 {
                item.block = next;
                let blocks = u32::try_from(item.in_blocks().div_ceil(BLOCK_LEN));
                let sum = blocks.ok().and_then(|blocks| next.checked_add(blocks));
                next = sum.ok_or(PlanError::TooLarge)?;
            }
        }
        *end = next;
    }
    Ok((ends[0], ends[1]))
}

fn mode(inode: &Inode) -> u16 {
    let kind = match inode.kind {
        Kind::Dir(_) => file_type::DIR,
        Kind::File(_) => file_type::FILE,
        Kind::Symlink(_) => file_type::SYMLINK,
        Kind::Fifo => file_type::FIFO,
    };
    kind | inode.meta.mode
}

fn raw(item: &Item<'_>, ino: u32) -> RawInode {
    let Meta { uid, gid, mtime_s, mtime_ns, .. } = item.inode.meta;
    let words = item.xattrs.len().saturating_sub(XATTR_HEADER_LEN) / 4;
    let xattr_count = match u16::try_from(words) {
        Ok(0) | Err(_) => 0,
        Ok(words) => words + 1,
    };
    RawInode {
        layout: item.layout,
        xattr_count,
        mode: mode(item.inode),
        size: item.size,
        block: item.block,
        ino,
        uid,
        gid,
        mtime_s,
        mtime_ns,
        nlink: item.nlink,
    }
}

/// Names of a directory with `.` and `..` in their places.
fn names(inode: &Inode) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = vec![b".", b".."];
    if let Kind::Dir(map) = &inode.kind {
        names.extend(map.keys().map(Vec::as_slice));
    }
    names.sort_unstable();
    names
}

/// Which names go to which block: as many as fit, and the bytes of each block.
fn pack<'a>(names: &'a [&[u8]]) -> impl Iterator<Item = (Range<usize>, usize)> + 'a {
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut used = 0;
        let mut end = start;
        while let Some(name) = names.get(end).filter(|name| used + DIRENT_LEN + name.len() <= BLOCK) {
            used += DIRENT_LEN + name.len();
            end += 1;
        }
        let range = start..end;
        start = end;
        (!range.is_empty()).then_some((range, used))
    })
}

fn dir_size(names: &[&[u8]]) -> u64 {
    let (count, last) = pack(names).fold((0, 0), |(n, _), (_, used)| (n + 1, used as u64));
    (count - 1) * BLOCK_LEN + last
}

/// Bytes of a directory: in each block the entries, then their names; all blocks but the last are full.
fn directory(items: &[Item<'_>], index: &[usize], i: usize) -> Vec<u8> {
    let item = &items[i];
    let mut out = Vec::new();
    let Kind::Dir(map) = &item.inode.kind else { return out };
    let names = names(item.inode);
    let target = |name: &[u8]| match (name, map.get(name)) {
        (b"..", _) => &items[item.parent],
        (_, Some(id)) => &items[index[id.0 as usize]],
        (_, None) => item, // `.`
    };
    for (range, _) in pack(&names) {
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        let mut name_at = range.len() * DIRENT_LEN;
        for name in &names[range.clone()] {
            let to = target(name);
            out.extend_from_slice(&to.nid().to_le_bytes());
            // Offsets are below 4096.
            out.extend_from_slice(&u16::try_from(name_at).unwrap_or_default().to_le_bytes());
            out.extend_from_slice(&[file_type::dirent(mode(to.inode)), 0]);
            name_at += name.len();
        }
        names[range].iter().for_each(|name| out.extend_from_slice(name));
    }
    out
}

/// Writes the data of a directory or symlink to its places.
fn put(meta: &mut [u8], item: &Item<'_>, tail: Range<usize>, data: &[u8]) {
    let (blocks, rest) = data.split_at(data.len() - tail.len());
    let at = item.block as usize * BLOCK;
    meta[at..at + blocks.len()].copy_from_slice(blocks);
    meta[tail].copy_from_slice(rest);
}

/// UUID from the metadata, then the checksum of the first block.
pub(super) fn seal(meta: &mut [u8]) {
    let digest = Sha256::digest(&*meta);
    meta[UUID_AT..UUID_AT + 16].copy_from_slice(&digest[..16]);
    // Version 8 (own scheme), variant of RFC 9562.
    meta[UUID_AT + 6] = meta[UUID_AT + 6] & 0x0f | 0x80;
    meta[UUID_AT + 8] = meta[UUID_AT + 8] & 0x3f | 0x80;
    let sum = crc32c(&meta[SUPER_AT..BLOCK]);
    meta[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
}

const _: () = assert!(META_AT == ROOT_NID as usize * SLOT, "the root is the first inode");
