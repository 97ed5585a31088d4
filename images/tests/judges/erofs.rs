//! Judges that are not ours: `fsck.erofs`, `dump.erofs` and the kernel's own EROFS.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use isolab_images::erofs;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::judge;
use crate::model::{Model, model};

fn written() -> (Model, tempfile::TempDir, PathBuf) {
    let model = model(0..=60_000);
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("image.erofs");
    let file = File::create_new(&path).expect("create");
    erofs::write(&model.tree, &model.spool, &file).expect("write");
    (model, dir, path)
}

#[test]
fn fsck_erofs_accepts_the_image_and_extracts_its_contents() {
    let (model, dir, path) = written();
    let to = dir.path().join("out");
    let extract = PathBuf::from(format!("--extract={}", to.display()));
    if judge("fsck.erofs", &["--no-preserve".as_ref(), &extract, &path]).is_some() {
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
            println!("skipped: mount an image by its file: {e} (needs root and Linux 6.12)");
            return;
        }
    }
    let at = Mounted(at);
    model.assert_is(at.0.path(), true);
    let three = std::fs::symlink_metadata(at.0.path().join("three")).expect("stat");
    assert_eq!(three.nlink(), 3);
}
