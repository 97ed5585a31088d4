//! The full walk: an image is accepted only if our writer would have made the same bytes of metadata.

use std::collections::HashMap;
use std::fs::File;

use super::format::{BLOCK, BLOCK_LEN, MAX_DEPTH, file_type};
use super::plan::{Plan, PlanError, plan};
use super::read::{ErofsReadError, Image, Node, NodeKind};
use crate::tree::{Content, Inode, InodeId, Kind, Tree};

/// Bytes of metadata that are compared at once.
const CHUNK: usize = 1 << 20;

/// Why an image is refused.
#[derive(Debug, thiserror::Error)]
pub enum ErofsCheckError {
    /// A structure can't be read.
    #[error(transparent)]
    Read(#[from] ErofsReadError),
    /// An entry of a directory points to something else than it says.
    #[error("entry `{}` of the directory with inode {dir} is wrong: {what}", name.escape_ascii())]
    Entry {
        /// The directory.
        dir: u64,
        /// The entry.
        name: Vec<u8>,
        /// What is wrong.
        what: &'static str,
    },
    /// More data than the file has bytes: places overlap.
    #[error("data of the image overlaps: inode {nid} is one too many")]
    Overlap {
        /// Where the sum went over the length.
        nid: u64,
    },
    /// The tree is not one that the writer takes.
    #[error("tree of the image is not one that isolab writes")]
    Plan(#[from] PlanError),
    /// Metadata is not as the writer makes it.
    #[error("image is damaged: metadata in the block at byte {at} is not what isolab writes for this tree")]
    Different {
        /// First byte of the first block that differs.
        at: u64,
    },
}

/// What an accepted image holds.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Its tree. Contents have their length but no place: read them through [`Checked::nids`].
    pub tree: Tree,
    /// Inode number of each id, in the order of ids.
    pub nids: Vec<u64>,
}

impl Checked {
    /// Inode number in the image of an inode of the tree.
    #[must_use]
    pub fn nid(&self, id: InodeId) -> u64 {
        self.nids[id.0 as usize]
    }
}

/// Walks the whole image and accepts only what [`super::write`] makes.
///
/// # Errors
/// The first thing that is wrong; never a panic, whatever the bytes.
pub fn check(file: &File) -> Result<Checked, ErofsCheckError> {
    let image = Image::open(file)?;
    let checked = walk(&image)?;
    let mut tails = Ok(());
    let planned = plan(&checked.tree, &mut |id, tail| {
        let read = image.node(checked.nid(id)).and_then(|node| {
            let from = node.size.saturating_sub(tail.len() as u64);
            image.read_at(&node, tail, from)
        });
        if tails.is_ok() {
            tails = read;
        }
        Ok(())
    })?;
    tails?;
    compare(&image, file, &planned)?;
    Ok(checked)
}

/// Reads the tree, breadth first as the writer lays it out.
fn walk(image: &Image<'_>) -> Result<Checked, ErofsCheckError> {
    // Nothing overlaps in an image of ours, so that all parts together are no longer than the file; this bounds
    // the memory of the walk too.
    let mut left = image.len;
    let mut take = |node: &Node| {
        let data = if node.kind == NodeKind::File { 0 } else { node.size };
        left = left.checked_sub(node.unit().max(data)).ok_or(ErofsCheckError::Overlap { nid: node.nid })?;
        Ok::<_, ErofsCheckError>(())
    };
    let root = image.root()?;
    take(&root)?;
    let mut tree = Tree { inodes: vec![inode(image, &root)?] };
    let mut nids = vec![root.nid];
    let mut known = HashMap::from([(root.nid, Tree::ROOT)]);
    let mut queue = vec![(Tree::ROOT, root, root.nid, 0)];
    let mut next = 0;
    while let Some(&(dir_id, dir, parent, depth)) = queue.get(next) {
        next += 1;
        let mut own = [false; 2];
        for entry in image.list(&dir)? {
            let wrong = |what| ErofsCheckError::Entry { dir: dir.nid, name: entry.name.clone(), what };
            if let Some(i) = [b".".as_slice(), b".."].iter().position(|dots| *dots == entry.name) {
                own[i] = entry.nid == [dir.nid, parent][i];
                continue;
            }
            let node = image.node(entry.nid)?;
            if entry.file_type != file_type::dirent(node.raw.mode) {
                return Err(wrong("type differs from the inode"));
            }
            let id = match known.get(&entry.nid) {
                Some(_) if node.kind == NodeKind::Dir => return Err(wrong("directory has a second name")),
                Some(&id) => id,
                None => {
                    take(&node)?;
                    let id = tree.add(inode(image, &node)?).ok_or(PlanError::TooLarge)?;
                    known.insert(entry.nid, id);
                    nids.push(entry.nid);
                    if node.kind == NodeKind::Dir {
                        if depth >= MAX_DEPTH {
                            return Err(wrong("too deep"));
                        }
                        queue.push((id, node, dir.nid, depth + 1));
                    }
                    id
                }
            };
            if let Kind::Dir(names) = &mut tree.inode_mut(dir_id).kind {
                names.insert(entry.name, id);
            }
        }
        if own != [true; 2] {
            let what = "`.` or `..` is missing or leads elsewhere";
            return Err(ErofsCheckError::Entry { dir: dir.nid, name: b".".to_vec(), what });
        }
    }
    Ok(Checked { tree, nids })
}

fn inode(image: &Image<'_>, node: &Node) -> Result<Inode, ErofsCheckError> {
    let kind = match node.kind {
        NodeKind::Dir => Kind::Dir(std::collections::BTreeMap::new()),
        NodeKind::File => Kind::File(Content { offset: 0, len: node.size }),
        NodeKind::Symlink => Kind::Symlink(image.read(node, BLOCK_LEN)?),
        NodeKind::Fifo => Kind::Fifo,
    };
    Ok(Inode { meta: node.meta, xattrs: image.xattrs(node)?, kind })
}

/// Compares metadata, length and padding with the plan.
fn compare(image: &Image<'_>, file: &File, planned: &Plan) -> Result<(), ErofsCheckError> {
    use std::os::unix::fs::FileExt;
    let mut found = vec![0; CHUNK.min(planned.meta.len())];
    let mut read = |at: u64, len: usize| -> Result<Vec<u8>, ErofsCheckError> {
        let part = &mut found[..len];
        file.read_exact_at(part, at).map_err(|source| ErofsReadError::Read { at, len, source })?;
        Ok(part.to_vec())
    };
    if u64::from(planned.blocks) * BLOCK_LEN != image.len {
        return Err(ErofsCheckError::Different { at: 0 });
    }
    let mut at = 0;
    for chunk in planned.meta.chunks(CHUNK) {
        let same = read(at, chunk.len())?;
        let differs = |(a, b): (&[u8], &[u8])| a != b;
        if let Some(block) = chunk.chunks(BLOCK).zip(same.chunks(BLOCK)).position(differs) {
            return Err(ErofsCheckError::Different { at: at + (block * BLOCK) as u64 });
        }
        at += chunk.len() as u64;
    }
    for (_, bytes) in &planned.files {
        let end = at + bytes;
        at += bytes.next_multiple_of(BLOCK_LEN);
        let padding = usize::try_from(at - end).unwrap_or_default();
        if padding > 0 && read(end, padding)?.iter().any(|&b| b != 0) {
            return Err(ErofsCheckError::Different { at: at - BLOCK_LEN });
        }
    }
    Ok(())
}
