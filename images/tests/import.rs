//! One image through every kind of source: made with umoci and skopeo from Debian's busybox, and damaged bit by bit.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use isolab_images::budget::Budgets;
use isolab_images::source::{Imported, Options, SourceKind, detect, read};
use isolab_images::tree::{InodeId, Kind, Spool, Tree};

type Listing = BTreeMap<String, String>;

fn import(path: &Path) -> Result<Imported, String> {
    let spool = Spool::from_file(tempfile::tempfile().expect("temporary file")).expect("empty spool");
    let options = Options { budgets: Budgets::default(), reference: None };
    read(path, options, spool, &mut |_| {}).map_err(|error| {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(&error);
        while let Some(error) = next {
            text = format!("{text}: {error}");
            next = error.source();
        }
        text
    })
}

/// Every path with type, mode, owner, links and content.
fn listing(imported: &Imported) -> Listing {
    let mut out = Listing::new();
    let mut links = BTreeMap::new();
    walk(imported, Tree::ROOT, String::new(), &mut links, &mut out);
    out
}

fn walk(
    imported: &Imported,
    id: InodeId,
    path: String,
    links: &mut BTreeMap<InodeId, String>,
    out: &mut Listing,
) {
    let inode = imported.tree.inode(id);
    let first = links.entry(id).or_insert_with(|| path.clone()).clone();
    let what = match &inode.kind {
        Kind::Dir(_) => "dir".to_string(),
        Kind::File(content) => {
            format!("file {first} {:?}", imported.spool.read(*content).expect("content in the spool"))
        }
        Kind::Symlink(target) => format!("link {}", target.escape_ascii()),
        Kind::Fifo => format!("fifo {first}"),
    };
    let meta = inode.meta;
    let line = format!("{:o} {}:{} {:?} {what}", meta.mode, meta.uid, meta.gid, inode.xattrs);
    out.insert(path.clone(), line);
    if let Kind::Dir(names) = &inode.kind {
        for (name, &child) in names {
            walk(imported, child, format!("{path}/{}", name.escape_ascii()), links, out);
        }
    }
}

/// The same from a real directory.
fn listing_of_dir(root: &Path) -> Listing {
    fn visit(at: &Path, path: String, links: &mut BTreeMap<u64, String>, out: &mut Listing) {
        let meta = at.symlink_metadata().expect("stat");
        let first = links.entry(meta.ino()).or_insert_with(|| path.clone()).clone();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            "dir".to_string()
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(at).expect("link").display())
        } else if kind.is_file() {
            format!("file {first} {:?}", fs::read(at).expect("content"))
        } else {
            format!("fifo {first}")
        };
        let mode = meta.permissions().mode() & 0o7777;
        out.insert(path.clone(), format!("{mode:o} {}:{} {{}} {what}", meta.uid(), meta.gid()));
        if kind.is_dir() {
            let names = fs::read_dir(at).expect("directory").map(|entry| entry.expect("entry").file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            for name in names {
                visit(&at.join(&name), format!("{path}/{}", name.display()), links, out);
            }
        }
    }
    let mut out = Listing::new();
    visit(root, String::new(), &mut BTreeMap::new(), &mut out);
    out
}

fn missing(tools: &[&str]) -> bool {
    let missing = tools.iter().find(|tool| Command::new(tool).arg("--version").output().is_err());
    if let Some(tool) = missing {
        println!("skipped: {tool}");
    }
    missing.is_some()
}

fn run(dir: &Path, line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).current_dir(dir).output();
    let output = output.expect("program starts");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A small root filesystem with links of both kinds, a pipe and set-id bits.
fn make_rootfs(root: &Path) {
    for dir in ["bin", "etc", "tmp", "var/empty/deep", "gone"] {
        fs::create_dir_all(root.join(dir)).expect("directory");
    }
    let busybox = Path::new("/bin/busybox");
    let program =
        if busybox.exists() { busybox.to_path_buf() } else { std::env::current_exe().expect("self") };
    let bytes = fs::read(program).expect("a program");
    fs::write(root.join("bin/busybox"), &bytes[..bytes.len().min(2_000_000)]).expect("file");
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o4755)).expect("mode");
    fs::hard_link(root.join("bin/busybox"), root.join("bin/ash")).expect("hard link");
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("symlink");
    std::os::unix::fs::symlink("/../../etc/passwd", root.join("etc/odd")).expect("symlink");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("file");
    fs::write(root.join(format!("etc/{}", "n".repeat(200))), "long\n").expect("file");
    fs::write(root.join("gone/lower"), "lower\n").expect("file");
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("mode");
    run(root, "mkfifo var/pipe");
}

