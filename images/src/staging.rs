//! Directories that appear in the store whole or not at all: built under a temporary name, then renamed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::{Errno, retry_on_intr};
use tempfile::TempDir;

/// What temporary names begin with.
pub(crate) const TEMPORARY: &str = ".new-";

/// A temporary directory, locked until it is dropped, then removed with all that it holds.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: TempDir,
    _lock: File,
}

impl Staging {
    /// A fresh one beside the entries at `root`, which is there.
    pub(crate) fn new_in(root: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(root)?;
        let lock = File::open(dir.path())?;
        retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Renames a finished directory to `target`; `replace` lets it take the place of another, which goes away with this one.
    pub(crate) fn publish(&self, built: &Path, target: &Path, replace: bool) -> Result<(), Errno> {
        let rename = |flags| renameat_with(CWD, built, CWD, target, flags);
        match rename(RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) if replace => rename(RenameFlags::EXCHANGE),
            result => result,
        }
    }

    /// Removes it.
    pub(crate) fn close(self) -> io::Result<()> {
        self.dir.close()
    }
}

/// Temporary directories at `root` whose maker is gone.
pub(crate) fn stale(root: &Path) -> io::Result<Vec<PathBuf>> {
    let names = names(root)?;
    let paths = names.iter().filter(|name| name.starts_with(TEMPORARY)).map(|name| root.join(name));
    // Who builds an entry holds a lock on its directory.
    let unlocked = |path: &PathBuf| {
        File::open(path).is_ok_and(|dir| flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok())
    };
    Ok(paths.filter(unlocked).collect())
}

/// The names in a directory that need not exist, in order; those that are not UTF-8 are not ours.
pub(crate) fn names(root: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
