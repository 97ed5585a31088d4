//! Images that are damaged or want something that they must not have: one line that names the thing and the remedy, status
//! 125, and the store as it was, byte for byte.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::samples::{busybox, noise, tool};
use support::{Done, run_in};

/// A store with one image in it.
struct Home {
    path: PathBuf,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Home {
    fn new(dir: &Path) -> Self {
        let path = dir.join("home");
        let done = run_in(&path, &["image", "build", "demo"]);
        assert_eq!(done.status, Some(0), "{}", done.stderr);
        let before = files(&path);
        assert!(before.len() >= 3, "image, record and name");
        Self { path, before }
    }

    fn import(&self, path: &Path) -> Done {
        run_in(&self.path, &["image", "import", path.to_str().expect("UTF-8"), "--name", "hostile"])
    }

    fn refuses(&self, path: &Path, case: &str, words: &[&str]) {
        let done = self.import(path);
        assert_eq!((done.status, done.stdout.as_str()), (Some(125), ""), "{case}: {}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{case}: {}", done.stderr);
        assert!(done.stderr.len() < 1000 && done.stderr.is_ascii(), "{case}: {}", done.stderr);
        for word in words.iter().chain(&["; "]) {
            assert!(done.stderr.contains(word), "{case}: no {word:?} in {}", done.stderr);
        }
        assert!(files(&self.path) == self.before, "{case}: the store changed");
    }
}

/// Every file below a directory with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out = BTreeMap::new();
    for path in fs::read_dir(dir).expect("directory").map(|entry| entry.expect("entry").path()) {
        if path.is_dir() {
            out.extend(files(&path));
        } else {
            let bytes = fs::read(&path).expect("file");
            out.insert(path, bytes);
        }
    }
    out
}

/// A ustar record: name, type, link target, size field as it shall be written.
fn header(name: &str, kind: u8, link: &str, size: &[u8]) -> Vec<u8> {
    let mut h = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| h[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    for (at, number) in [(100, b"0000644"), (108, b"0000000"), (116, b"0000000")] {
        put(at, number);
    }
    put(124, size);
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\x000000003");
    let sum: u32 = h.iter().map(|&b| u32::from(b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    h
}

fn entry(name: &str, kind: u8, link: &str) -> Vec<u8> {
    header(name, kind, link, b"00000000000")
}

fn file(name: &str, content: &str) -> Vec<u8> {
    let mut out = header(name, b'0', "", format!("{:011o}", content.len()).as_bytes());
    out.extend(content.bytes());
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

/// One extension header (PAX or GNU) with its bytes, then a file.
fn extended(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = header("x", kind, "", format!("{:011o}", bytes.len()).as_bytes());
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
    archive(&[out, file("file", "")])
}

#[test]
fn a_hostile_archive_is_refused_by_its_entry() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let home = Home::new(dir.path());
    let link = |name, target| entry(name, b'2', target);
    let hard = |name, target| entry(name, b'1', target);
    let pax_size = b"28 size=9223372036854775807\n";
    let table: &[(&str, Vec<u8>, &str)] = &[
        ("out by ..", archive(&[file("../outside", "x")]), "\"../outside\""),
        ("in and out by ..", archive(&[file("a/../../outside", "x")]), "with \"..\""),
        ("a hard link out", archive(&[hard("a", "../../etc/passwd")]), "with \"..\""),
        ("a hard link to nothing", archive(&[hard("a", "/etc/passwd")]), "hard link to \"etc/passwd\""),
        ("hard links in a circle", archive(&[hard("a", "b"), hard("b", "a")]), "hard link to \"b\""),
        ("symlinks in a circle", archive(&[link("a", "b"), link("b", "a"), file("a/c", "x")]), "40 symlinks"),
        ("a file as directory", archive(&[file("a", "x"), file("a/b", "x")]), "parent is not a directory"),
        ("the root as a link", archive(&[link("./", "/etc")]), "path of a directory"),
        ("a whiteout of the parent", archive(&[file(".wh...", "")]), "misplaced whiteout"),
        ("a control character", archive(&[file("../\u{1b}[2J", "x")]), "\\x1b[2J"),
        ("sparse", archive(&[entry("a", b'S', "")]), "entry type \"S\""),
        ("an unknown type", archive(&[entry("a", b'Z', "")]), "entry type \"Z\""),
        ("8 GiB that are not there", archive(&[header("a", b'0', "", b"77777777777")]), "cut short"),
        ("a negative size", archive(&[header("a", b'0', "", &[0xff; 12])]), "field size"),
        ("2^63 bytes", extended(b'x', pax_size), "size"),
        ("a name of 5000 bytes", extended(b'L', &[&[b'n'; 5000][..], b"\0"].concat()), "bytes"),
        ("a broken PAX record", extended(b'x', b"99 path=x\n"), "malformed PAX record"),
        ("sparse by PAX", extended(b'x', b"22 GNU.sparse.major=1\n"), "GNU.sparse.major"),
        ("no end", file("a", "x"), "cut short"),
        (
            "a wrong checksum",
            {
                let mut a = archive(&[file("a", "x")]);
                a[0] = b'b';
                a
            },
            "checksum",
        ),
    ];
    let path = dir.path().join("hostile.tar");
    for (case, bytes, word) in table {
        fs::write(&path, bytes).expect("archive");
        home.refuses(&path, case, &["hostile.tar", word]);
    }
    assert!(!dir.path().join("outside").exists());
}

#[test]
fn a_strange_archive_is_taken_without_leaving_its_root() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let home = Home::new(dir.path());
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("directory");
    let target = outside.to_str().expect("UTF-8");
    let path = dir.path().join("strange.tar");
    let entries = [
        file("/absolute", "1"),
        entry("link", b'2', target),
        file("link/file", "through the link"),
        file("twice", "first"),
        file("twice", "second"),
        entry("dev/null", b'3', ""),
        entry(&"n".repeat(99), b'6', ""),
    ];
    fs::write(&path, archive(&entries)).expect("archive");
    let done = home.import(&path);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("1 device node dropped"), "{}", done.stderr);
    assert_eq!(fs::read_dir(&outside).expect("directory").count(), 0);
    let done = run_in(
        &home.path,
        &["image", "export", "hostile", "-o", dir.path().join("out.tar").to_str().expect("UTF-8")],
    );
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    fs::create_dir(dir.path().join("out")).expect("directory");
    tool(dir.path(), "tar -xf out.tar -C out");
    let text = |name: &str| fs::read_to_string(dir.path().join("out").join(name)).expect("file");
    assert_eq!((text("absolute").as_str(), text("twice").as_str()), ("1", "second"));
    assert_eq!(text(&format!("{}/file", target.trim_start_matches('/'))), "through the link");
    assert!(!dir.path().join("out/dev/null").exists());
}

#[test]
fn a_bomb_is_refused_by_its_budget() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let home = Home::new(dir.path());
    // zstd: a tar header for 8 GiB, then blocks that repeat one byte 131072 times, four bytes each.
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
    let block = |last: u32, kind: u32, size: u32| (last | kind << 1 | size << 3).to_le_bytes()[..3].to_vec();
    bomb.extend(block(0, 0, 512));
    bomb.extend(header("zeros", b'0', "", b"77777777777"));
    for at in 0..8000 {
        bomb.extend(block(u32::from(at == 7999), 1, 128 << 10));
        bomb.push(0);
    }
    let path = dir.path().join("bomb.tar.zst");
    fs::write(&path, bomb).expect("bomb");
    home.refuses(&path, "zstd", &["bomb.tar.zst", "import budget", "each compressed byte"]);
}

