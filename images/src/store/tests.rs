//! The store by its promises: whole or nothing, safe names, changed files are noticed.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;

use super::*;
use crate::tree::{Content, Inode, Kind, Meta};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let store = Store::at(&dir.path().join("home")).expect("open");
    (dir, store)
}

/// A tree with one file of these bytes.
fn one_file(store: &Store, bytes: &[u8]) -> (Tree, Spool) {
    let (mut tree, mut spool) = (Tree::new(), store.spool().expect("spool"));
    spool.file.write_all(bytes).expect("write");
    spool.len = bytes.len() as u64;
    let kind = Kind::File(Content { offset: 0, len: spool.len });
    let id = tree.add(Inode { meta: Meta::default(), xattrs: BTreeMap::new(), kind }).expect("few inodes");
    let Kind::Dir(names) = &mut tree.inode_mut(Tree::ROOT).kind else { unreachable!() };
    names.insert(b"file".to_vec(), id);
    (tree, spool)
}

fn add(store: &Store, bytes: &[u8], name: Option<&str>) -> Result<Entry, StoreError> {
    let (tree, spool) = one_file(store, bytes);
    let config = ImageConfig { cmd: vec!["/file".into()], ..ImageConfig::default() };
    store.add(NewImage {
        tree: &tree,
        spool: &spool,
        about: About { config, source: "test".into(), report: serde_json::Value::Null, name },
    })
}

fn all_files(store: &Store) -> Vec<String> {
    ["images", "names", "tmp", "scratch"]
        .iter()
        .flat_map(|d| files(&store.home.join(d)).expect("list"))
        .collect()
}

#[test]
fn an_image_is_found_by_name_digest_and_digits() {
    let (_dir, store) = store();
    let added = add(&store, b"hello", Some("debian/test:12")).expect("add");
    assert_eq!(added.name.as_deref(), Some("debian/test:12"));
    assert_eq!(added.config.cmd, ["/file"]);
    let hex = added.digest.strip_prefix("sha256:").expect("prefix");
    for wanted in ["debian/test:12", &added.digest, hex, &hex[..8]] {
        let found = store.resolve(wanted).expect("resolve");
        assert_eq!(found.digest, added.digest);
        let file = found.open().expect("open");
        assert_eq!(hash_of(&file), hex);
    }
    for wanted in ["debian/test:13", "", "../images", "sha256:", &hex[..7], "00000000"] {
        assert!(matches!(store.resolve(wanted), Err(StoreError::NotFound { .. })), "{wanted}");
    }
}

fn hash_of(file: &File) -> String {
    let mut bytes = Vec::new();
    let mut file = file;
    file.read_to_end(&mut bytes).expect("read");
    crate::digest::Digest::of(&bytes).hex()
}

#[test]
fn bad_names_are_refused_before_anything_is_written() {
    let (_dir, store) = store();
    for name in
        ["", ".", "..", "../x", "/abs", "-flag", "a b", "a\u{1b}[0m", "sha256:x", "ä", &"a".repeat(201)]
    {
        assert!(matches!(add(&store, b"x", Some(name)), Err(StoreError::Name { .. })), "{name:?}");
    }
    assert!(matches!(add(&store, b"x", Some(&"a/".repeat(100))), Err(StoreError::Name { .. })));
    assert_eq!(all_files(&store), Vec::<String>::new());
}

#[test]
fn the_same_tree_twice_is_one_image() {
    let (_dir, store) = store();
    let a = add(&store, b"same", Some("a")).expect("add");
    let before = a.open().expect("open").metadata().expect("metadata").ino();
    let b = add(&store, b"same", Some("b")).expect("add");
    assert_eq!(a.digest, b.digest);
    assert_eq!(b.open().expect("open").metadata().expect("metadata").ino(), before);
    let listed = store.list().expect("list");
    assert_eq!(listed.iter().map(|e| e.name.as_deref()).collect::<Vec<_>>(), [Some("a"), Some("b")]);
    assert!(listed.iter().all(|e| e.digest == a.digest));
}

#[test]
fn the_same_files_with_another_configuration_change_no_other_name() {
    let (_dir, store) = store();
    let ours = add(&store, b"same", Some("ours")).expect("add");
    let (tree, spool) = one_file(&store, b"same");
    let hostile =
        || ImageConfig { cmd: vec!["/hostile".into()], user: Some("0".into()), ..ImageConfig::default() };
    for name in [Some("theirs"), None] {
        let new = NewImage {
            tree: &tree,
            spool: &spool,
            about: About {
                config: hostile(),
                source: "theirs".into(),
                report: serde_json::Value::Null,
                name,
            },
        };
        let added = store.add(new).expect("add");
        // Without a name it is the bare digest, which stands for what was first.
        let config = if name.is_some() { hostile() } else { ours.config.clone() };
        assert_eq!((added.digest, added.config), (ours.digest.clone(), config));
    }
    for wanted in ["ours", ours.digest.as_str()] {
        let found = store.resolve(wanted).expect("resolve");
        assert_eq!((found.config, found.source), (ours.config.clone(), ours.source.clone()), "{wanted}");
    }
    assert_eq!(store.resolve("theirs").expect("resolve").config, hostile());
    store.tag("theirs", "more").expect("tag");
    assert_eq!(store.resolve("more").expect("resolve").config, hostile());
    store.remove("ours").expect("remove");
    assert_eq!(store.resolve("theirs").expect("resolve").config, hostile());
}

