//! The private copy against the model.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use isolab_images::tree::{Content, Inode, InodeId, Kind, Meta, Spool, Tree};
use isolab_images::unpack::{UnpackError, Unpacked, unpack};
use isolab_images::{erofs, store::Store};

fn add(tree: &mut Tree, dir: InodeId, name: &str, mode: u16, kind: Kind) -> InodeId {
    let meta = Meta { mode, uid: 1234, gid: 5678, mtime_s: 1_500_000_000, mtime_ns: 5 };
    let id = tree.add(Inode { meta, xattrs: BTreeMap::new(), kind }).expect("few inodes");
    put(tree, dir, name, id);
    id
}

fn put(tree: &mut Tree, dir: InodeId, name: &str, id: InodeId) {
    let Kind::Dir(names) = &mut tree.inode_mut(dir).kind else { panic!("not a directory") };
    names.insert(name.into(), id);
}

#[test]
fn the_copy_has_the_trees_names_contents_links_and_times() {
    let home = tempfile::tempdir().expect("temporary folder");
    let store = Store::at(&home.path().join("home")).expect("store");
    let mut spool: Spool = store.spool().expect("spool");
    let bytes = vec![3; 2_500_001];
    spool.file.write_all(&bytes).expect("write");
    spool.len = bytes.len() as u64;
    let mut tree = Tree::new();
    let root = Tree::ROOT;
    let closed = add(&mut tree, root, "closed", 0o000, Kind::Dir(BTreeMap::new()));
    let suid = Kind::File(Content { offset: 0, len: spool.len });
    let suid = add(&mut tree, closed, "suid", 0o6755, suid);
    put(&mut tree, root, "other-name", suid);
    add(&mut tree, root, "out", 0o777, Kind::Symlink(b"../../../etc".to_vec()));
    add(&mut tree, root, "pipe", 0o640, Kind::Fifo);
    let mut deep = root;
    for _ in 0..200 {
        deep = add(&mut tree, deep, "d", 0o755, Kind::Dir(BTreeMap::new()));
    }
    let image = tempfile::tempfile().expect("temporary file");
    erofs::write(&tree, &spool, &image).expect("write the image");
    let scratch = store.scratch().expect("scratch");
    let done = unpack(&image, scratch.dir()).expect("unpack");
    assert_eq!(done, Unpacked { inodes: 205, bytes: spool.len });
    let at = |name: &str| scratch.path().join(name);
    let stat = |name: &str| std::fs::symlink_metadata(at(name)).expect("stat");
    assert!(std::fs::read(at("closed/suid")).expect("read") == bytes);
    assert_eq!(stat("closed/suid").ino(), stat("other-name").ino());
    assert_eq!((stat("other-name").mode() & 0o7777, stat("closed").mode() & 0o7777), (0o755, 0o700));
    assert_eq!(stat("other-name").uid(), rustix::process::geteuid().as_raw());
    assert_eq!(std::fs::read_link(at("out")).expect("link").as_os_str(), "../../../etc");
    assert!(stat("pipe").file_type().is_fifo());
    assert!(at(&["d"; 200].join("/")).is_dir());
    for name in ["closed", "other-name", "out", "pipe", "d", "d/d"] {
        assert_eq!((stat(name).mtime(), stat(name).mtime_nsec()), (1_500_000_000, 5), "{name}");
    }
    let again = unpack(&image, scratch.dir()).expect_err("not empty");
    assert!(matches!(again, UnpackError::Make { .. }), "{again}");
    let path = scratch.path().to_path_buf();
    drop(scratch);
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_image_makes_nothing() {
    let to = tempfile::tempdir().expect("temporary folder");
    let mut image = tempfile::tempfile().expect("temporary file");
    image.write_all(&[0; 8192]).expect("write");
    let refused = unpack(&image, File::open(to.path()).expect("open"));
    assert!(matches!(refused, Err(UnpackError::Check(_))));
    assert_eq!(std::fs::read_dir(to.path()).expect("list").count(), 0);
}