/// Blobs of a layout by path, the layer first.
fn blobs(layout: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(layout.join("blobs/sha256")).expect("blobs").map(|e| e.expect("entry").path());
    let mut paths: Vec<_> = paths.collect();
    paths.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).expect("blob").len()));
    paths
}

#[test]
fn a_damaged_layout_is_refused_by_the_blob_and_its_digest() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let home = Home::new(dir.path());
    let (layout, _) = busybox(dir.path());
    tool(
        dir.path(),
        "skopeo copy --insecure-policy -q --dest-compress-format zstd oci:layout:latest oci:zstd:latest",
    );
    for layout in [layout, dir.path().join("zstd")] {
        for blob in blobs(&layout) {
            let whole = fs::read(&blob).expect("blob");
            let hex = blob.file_name().expect("name").to_string_lossy().into_owned();
            for at in [0, whole.len() / 2, whole.len() - 1] {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                fs::write(&blob, bytes).expect("changed");
                home.refuses(&layout, "a flipped bit", &["import the image"]);
                fs::write(&blob, &whole[..at]).expect("changed");
                home.refuses(&layout, "cut short", &[&hex, "expected"]);
            }
            fs::remove_file(&blob).expect("removed");
            home.refuses(&layout, "missing", &["the image has no", &hex]);
            fs::write(&blob, whole).expect("restored");
        }
        let index = layout.join("index.json");
        let whole = fs::read_to_string(&index).expect("index");
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        for (case, text, word) in [
            ("no JSON", "{".to_owned(), "index.json"),
            ("an unknown type", whole.replace(media_type, "text/plain"), "\"text/plain\""),
            ("another digest", whole.replacen("sha256:", "sha512:", 1), "index.json"),
            ("no images", r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), "--reference"),
        ] {
            fs::write(&index, text).expect("changed");
            home.refuses(&layout, case, &[word]);
        }
        fs::write(&index, whole).expect("restored");
        assert_eq!(home.import(&layout).status, Some(0), "restored");
        assert_eq!(run_in(&home.path, &["image", "rm", "hostile"]).status, Some(0));
    }
}

#[test]
fn a_damaged_docker_archive_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let home = Home::new(dir.path());
    let (_, archive) = busybox(dir.path());
    let whole = fs::read(&archive).expect("archive");
    let damaged = dir.path().join("damaged.tar");
    for step in 0..12 {
        let at = whole.len() * step / 12 + 100;
        fs::write(&damaged, &whole[..at]).expect("write");
        home.refuses(&damaged, &format!("cut at {at}"), &["damaged.tar"]);
    }
    let unpacked = dir.path().join("unpacked");
    fs::create_dir(&unpacked).expect("directory");
    tool(&unpacked, "tar -xf ../docker.tar");
    let manifest = fs::read_to_string(unpacked.join("manifest.json")).expect("manifest");
    let entries: Value = serde_json::from_str(&manifest).expect("JSON");
    let config = entries[0]["Config"].as_str().expect("name");
    let layer = entries[0]["Layers"][0].as_str().expect("name");
    for (case, from, to, word) in [
        ("a missing layer", layer, "missing.tar", "the image has no \"missing.tar\""),
        ("a layer outside", layer, "../../etc/passwd", "with \"..\""),
        ("the layer as configuration", config, layer, "damaged.tar"),
        ("the configuration as layer", layer, config, "layer 1 of 1"),
    ] {
        fs::write(unpacked.join("manifest.json"), manifest.replace(from, to)).expect("manifest");
        tool(&unpacked, "tar -cf ../damaged.tar .");
        home.refuses(&damaged, case, &["damaged.tar", word]);
    }
    fs::write(&damaged, noise(100_000)).expect("write");
    home.refuses(&damaged, "noise", &["damaged.tar", "is not an image"]);
}
