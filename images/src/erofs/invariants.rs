//! What holds for any tree and any image file: for the property tests beside this and for fuzz targets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::format::{CHECKSUM_AT, UUID_AT};
use super::*;
use crate::tree::{Content, Inode, InodeId, Kind, Meta, Spool, Tree};

/// A file system as a nested value, so that generators can make it and shrink it.
#[derive(Clone, Debug)]
pub enum Sketch {
    /// Attributes, names.
    Dir(Meta, Xattrs, BTreeMap<Vec<u8>, Sketch>),
    /// Attributes, contents.
    File(Meta, Xattrs, Vec<u8>),
    /// Target.
    Symlink(Meta, Vec<u8>),
    /// Named pipe.
    Fifo(Meta),
    /// Another name for an earlier inode that is no directory, by its number modulo their count.
    Link(usize),
}

/// Full names and values.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A tree that is written gives the same bytes twice, is accepted, and reads back as it was.
pub fn round_trip(root: BTreeMap<Vec<u8>, Sketch>) {
    let (tree, spool) = build(root);
    let (file, written) = image(&tree, &spool);
    let (again, written_again) = image(&tree, &spool);
    assert_eq!(written, written_again);
    assert!(bytes(&file) == bytes(&again), "another image of the same tree");
    assert_eq!(file.metadata().expect("metadata").len(), written.len);
    let checked = check(&file).expect("accept what the writer made");
    assert_eq!(checked.nids.len() as u64, written.inodes);
    assert_same((&tree, &spool), (&checked, &Image::open(&file).expect("open")));
}

/// The image of a tree.
#[must_use]
pub fn image_of(root: BTreeMap<Vec<u8>, Sketch>) -> Vec<u8> {
    let (tree, spool) = build(root);
    bytes(&image(&tree, &spool).0)
}

/// A file that is accepted is what the writer makes of the tree that it holds, to the last byte; of any other, each part is
/// read or refused.
pub fn accepted_or_refused(image: &[u8]) {
    let file = tempfile::tempfile().expect("temporary file");
    file.write_all_at(image, 0).expect("write");
    if let Ok(checked) = check(&file) {
        assert!(bytes(&written_again(&file, &checked)) == image, "accepted, and not what the writer makes");
    }
    let Ok(open) = Image::open(&file) else { return };
    for path in [&b"/"[..], b"/a", b"/dir/../a", b"link", b"dir/link/a"] {
        if let Ok(node) = open.lookup(path) {
            // A file that says it is larger than the image is refused before memory is taken for it.
            let most = open.read(&node, u64::MAX).map_or(0, |data| data.len());
            assert!(most <= image.len(), "{most} bytes out of {}", image.len());
        }
    }
}

/// Makes identity and checksum of metadata right again, as somebody would who knows them.
pub fn reseal(meta: &mut [u8]) {
    if meta.len() >= BLOCK {
        meta[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
        meta[UUID_AT..UUID_AT + 16].fill(0);
        super::plan::seal(meta);
    }
}

/// What the writer makes of the tree of an image.
pub(super) fn written_again(file: &File, checked: &Checked) -> File {
    let open = Image::open(file).expect("open");
    let (mut copy, mut copied) = (checked.tree.clone(), self::spool());
    for (id, nid) in (0..).map(InodeId).zip(&checked.nids) {
        if let Kind::File(content) = &mut copy.inode_mut(id).kind {
            let data = open.read(&open.node(*nid).expect("node"), u64::MAX).expect("read");
            *content = Content { offset: copied.len, len: data.len() as u64 };
            copied.len += content.len;
            copied.file.write_all(&data).expect("write the spool");
        }
    }
    image(&copy, &copied).0
}

pub(super) fn spool() -> Spool {
    Spool { file: tempfile::tempfile().expect("temporary file"), len: 0 }
}

pub(super) fn build(root: BTreeMap<Vec<u8>, Sketch>) -> (Tree, Spool) {
    let (mut tree, mut spool, mut leaves) = (Tree::new(), spool(), Vec::new());
    fill(&mut tree, &mut spool, &mut leaves, Tree::ROOT, root);
    (tree, spool)
}

fn fill(
    tree: &mut Tree,
    spool: &mut Spool,
    leaves: &mut Vec<InodeId>,
    dir: InodeId,
    children: BTreeMap<Vec<u8>, Sketch>,
) {
    for (name, child) in children {
        let mut add = |meta, xattrs, kind| tree.add(Inode { meta, xattrs, kind }).expect("few inodes");
        let id = match child {
            Sketch::Link(_) if leaves.is_empty() => continue,
            Sketch::Link(index) => leaves[index % leaves.len()],
            Sketch::Dir(meta, xattrs, children) => {
                let id = add(meta, xattrs, Kind::Dir(BTreeMap::new()));
                fill(tree, spool, leaves, id, children);
                id
            }
            Sketch::File(meta, xattrs, data) => {
                spool.file.write_all(&data).expect("write the spool");
                let content = Content { offset: spool.len, len: data.len() as u64 };
                spool.len += content.len;
                add(meta, xattrs, Kind::File(content))
            }
            Sketch::Symlink(meta, target) => add(meta, Xattrs::new(), Kind::Symlink(target)),
            Sketch::Fifo(meta) => add(meta, Xattrs::new(), Kind::Fifo),
        };
        if !matches!(tree.inode(id).kind, Kind::Dir(_)) {
            leaves.push(id);
        }
        if let Kind::Dir(names) = &mut tree.inode_mut(dir).kind {
            names.insert(name, id);
        }
    }
}

pub(super) fn image(tree: &Tree, spool: &Spool) -> (File, Written) {
    let file = tempfile::tempfile().expect("temporary file");
    let written = write(tree, spool, &file).expect("write the image");
    (file, written)
}

fn content(spool: &Spool, content: Content) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(content.len).expect("small")];
    spool.file.read_exact_at(&mut bytes, content.offset).expect("read the spool");
    bytes
}

/// Compares by names, so that the order of ids does not matter; the model's links must be links in the image.
fn assert_same(model: (&Tree, &Spool), found: (&Checked, &Image<'_>)) {
    let mut pairs = BTreeMap::new();
    let mut todo = vec![(Tree::ROOT, Tree::ROOT)];
    while let Some((a, b)) = todo.pop() {
        if let Some(before) = pairs.insert(a, b) {
            assert_eq!(before, b, "a link became two inodes");
            continue;
        }
        let (x, y) = (model.0.inode(a), found.0.tree.inode(b));
        assert_eq!((x.meta, &x.xattrs), (y.meta, &y.xattrs));
        let node = found.1.node(found.0.nid(b)).expect("node");
        match (&x.kind, &y.kind) {
            (Kind::Dir(m), Kind::Dir(n)) => {
                assert!(m.keys().eq(n.keys()));
                todo.extend(m.values().copied().zip(n.values().copied()));
            }
            (Kind::File(c), Kind::File(_)) => {
                assert_eq!(found.1.read(&node, u64::MAX).expect("read"), content(model.1, *c));
            }
            (k, l) => assert_eq!(k, l),
        }
    }
    let distinct: BTreeSet<_> = pairs.values().collect();
    assert_eq!(distinct.len(), pairs.len(), "two inodes became one");
}

pub(super) fn bytes(file: &File) -> Vec<u8> {
    let (mut file, mut bytes) = (file, Vec::new());
    file.seek(SeekFrom::Start(0)).expect("seek");
    file.read_to_end(&mut bytes).expect("read");
    bytes
}
