//! Real images: what other tools wrote, imported, run and judged by other tools.

mod support;

use std::path::Path;
use std::process::Command;

use support::run;
use support::samples::busybox;

fn import(path: &Path, name: &str) -> String {
    let result = run(&["image", "import", path.to_str().expect("UTF-8"), "--name", name]);
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    result.stdout.split_whitespace().nth(1).expect("a digest").to_owned()
}

#[test]
fn an_image_of_other_tools_gives_one_digest_and_runs() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (layout, archive) = busybox(dir.path());
    assert_eq!(import(&layout, "from-layout"), import(&archive, "from-archive"));
    let result = run(&["run", "from-archive", "--", "/bin/sh", "-c", "echo $((6*7)); exit 9"]);
    assert_eq!((result.status, result.stdout.as_str()), (Some(9), "42\n"), "{}", result.stderr);
    let inspect = run(&["image", "inspect", "from-layout"]);
    let entry: serde_json::Value = serde_json::from_str(&inspect.stdout).expect("JSON");
    let judge =
        Command::new("fsck.erofs").arg(entry["path"].as_str().expect("path")).output().expect("fsck.erofs");
    assert!(judge.status.success(), "{}", String::from_utf8_lossy(&judge.stdout));
}

#[test]
fn a_damaged_archive_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (_, archive) = busybox(dir.path());
    let whole = std::fs::read(&archive).expect("archive");
    let before = run(&["image", "ls"]).stdout;
    let damaged = dir.path().join("damaged.tar");
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    for bytes in [&whole[..whole.len() / 2], &whole[..4096], &flipped] {
        std::fs::write(&damaged, bytes).expect("write");
        let result = run(&["image", "import", damaged.to_str().expect("UTF-8"), "--name", "damaged"]);
        assert_eq!(result.status, Some(125), "{} bytes: {}", bytes.len(), result.stdout);
        assert_eq!(result.stderr.lines().count(), 1, "{}", result.stderr);
    }
    assert_eq!(run(&["image", "ls"]).stdout, before);
}
