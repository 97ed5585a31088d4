//! A store on a disk that is too small: one clear line, status 125, nothing left.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::samples::{busybox, noise, tool};
use support::{Done, run_in};

/// A small filesystem in memory, until it is dropped.
struct Small(PathBuf);

impl Small {
    /// Nothing where mounting is not allowed.
    fn new(at: PathBuf, mib: u32) -> Option<Self> {
        fs::create_dir(&at).expect("directory");
        let size = format!("size={mib}m,mode=0755");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output().expect("mount");
        mounted.status.success().then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        tool(Path::new("/"), &format!("umount {}", self.0.display()));
    }
}

fn used(home: &Path) -> u64 {
    let stat = rustix::fs::statvfs(home).expect("statvfs");
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

#[test]
fn an_import_that_does_not_fit_says_so_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let Some(small) = Small::new(dir.path().join("small"), 6) else {
        println!("skipped: mounting a tmpfs is not allowed here");
        return;
    };
    let home = &small.0;
    let (layout, archive) = busybox(dir.path());
    let at = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    // Fits once: the contents are there twice while it is imported, 2 MB each.
    let first = run_in(home, &["image", "import", &at(&archive), "--name", "first"]);
    assert_eq!(first.status, Some(0), "{}", first.stderr);
    let (before, listing) = (used(home), run_in(home, &["image", "ls", "--json"]).stdout);

    let root = dir.path().join("root");
    fs::create_dir(&root).expect("directory");
    // The one does not fit into the spool, the other fits there and not into the image beside it.
    for (name, bytes) in [("spool", 16 << 20), ("image", 2_300_000)] {
        fs::write(root.join("noise"), noise(bytes)).expect("file");
        tool(dir.path(), "tar -cf root.tar -C root .");
        tool(dir.path(), "gzip -kf root.tar");
        for source in ["root", "root.tar", "root.tar.gz"] {
            let result = run_in(home, &["image", "import", &at(&dir.path().join(source)), "--name", "x"]);
            full(&result, home, &format!("{name} {source}"));
            assert_eq!(used(home), before, "{name} {source}");
        }
    }
    drop(fs::write(home.join("filler"), noise(6 << 20)).expect_err("full"));
    full(&run_in(home, &["image", "import", &at(&layout), "--name", "x"]), home, "no room at all");
    fs::remove_file(home.join("filler")).expect("removed");
    assert_eq!(run_in(home, &["image", "ls", "--json"]).stdout, listing);
    assert_eq!(used(home), before);
}

fn full(result: &Done, home: &Path, case: &str) {
    assert_eq!((result.status, result.stdout.as_str()), (Some(125), ""), "{case}: {}", result.stderr);
    assert_eq!(result.stderr.lines().count(), 1, "{case}: {}", result.stderr);
    for word in ["no space left", home.to_str().expect("UTF-8"), "isolab gc"] {
        assert!(result.stderr.contains(word), "{case}: {word}: {}", result.stderr);
    }
    for dir in ["tmp", "scratch"] {
        assert_eq!(fs::read_dir(home.join(dir)).expect("list").count(), 0, "{case}: {dir}");
    }
}
