//! A tree with every shape that writers treat differently, and its comparison with a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use isolab_images::tree::{Content, Inode, InodeId, Kind, Meta, Spool, Tree};

/// A model that is built by hand, with its contents in memory.
pub(crate) struct Model {
    pub(crate) tree: Tree,
    pub(crate) spool: Spool,
    pub(crate) contents: BTreeMap<InodeId, Vec<u8>>,
    next: u32,
}

impl Model {
    fn new() -> Self {
        let spool = Spool { file: tempfile::tempfile().expect("temporary file"), len: 0 };
        Self { tree: Tree::new(), spool, contents: BTreeMap::new(), next: 0 }
    }

    fn add(&mut self, dir: InodeId, name: &[u8], kind: Kind) -> InodeId {
        self.next += 1;
        let n = self.next;
        // Elsewhere symlinks have this mode always.
        let symlink = matches!(kind, Kind::Symlink(_));
        let mode = if symlink { 0o777 } else { [0o644, 0o4755, 0o2750, 0o1777, 0][(n % 5) as usize] };
        let (mtime_s, mtime_ns) = (1_600_000_000 + i64::from(n), n * 7919 % 1_000_000_000);
        let meta = Meta { mode, uid: n * 31, gid: 70_000 + n, mtime_s, mtime_ns };
        let id = self.tree.add(Inode { meta, xattrs: BTreeMap::new(), kind }).expect("few inodes");
        self.name(dir, name, id);
        id
    }

    fn name(&mut self, dir: InodeId, name: &[u8], id: InodeId) {
        let Kind::Dir(names) = &mut self.tree.inode_mut(dir).kind else { panic!("not a directory") };
        names.insert(name.to_vec(), id);
    }

    fn dir(&mut self, dir: InodeId, name: &[u8]) -> InodeId {
        self.add(dir, name, Kind::Dir(BTreeMap::new()))
    }

    fn file(&mut self, dir: InodeId, name: &[u8], len: usize) -> InodeId {
        use std::io::Write;
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 % 253).to_le_bytes()[0]).collect();
        self.spool.file.write_all(&bytes).expect("write the spool");
        let content = Content { offset: self.spool.len, len: len as u64 };
        self.spool.len += content.len;
        let id = self.add(dir, name, Kind::File(content));
        self.contents.insert(id, bytes);
        id
    }

    fn xattr(&mut self, id: InodeId, name: &str, value: &[u8]) {
        self.tree.inode_mut(id).xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
    }
}

