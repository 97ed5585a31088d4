//! Root directories to import, and directories of the host that nothing may touch.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A directory with everything in it, and what is mounted on or below it in this mount namespace.
pub(crate) fn state(dir: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let mut names: Vec<_> =
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    let here = |line: &&str| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(dir));
    (names, mounts.lines().filter(here).map(str::to_owned).collect())
}

/// A root directory with busybox, in a directory of its own.
pub(crate) fn root(dir: &Path, name: &str) -> PathBuf {
    let root = dir.join(name);
    fs::create_dir_all(root.join("bin")).expect("directories");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    symlink("busybox", root.join("bin/sh")).expect("a link");
    root
}
