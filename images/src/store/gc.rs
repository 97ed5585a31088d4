//! Giving space back: `rm` for one image, `gc` for all that nothing needs.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::name::Name;
use super::{Store, StoreError, files, io_step};
use crate::digest::Digest;

/// Something that was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// What it was.
    pub what: &'static str,
    /// Where it was.
    pub path: PathBuf,
    /// Bytes on the disk.
    pub bytes: u64,
}

impl Store {
    /// Removes a name, and the image with its last name; by digest, the image with all its names.
    ///
    /// # Errors
    /// No such image, or a file that can't be removed.
    pub fn remove(&self, wanted: &str) -> Result<Vec<Removed>, StoreError> {
        let _guard = self.lock()?;
        let named = self.named(wanted)?;
        let by_name = named.is_some();
        let digest = named.map_or_else(|| self.digest_of(wanted), |record| Ok(record.digest))?;
        let names: Vec<Name> = self
            .digests_by_name()?
            .into_iter()
            .filter(|(_, to)| to.as_ref() == Some(&digest))
            .map(|(name, _)| name)
            .collect();
        let mut removed = Vec::new();
        let last = names.len() <= 1;
        for name in names.iter().filter(|name| !by_name || name.as_str() == wanted) {
            remove(&self.name_path(name), "name", &mut removed)?;
        }
        if last || !by_name {
            // The record first: without it the image does not exist.
            remove(&self.record_path(&digest), "record", &mut removed)?;
            remove(&self.image_path(&digest), "image", &mut removed)?;
        }
        Ok(removed)
    }

    /// Removes what nothing needs: files and private copies whose writer is gone, images without a record or without a name,
    /// names of images that are gone. With `dry`, only lists it.
    ///
    /// # Errors
    /// A directory that can't be read or a file that can't be removed.
    pub fn gc(&self, dry: bool) -> Result<Vec<Removed>, StoreError> {
        let _guard = self.lock()?;
        let mut found = self.abandoned("tmp", "unfinished file")?;
        found.extend(self.abandoned("scratch", "private copy of a run")?);
        let names = self.digests_by_name()?;
        let digests = self.digests()?;
        let (mut doomed, mut kept) = (Vec::new(), Vec::new());
        for digest in digests {
            let used =
                names.iter().any(|(_, to)| to.as_ref() == Some(&digest)) && self.image_path(&digest).exists();
            if used { kept.push(digest) } else { doomed.push(digest) }
        }
        for (name, to) in &names {
            if !to.as_ref().is_some_and(|to| kept.contains(to)) {
                found.push(Removed { what: "name of a missing image", path: self.name_path(name), bytes: 0 });
            }
        }
        found.extend(doomed.iter().map(|d| Removed { what: "record", path: self.record_path(d), bytes: 0 }));
        for file in files(&self.home.join("images"))? {
            let digest = file.strip_suffix(".erofs").and_then(Digest::from_file_stem);
            if digest.is_some_and(|digest| !kept.contains(&digest)) {
                found.push(Removed {
                    what: "image without a name",
                    path: self.home.join("images").join(file),
                    bytes: 0,
                });
            }
        }
        let mut removed = Vec::new();
        for Removed { what, path, .. } in found {
            if dry {
                removed.push(Removed { what, bytes: bytes(&path), path });
            } else {
                remove(&path, what, &mut removed)?;
            }
        }
        Ok(removed)
    }

    /// Removes files that a killed import left.
    pub(super) fn sweep_temporary(&self) -> Result<(), StoreError> {
        let _guard = self.lock()?;
        for Removed { what, path, .. } in self.abandoned("tmp", "unfinished file")? {
            remove(&path, what, &mut Vec::new())?;
        }
        Ok(())
    }

    fn digests_by_name(&self) -> Result<Vec<(Name, Option<Digest>)>, StoreError> {
        Ok(self.names()?.into_iter().map(|(name, to)| (name, to.map(|record| record.digest))).collect())
    }

    /// What lies in a directory of the store without a lock; the store is locked.
    fn abandoned(&self, dir: &str, what: &'static str) -> Result<Vec<Removed>, StoreError> {
        let dir = self.home.join(dir);
        let mut found = Vec::new();
        for file in files(&dir)? {
            let path = dir.join(file);
            let Ok(open) = File::open(&path) else { continue };
            if flock(&open, FlockOperation::NonBlockingLockExclusive).is_ok() {
                found.push(Removed { what, path, bytes: 0 });
            }
        }
        Ok(found)
    }
}

/// Bytes on disk of a file, or of all files below a directory.
fn bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::symlink_metadata(path) else { return 0 };
    let below = std::fs::read_dir(path).into_iter().filter(|_| meta.is_dir()).flatten().flatten();
    meta.blocks() * 512 + below.map(|entry| bytes(&entry.path())).sum::<u64>()
}

/// Removes a directory with all below it, also where its owner took his own rights away.
pub(super) fn remove_dir(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            open_up(path);
            std::fs::remove_dir_all(path)
        }
        other => other,
    }
}

/// Gives the owner all rights on the directories below; symlinks are not followed, and what fails shows when
/// the removal fails again.
fn open_up(dir: &Path) {
    let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

fn remove(path: &Path, what: &'static str, removed: &mut Vec<Removed>) -> Result<(), StoreError> {
    let bytes = bytes(path);
    let result =
        if path.is_dir() && !path.is_symlink() { remove_dir(path) } else { std::fs::remove_file(path) };
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io_step("remove", path))?,
    }
    removed.push(Removed { what, path: path.to_path_buf(), bytes });
    Ok(())
}