/// Every shape that writers treat differently, with attributes of these sizes (a tar holds no empty one, most
/// filesystems none above about 3000 bytes).
pub(crate) fn model(xattrs: RangeInclusive<usize>) -> Model {
    let mut m = Model::new();
    let root = Tree::ROOT;
    let sizes = m.dir(root, b"sizes");
    for len in [0, 1, 1023, 1024, 1025, 4095, 4096, 4097, 5120, 5121, 8192, 100_000, 3_000_000] {
        m.file(sizes, format!("{len}").as_bytes(), len);
    }
    let many = m.dir(root, b"many");
    for i in 0..2000 {
        m.add(many, format!("entry-with-a-longer-name-{i}").as_bytes(), Kind::Symlink(b"x".to_vec()));
    }
    let odd = m.dir(root, b"odd");
    for name in [&b"!before-dot"[..], b"-", b".hidden", b"...", b"\xff\xfe not utf-8", &[b'n'; 255]] {
        m.dir(odd, name);
    }
    m.add(odd, b"pipe", Kind::Fifo);
    m.add(odd, b"absolute", Kind::Symlink(b"/sizes/1".to_vec()));
    m.add(odd, b"long", Kind::Symlink(vec![b't'; 4095]));
    let linked = m.file(odd, b"one", 4500);
    m.name(many, b"two", linked);
    m.name(root, b"three", linked);
    let attributed = m.dir(root, b"attributed");
    for (i, size) in [0, 1, 2000, 4000, 9000, 60_000].into_iter().enumerate() {
        let id = m.file(attributed, format!("{i}").as_bytes(), 900);
        m.xattr(id, "user.size", &vec![b'v'; size.clamp(*xattrs.start(), *xattrs.end())]);
        m.xattr(id, "trusted.t", b"1");
        m.xattr(id, "security.s", b"\0\xff");
    }
    let link = m.add(attributed, b"link", Kind::Symlink(vec![b'q'; 3000]));
    m.xattr(link, "trusted.large", &vec![1; 2000]);
    m.xattr(attributed, "user.dir", b"yes");
    // Version 2, then tag, permissions and id of: owner, user 7, group, mask, other.
    let acl: [(u16, u16, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 7), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let entries = acl.iter().flat_map(|(tag, perm, id)| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    let value: Vec<u8> = 2_u32.to_le_bytes().into_iter().chain(entries).collect();
    let with_acl = m.file(attributed, b"acl", 10);
    m.tree.inode_mut(with_acl).meta.mode = 0o640;
    m.xattr(with_acl, "system.posix_acl_access", &value);
    let mut deep = root;
    for _ in 0..60 {
        deep = m.dir(deep, b"d");
    }
    m
}

impl Model {
    /// Compares names, types, modes, owners, times, contents, targets and links.
    pub(crate) fn assert_is(&self, at: &Path, with_xattrs: bool) {
        let mut inodes: BTreeMap<InodeId, u64> = BTreeMap::new();
        let mut todo = vec![(Tree::ROOT, at.to_path_buf())];
        while let Some((id, path)) = todo.pop() {
            let inode = self.tree.inode(id);
            let stat = std::fs::symlink_metadata(&path).expect("stat");
            let ino = inodes.entry(id).or_insert_with(|| stat.ino());
            assert_eq!(*ino, stat.ino(), "{}", path.display());
            let Meta { mode, uid, gid, mtime_s, mtime_ns } = inode.meta;
            assert_eq!(u32::from(mode), stat.mode() & 0o7777, "{}", path.display());
            assert_eq!((uid, gid), (stat.uid(), stat.gid()));
            assert_eq!((mtime_s, i64::from(mtime_ns)), (stat.mtime(), stat.mtime_nsec()));
            if with_xattrs {
                assert_eq!(inode.xattrs, xattrs(&path), "{}", path.display());
            }
            match &inode.kind {
                Kind::Dir(names) => {
                    let found: BTreeSet<Vec<u8>> = std::fs::read_dir(&path)
                        .expect("read the directory")
                        .map(|e| e.expect("entry").file_name().as_bytes().to_vec())
                        .collect();
                    assert!(found.iter().eq(names.keys()), "{}", path.display());
                    let subdirs =
                        names.values().filter(|id| matches!(self.tree.inode(**id).kind, Kind::Dir(_)));
                    if stat.nlink() > 1 {
                        assert_eq!(stat.nlink(), 2 + subdirs.count() as u64);
                    }
                    todo.extend(names.iter().map(|(n, id)| (*id, path.join(std::ffi::OsStr::from_bytes(n)))));
                }
                Kind::File(_) => assert!(std::fs::read(&path).expect("read") == self.contents[&id]),
                Kind::Symlink(target) => {
                    assert_eq!(
                        std::fs::read_link(&path).expect("read the link").as_os_str().as_bytes(),
                        target
                    );
                }
                Kind::Fifo => assert!(stat.file_type().is_fifo()),
            }
        }
        let distinct: BTreeSet<u64> = inodes.values().copied().collect();
        assert_eq!(distinct.len(), inodes.len(), "two inodes share a number");
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65_536];
    let len = rustix::fs::llistxattr(path, &mut list[..]).expect("list attributes");
    let names = list[..len].split(|&c| c == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65_536];
            let c_name = CString::new(name).expect("no NUL");
            let len = rustix::fs::lgetxattr(path, &c_name, &mut value[..]).expect("read an attribute");
            (name.to_vec(), value[..len].to_vec())
        })
        .collect()
}
