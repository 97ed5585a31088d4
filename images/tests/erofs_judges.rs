//! Judges that are not ours: `fsck.erofs`, `dump.erofs` and the kernel's own EROFS.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use isolab_images::erofs;
use isolab_images::tree::{Content, Inode, InodeId, Kind, Meta, Spool, Tree};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A model that is built by hand, with its contents in memory.
struct Model {
    tree: Tree,
    spool: Spool,
    contents: BTreeMap<InodeId, Vec<u8>>,
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
        let mode = [0o644, 0o4755, 0o2750, 0o1777, 0][(n % 5) as usize];
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

/// Every shape that the layout treats differently.
fn model() -> Model {
    let mut m = Model::new();
    let root = Tree::ROOT;
    let sizes = m.dir(root, b"sizes");
    for len in [0, 1, 1023, 1024, 1025, 4095, 4096, 4097, 5120, 5121, 8192, 100_000, 3_000_000] {
        m.file(sizes, format!("{len}").as_bytes(), len);
    }
    let many = m.dir(root, b"many");
    for i in 0..5000 {
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
        m.xattr(id, "user.size", &vec![b'v'; size]);
        m.xattr(id, "trusted.t", b"1");
        m.xattr(id, "security.s", b"\0\xff");
    }
    let link = m.add(attributed, b"link", Kind::Symlink(vec![b'q'; 3000]));
    m.xattr(link, "trusted.large", &[1; 2000]);
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

fn written() -> (Model, tempfile::TempDir, PathBuf) {
    let model = model();
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("image.erofs");
    let file = File::create_new(&path).expect("create");
    erofs::write(&model.tree, &model.spool, &file).expect("write");
    (model, dir, path)
}

/// Output of a judge that must agree; nothing where it is not installed.
fn judge(program: &str, args: &[&Path]) -> Option<String> {
    let out = match Command::new(program).args(args).output() {
        Ok(out) => out,
        Err(e) => {
            println!("skip: {program}: {e} (package erofs-utils)");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{program} refused: {text}");
    Some(text)
}

#[test]
fn fsck_erofs_accepts_the_image_and_extracts_its_contents() {
    let (model, dir, path) = written();
    let to = dir.path().join("out");
    let extract = PathBuf::from(format!("--extract={}", to.display()));
    if judge("fsck.erofs", &[&extract, &path]).is_some() {
        for (name, len) in [("sizes/3000000", 3_000_000), ("three", 4500), ("attributed/5", 900)] {
            let bytes = std::fs::read(to.join(name)).expect("extracted");
            assert_eq!(bytes.len(), len);
            assert!(model.contents.values().any(|c| *c == bytes));
        }
    }
}

#[test]
fn dump_erofs_agrees_on_the_superblock() {
    let (_model, _dir, path) = written();
    if let Some(text) = judge("dump.erofs", &[Path::new("-s"), &path]) {
        assert!(text.contains("0xE0F5E1E2"), "{text}");
        assert!(
            text.lines().any(|l| l.contains("features") && l.contains("sb_csum") && l.contains("mtime")),
            "{text}"
        );
    }
}

struct Mounted(tempfile::TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).expect("unmount");
    }
}

#[test]
fn the_kernel_shows_the_same_tree() {
    let (model, _dir, path) = written();
    let at = tempfile::tempdir().expect("temporary folder");
    match mount(&path, at.path(), "erofs", MountFlags::RDONLY, None) {
        Ok(()) => {}
        Err(e) => {
            println!("skip: mount an image by its file: {e} (needs root and Linux 6.12)");
            return;
        }
    }
    let at = Mounted(at);
    let mut inodes: BTreeMap<InodeId, u64> = BTreeMap::new();
    let mut todo = vec![(Tree::ROOT, at.0.path().to_path_buf())];
    while let Some((id, path)) = todo.pop() {
        let inode = model.tree.inode(id);
        let stat = std::fs::symlink_metadata(&path).expect("stat");
        let ino = inodes.entry(id).or_insert_with(|| stat.ino());
        assert_eq!(*ino, stat.ino(), "{}", path.display());
        let Meta { mode, uid, gid, mtime_s, mtime_ns } = inode.meta;
        assert_eq!(u32::from(mode), stat.mode() & 0o7777, "{}", path.display());
        assert_eq!((uid, gid), (stat.uid(), stat.gid()));
        assert_eq!((mtime_s, i64::from(mtime_ns)), (stat.mtime(), stat.mtime_nsec()));
        assert_eq!(inode.xattrs, xattrs(&path), "{}", path.display());
        match &inode.kind {
            Kind::Dir(names) => {
                let found: BTreeSet<Vec<u8>> = std::fs::read_dir(&path)
                    .expect("read the directory")
                    .map(|e| e.expect("entry").file_name().as_bytes().to_vec())
                    .collect();
                assert!(found.iter().eq(names.keys()), "{}", path.display());
                let subdirs = names.values().filter(|id| matches!(model.tree.inode(**id).kind, Kind::Dir(_)));
                assert_eq!(stat.nlink(), 2 + subdirs.count() as u64);
                todo.extend(names.iter().map(|(n, id)| (*id, path.join(std::ffi::OsStr::from_bytes(n)))));
            }
            Kind::File(_) => assert!(std::fs::read(&path).expect("read") == model.contents[&id]),
            Kind::Symlink(target) => {
                assert_eq!(std::fs::read_link(&path).expect("read the link").as_os_str().as_bytes(), target);
            }
            Kind::Fifo => assert!(stat.file_type().is_fifo()),
        }
    }
    let distinct: BTreeSet<u64> = inodes.values().copied().collect();
    assert_eq!(distinct.len(), inodes.len(), "two inodes share a number");
    let three = std::fs::symlink_metadata(at.0.path().join("three")).expect("stat");
    assert_eq!(three.nlink(), 3);
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
