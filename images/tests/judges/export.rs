//! Exports before GNU tar, skopeo and umoci.

use std::fs::File;
use std::path::Path;

use isolab_images::config::ImageConfig;
use isolab_images::{erofs, export};

use crate::judge;
use crate::model::{Model, model};

fn image() -> (Model, File) {
    let model = model(1..=2500);
    let image = tempfile::tempfile().expect("temporary file");
    erofs::write(&model.tree, &model.spool, &image).expect("write");
    (model, image)
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: owners can be restored only by root");
    }
    root
}

#[test]
fn gnu_tar_restores_the_tree() {
    let (model, image) = image();
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("root.tar");
    export::tar(&image, File::create(&path).expect("create")).expect("export");
    let out = dir.path().join("out");
    std::fs::create_dir(&out).expect("mkdir");
    if root()
        && judge("tar", &["--numeric-owner".as_ref(), "-xpf".as_ref(), &path, "-C".as_ref(), &out]).is_some()
    {
        model.assert_is(&out, false);
    }
}

#[test]
fn skopeo_and_umoci_accept_the_layout() {
    let (model, image) = image();
    let dir = tempfile::tempdir().expect("temporary folder");
    let layout = dir.path().join("layout");
    let config = ImageConfig {
        cmd: vec!["/sizes/1".into()],
        env: vec!["A=b c".into()],
        user: Some("7:8".into()),
        ..ImageConfig::default()
    };
    export::oci_layout(&image, &config, "v1", &layout).expect("export");
    let reference = format!("oci:{}:v1", layout.display());
    if let Some(text) = judge("skopeo", &["inspect".as_ref(), "--config".as_ref(), Path::new(&reference)]) {
        assert!(text.contains("\"/sizes/1\"") && text.contains("A=b c") && text.contains("7:8"), "{text}");
    }
    let (bundle, named) = (dir.path().join("bundle"), format!("{}:v1", layout.display()));
    if root()
        && judge("umoci", &["unpack".as_ref(), "--image".as_ref(), Path::new(&named), &bundle]).is_some()
    {
        model.assert_is(&bundle.join("rootfs"), true);
    }
}