#[test]
fn a_changed_image_is_noticed_and_a_copied_one_is_not_refused() {
    let (dir, store) = store();
    let entry = add(&store, &[9; 9000], Some("x")).expect("add");
    let copy = dir.path().join("copy");
    assert!(Command::new("cp").arg("-r").arg(&store.home).arg(&copy).status().expect("cp").success());
    let copied = Store::at(&copy).expect("open");
    let before = copied.record(&copied.named("x").expect("read").expect("x").digest).expect("record").stamp;
    let copied_entry = copied.resolve("x").expect("resolve");
    copied_entry.open().expect("same bytes");
    let after = copied.record(&copied.named("x").expect("read").expect("x").digest).expect("record").stamp;
    assert_ne!(before, after);
    assert_eq!(after, Stamp::of_path(&copied_entry.path).expect("stamp"));
    std::fs::set_permissions(&entry.path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let file = File::options().write(true).open(&entry.path).expect("open for writing");
    file.write_all_at(b"!", entry.size - 4096).expect("write");
    let error = entry.open().expect_err("notice");
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
    assert!(error.to_string().contains("`x`") && error.to_string().contains("isolab image rm x"), "{error}");
    std::fs::set_permissions(&entry.path, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    assert!(matches!(entry.open(), Err(StoreError::Unsafe { .. })));
    add(&store, &[9; 9000], Some("x")).expect("import again").open().expect("repaired");
}

#[test]
fn rm_takes_the_image_with_its_last_name() {
    let (_dir, store) = store();
    let entry = add(&store, b"one", Some("a")).expect("add");
    store.tag("a", "b").expect("tag");
    store.remove("a").expect("remove a name");
    assert!(entry.path.exists());
    let removed = store.remove("b").expect("remove the image");
    assert!(removed.iter().any(|r| r.what == "image" && r.bytes >= entry.size), "{removed:?}");
    assert!(matches!(store.remove("b"), Err(StoreError::NotFound { .. })));
    assert_eq!(all_files(&store), Vec::<String>::new());
}

#[test]
fn gc_removes_what_is_left_and_keeps_what_is_used() {
    let (_dir, store) = store();
    add(&store, b"named", Some("keep")).expect("add");
    let unnamed = add(&store, b"unnamed", None).expect("add");
    std::fs::write(store.home.join("tmp/dead"), b"x").expect("write");
    std::fs::create_dir_all(store.home.join("scratch/dead/below")).expect("mkdir");
    let (live, scratch) = (Temp::create(&store).expect("temp"), store.scratch().expect("scratch"));
    let listed = store.gc(true).expect("list");
    assert!(unnamed.path.exists());
    let removed = store.gc(false).expect("gc");
    assert_eq!(listed, removed);
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert!(!unnamed.path.exists() && scratch.path().exists());
    assert!(live.file().metadata().expect("metadata").nlink() == 1);
    drop((live, scratch));
    assert_eq!(all_files(&store).len(), 3);
    assert_eq!(store.gc(false).expect("gc"), []);
    store.resolve("keep").expect("kept").open().expect("open");
}

#[test]
fn concurrent_imports_all_succeed() {
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        for i in 0..8_u8 {
            let store = &store;
            scope.spawn(move || {
                for j in 0..4_u8 {
                    let name = format!("n{i}");
                    let entry = add(store, &[j; 5000], Some(&name)).expect("add");
                    entry.open().expect("open");
                }
                store.gc(false).expect("gc");
            });
        }
    });
    let listed = store.list().expect("list");
    assert_eq!(listed.len(), 8, "each name once");
    assert!(listed.iter().all(|e| e.digest == listed[0].digest), "only the last image has names");
    assert_eq!(files(&store.home.join("tmp")).expect("list"), Vec::<String>::new());
}

