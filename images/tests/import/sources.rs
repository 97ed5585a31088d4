//! One image through every kind of source gives one tree: the one that umoci unpacks.

use std::fs::{self, File};

use isolab_images::source::{SourceKind, detect};

use crate::samples::{import, listing, listing_of_dir, make_images, make_rootfs, missing, run};

#[test]
fn all_sources_of_one_image_give_the_same_tree() {
    if missing(&["umoci", "skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    make_images(dir.path(), usize::MAX);
    run(dir.path(), "gzip -k docker.tar");
    let sources = [
        ("layout", SourceKind::OciLayout),
        ("oci.tar", SourceKind::OciArchive),
        ("docker.tar", SourceKind::DockerArchive),
        ("docker.tar.gz", SourceKind::DockerArchive),
        ("zstd", SourceKind::OciLayout),
    ];
    let judge = listing_of_dir(&dir.path().join("bundle/rootfs"));
    assert!(judge.contains_key("/etc/second") && !judge.contains_key("/gone"));
    for (name, kind) in sources {
        let path = dir.path().join(name);
        assert_eq!(detect(&path).expect(name), kind, "{name}");
        let imported = import(&path).expect(name);
        let found = listing(&imported);
        assert!(
            found == judge,
            "{name}: {:?}",
            found.iter().find(|(key, line)| judge.get(*key) != Some(line))
        );
        assert_eq!(found.len(), judge.len(), "{name}");
        assert_eq!(imported.config.cmd, ["/bin/sh"], "{name}");
        assert_eq!(imported.config.user.as_deref(), Some("1:2"), "{name}");
        assert!(imported.config.env.contains(&"A=b".to_string()), "{name}");
        assert_eq!(imported.report.layers.len(), 2, "{name}");
    }
}

#[test]
fn a_directory_and_its_tar_give_the_same_tree() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("directory");
    make_rootfs(&root, usize::MAX);
    for line in ["tar --xattrs -cf gnu.tar -C root .", "tar --format=pax --xattrs -czf pax.tar.gz -C root ."]
    {
        run(dir.path(), line);
    }
    let judge = listing_of_dir(&root);
    assert_eq!(detect(&root).expect("root"), SourceKind::RootfsDir);
    for name in ["root", "gnu.tar", "pax.tar.gz"] {
        let found = listing(&import(&dir.path().join(name)).expect(name));
        assert!(
            found == judge,
            "{name}: {:?}",
            found.iter().find(|(key, line)| judge.get(*key) != Some(line))
        );
    }
    assert_eq!(detect(&dir.path().join("pax.tar.gz")).expect("tar"), SourceKind::RootfsTar);
}

#[test]
fn a_directory_is_read_without_following_links_out_of_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("secret"), "outside").expect("file");
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("directory");
    std::os::unix::fs::symlink("../secret", root.join("file")).expect("symlink");
    std::os::unix::fs::symlink("..", root.join("dir")).expect("symlink");
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("socket");
    let imported = import(&root).expect("directory");
    let found: Vec<_> = listing(&imported).into_keys().collect();
    assert_eq!(found, ["", "/dir", "/file"]);
    assert_eq!(imported.report.sockets_dropped, 1);
}

#[test]
fn refuses_what_is_not_an_image() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("text"), "hello\n").expect("file");
    fs::write(path("noise"), [0xa5; 4096]).expect("file");
    File::create(path("empty")).expect("file");
    run(dir.path(), "mkfifo pipe");
    fs::create_dir(path("layout")).expect("directory");
    fs::write(path("layout/oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").expect("file");
    for (name, part) in [
        ("none", "No such file"),
        ("text", "is not an image"),
        ("noise", "header checksum does not match"),
        ("empty", "cut short at byte 0"),
        ("pipe", "neither a directory nor a file"),
        ("layout", "the image has no \"index.json\""),
    ] {
        let error = import(&path(name)).expect_err(name);
        assert!(error.contains(part), "{name}: {error}");
    }
}