/// `layout` (two layers, one whiteout), `docker.tar`, `oci.tar`, `zstd` and umoci's own unpacked `bundle`.
fn make_images(dir: &Path) {
    run(dir, "umoci init --layout layout");
    run(dir, "umoci new --image layout:latest");
    run(dir, "umoci unpack --image layout:latest work");
    make_rootfs(&dir.join("work/rootfs"));
    run(dir, "umoci repack --refresh-bundle --image layout:latest work");
    let root = dir.join("work/rootfs");
    fs::remove_dir_all(root.join("gone")).expect("removed");
    fs::remove_file(root.join("bin/ash")).expect("removed");
    fs::write(root.join("etc/second"), "2\n").expect("file");
    run(dir, "umoci repack --image layout:latest work");
    run(dir, "umoci config --image layout:latest --config.cmd=/bin/sh --config.env=A=b --config.user=1:2");
    run(dir, "umoci gc --layout layout");
    run(dir, "umoci unpack --image layout:latest bundle");
    run(dir, "skopeo --insecure-policy copy oci:layout:latest docker-archive:docker.tar:busybox:latest");
    run(dir, "skopeo --insecure-policy copy oci:layout:latest oci-archive:oci.tar:latest");
    run(dir, "skopeo --insecure-policy copy --dest-compress-format zstd oci:layout:latest oci:zstd:latest");
}

#[test]
fn all_sources_of_one_image_give_the_same_tree() {
    if missing(&["umoci", "skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    make_images(dir.path());
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
fn a_flipped_bit_or_a_cut_in_any_blob_is_refused() {
    if missing(&["umoci", "skopeo"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    make_images(dir.path());
    let blobs = dir.path().join("layout/blobs/sha256");
    let mut tried = 0;
    for blob in fs::read_dir(&blobs).expect("blobs").map(|entry| entry.expect("entry").path()) {
        let whole = fs::read(&blob).expect("blob");
        for step in 0..6 {
            let mut bytes = whole.clone();
            let at = (whole.len() - 1) * step / 5;
            bytes[at] ^= 1 << step;
            fs::write(&blob, &bytes).expect("changed");
            let error = import(&dir.path().join("layout")).expect_err("a flipped bit is refused");
            assert!(error.contains("digest") || error.contains("layer"), "{error}");
            bytes = whole[..at].to_vec();
            fs::write(&blob, &bytes).expect("changed");
            let error = import(&dir.path().join("layout")).expect_err("a short blob is refused");
            assert!(error.contains("bytes, expected"), "{error}");
            tried += 1;
        }
        fs::write(&blob, [&whole[..], b"\0"].concat()).expect("changed");
        assert!(import(&dir.path().join("layout")).is_err());
        fs::write(&blob, &whole).expect("restored");
    }
    assert_eq!(tried, 4 * 6, "manifest, configuration and two layers");
    assert!(import(&dir.path().join("layout")).is_ok());
    damaged_archive(&dir.path().join("docker.tar"));
    damaged_archive(&dir.path().join("oci.tar"));
}

/// Flips bits over a whole archive: refused, or the flip was where nothing is read and the result is the same.
fn damaged_archive(path: &Path) {
    let whole = fs::read(path).expect("archive");
    let good = listing(&import(path).expect("undamaged"));
    let mut refused = 0;
    for step in 0..60 {
        let mut bytes = whole.clone();
        let at = (whole.len() - 1) * step / 59;
        bytes[at] ^= 1 << (step % 8);
        fs::write(path, &bytes).expect("changed");
        match import(path) {
            Err(_) => refused += 1,
            Ok(imported) => assert_eq!(listing(&imported), good, "bit {} of byte {at}", step % 8),
        }
        fs::write(path, &whole[..at]).expect("changed");
        assert!(import(path).is_err(), "cut at {at}");
    }
    assert!(refused > 50, "{refused} of 60");
}

#[test]
fn a_directory_and_its_tar_give_the_same_tree() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("directory");
    make_rootfs(&root);
    for line in ["tar -cf gnu.tar -C root .", "tar --format=pax -czf pax.tar.gz -C root ."] {
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