#[test]
fn a_full_disk_gives_one_error_and_leaves_nothing() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let dir = tempfile::tempdir().expect("temporary folder");
    let size = std::ffi::CString::new("size=1m,mode=755").expect("no NUL");
    if let Err(e) = mount("none", dir.path(), "tmpfs", MountFlags::empty(), size.as_c_str()) {
        println!("skipped: mount a small tmpfs: {e} (needs root)");
        return;
    }
    let home = Store::at(dir.path()).expect("open");
    let (tree, mut spool) = one_file(&home, b"");
    spool.file = tempfile::tempfile().expect("temporary file");
    spool.file.write_all(&vec![1; 3 << 20]).expect("write");
    spool.len = 3 << 20;
    let mut tree = tree;
    let Kind::Dir(names) = &tree.inode(Tree::ROOT).kind else { unreachable!() };
    let id = names[b"file".as_slice()];
    tree.inode_mut(id).kind = Kind::File(Content { offset: 0, len: spool.len });
    let (config, source) = (ImageConfig::default(), String::new());
    let new = NewImage {
        tree: &tree,
        spool: &spool,
        about: About { config, source, report: serde_json::Value::Null, name: Some("big") },
    };
    let result = home.add(new);
    let left = all_files(&home);
    unmount(dir.path(), UnmountFlags::DETACH).expect("unmount");
    assert!(matches!(result, Err(StoreError::Full { .. })), "{result:?}");
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_store_that_others_can_write_is_refused() {
    let (dir, store) = store();
    drop(store);
    let home = dir.path().join("home");
    std::fs::set_permissions(home.join("images"), std::fs::Permissions::from_mode(0o777)).expect("chmod");
    assert!(matches!(Store::at(&home), Err(StoreError::Unsafe { .. })));
}

#[test]
fn a_directory_above_the_store_that_others_can_change_is_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let above = dir.path().join("above");
    std::fs::create_dir(&above).expect("mkdir");
    let (me, root) = (rustix::process::geteuid().as_raw(), rustix::process::geteuid().is_root());
    let by = |uid: u32, gid: u32, mode| {
        if root {
            std::os::unix::fs::chown(&above, Some(uid), Some(gid)).expect("chown");
        }
        std::fs::set_permissions(&above, std::fs::Permissions::from_mode(mode)).expect("chmod");
        Store::at(&above.join("a/home")).map(drop)
    };
    for (mode, fine) in [(0o755, true), (0o777, false), (0o1777, true), (0o757, false), (0o700, true)] {
        let opened = by(me, me, mode);
        assert_eq!(opened.is_ok(), fine, "{mode:o}: {opened:?}");
    }
    let refused = by(me, me, 0o777).expect_err("anybody could put another store there").to_string();
    assert!(refused.contains(above.to_str().expect("UTF-8")) && refused.contains("chmod go-w"), "{refused}");
    if !root {
        println!("skipped: not root: the cases of other owners and groups");
        return;
    }
    let cases = [(1000, 0, 0o755), (65_534, 0, 0o755), (0, 1000, 0o775), (1000, 1000, 0o1777)];
    for (uid, gid, mode) in cases {
        let opened = by(uid, gid, mode);
        assert!(matches!(opened, Err(StoreError::UnsafeWay { .. })), "{uid} {gid} {mode:o}: {opened:?}");
    }
    assert!(by(0, 0, 0o775).is_ok(), "root's own group is root");
}

#[test]
fn the_home_follows_the_environment() {
    let from = |vars: &[(&str, &str)], root| {
        home_from(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v)), root).ok()
    };
    assert_eq!(from(&[("ISOLAB_HOME", "/x")], true), Some("/x".into()));
    assert_eq!(from(&[("HOME", "/root")], true), Some("/var/lib/isolab".into()));
    assert_eq!(from(&[("XDG_DATA_HOME", "/d"), ("HOME", "/h")], false), Some("/d/isolab".into()));
    assert_eq!(
        from(&[("XDG_DATA_HOME", "relative"), ("HOME", "/h")], false),
        Some("/h/.local/share/isolab".into())
    );
    assert_eq!(from(&[], false), None);
}

#[test]
fn a_store_behind_a_symlink_works() {
    let dir = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(dir.path().join("disk")).expect("mkdir");
    std::os::unix::fs::symlink("disk", dir.path().join("home")).expect("symlink");
    let store = Store::at(&dir.path().join("home")).expect("open");
    add(&store, b"x", Some("x")).expect("add").open().expect("open");
}

#[test]
fn a_scratch_directory_goes_whatever_the_run_made_of_it() {
    let (_dir, store) = store();
    let scratch = store.scratch().expect("scratch");
    let path = scratch.path().to_path_buf();
    std::fs::create_dir_all(path.join("a/b")).expect("mkdir");
    std::os::unix::fs::symlink("/", path.join("a/b/root")).expect("symlink");
    for dir in ["a/b", "a"] {
        std::fs::set_permissions(path.join(dir), std::fs::Permissions::from_mode(0o000)).expect("chmod");
    }
    drop(scratch);
    assert!(!path.exists());
}
