//! An import that is killed at any moment leaves a store that works and nothing that gc does not remove.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isolab_images::config::ImageConfig;
use isolab_images::store::{About, NewImage, Store};
use isolab_images::tree::{Content, Inode, Kind, Meta, Tree};

const HOME: &str = "ISOLAB_TEST_KILLED_IMPORT";

fn import(store: &Store, seed: u8) {
    let (mut tree, mut spool) = (Tree::new(), store.spool().expect("spool"));
    spool.len = 300_000;
    spool.file.write_all(&vec![seed; 300_000]).expect("write");
    let kind = Kind::File(Content { offset: 0, len: spool.len });
    let id = tree.add(Inode { meta: Meta::default(), xattrs: BTreeMap::new(), kind }).expect("few inodes");
    let Kind::Dir(names) = &mut tree.inode_mut(Tree::ROOT).kind else { panic!("the root is a directory") };
    names.insert(b"file".to_vec(), id);
    let (config, source, report) = (ImageConfig::default(), String::new(), serde_json::Value::Null);
    let about = About { config, source, report, name: Some("image") };
    store.add(NewImage { tree: &tree, spool: &spool, about }).expect("add");
}

/// The child: imports until it is killed. Does nothing in an ordinary run.
#[test]
fn imports_until_killed() {
    let Some(home) = std::env::var_os(HOME) else { return };
    let store = Store::at(Path::new(&home)).expect("open");
    for seed in (0..=255).cycle() {
        println!("next");
        import(&store, seed);
    }
}

#[test]
fn a_killed_import_leaves_nothing_that_gc_does_not_remove() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let home = dir.path().join("home");
    for round in 0..20_u32 {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "imports_until_killed", "--nocapture"])
            .env(HOME, &home)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // The third image is being made; the moment moves through it from round to round.
        let starts = lines.by_ref().map(|line| line.expect("line")).filter(|line| line.ends_with("next"));
        assert_eq!(starts.take(3).count(), 3, "three images");
        let until = Instant::now() + Duration::from_micros(u64::from(round) * 700);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().expect("kill");
        let status = child.wait().expect("wait");
        assert_eq!(status.signal(), Some(9), "the import ended by itself");
        let store = Store::at(&home).expect("open");
        store.gc(false).expect("gc");
        assert_eq!(std::fs::read_dir(home.join("tmp")).expect("list").count(), 0, "round {round}");
        let images = store.list().expect("list");
        assert_eq!(images.len(), 1, "round {round}: only the last named image stays");
        let named = store.resolve("image").expect("resolve");
        assert_eq!(named.digest, images[0].digest);
        named.open().expect("whole");
        let files = std::fs::read_dir(home.join("images")).expect("list").count();
        assert_eq!(files, 2, "round {round}: one image, one record");
    }
}
