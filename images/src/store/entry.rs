//! One image of the store and its record.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, io_step, private};
use crate::config::ImageConfig;
use crate::digest::{Digest, Hashing};
use crate::erofs;

impl Digest {
    pub(super) fn file_stem(&self) -> String {
        format!("sha256-{}", self.hex())
    }

    pub(super) fn from_file_stem(stem: &str) -> Option<Self> {
        Self::from_hex(stem.strip_prefix("sha256-")?.as_bytes())
    }
}

/// What changes when somebody writes to a file: as long as it is the same, the bytes are those that were hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_s: i64,
    mtime_ns: i64,
    ctime_s: i64,
    ctime_ns: i64,
}

impl Stamp {
    pub(super) fn of(file: &File, path: &Path) -> Result<Self, StoreError> {
        Ok(Self::from(&file.metadata().map_err(io_step("look at", path))?))
    }

    pub(super) fn of_path(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::from(&std::fs::symlink_metadata(path).map_err(io_step("look at", path))?))
    }

    pub(crate) fn from(meta: &std::fs::Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime_s: meta.mtime(),
            mtime_ns: meta.mtime_nsec(),
            ctime_s: meta.ctime(),
            ctime_ns: meta.ctime_nsec(),
        }
    }
}

/// What is known of an image besides its files. Bound to each name: who imports the same files with another
/// configuration under another name changes nothing here.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    pub(super) config: ImageConfig,
    pub(super) source: String,
    pub(super) report: serde_json::Value,
    pub(super) created_s: u64,
}

/// The record of the files on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) inodes: u64,
    pub(super) stamp: Stamp,
    /// Of the first import: what the bare digest stands for.
    pub(super) description: Description,
}

impl Record {
    pub(super) const VERSION: u32 = 2;
}

/// The record of a name on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameRecord {
    pub(super) digest: Digest,
    pub(super) description: Description,
}

/// One image of the store.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// `sha256:` and 64 hex digits: the digest of the EROFS file.
    pub digest: String,
    /// The name that led here, if one did.
    pub name: Option<String>,
    /// The EROFS file.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Inodes of the image.
    pub inodes: u64,
    /// Its config.
    pub config: ImageConfig,
    /// Where it came from.
    pub source: String,
    /// What was dropped or changed on import.
    pub report: serde_json::Value,
    /// When, in seconds since 1970.
    pub created_s: u64,
    #[serde(skip)]
    stamp: Stamp,
    #[serde(skip)]
    store: Store,
}

impl Entry {
    pub(super) fn new(
        record: Record,
        name: Option<(String, Description)>,
        path: PathBuf,
        store: Store,
    ) -> Self {
        let (name, description) = match name {
            Some((name, description)) => (Some(name), description),
            None => (None, record.description),
        };
        let Description { config, source, report, created_s } = description;
        Self {
            digest: record.digest.to_string(),
            name,
            path,
            size: record.size,
            inodes: record.inodes,
            config,
            source,
            report,
            created_s,
            stamp: record.stamp,
            store,
        }
    }

    /// What leads to this entry in its store, with its own configuration: the name, else the digest.
    #[must_use]
    pub fn reference(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.digest)
    }

    /// Opens the image for reading. The descriptor is proven to hold what was imported: by its stamp (inode,
    /// size, times), or, where that differs (a copied store), by hashing and checking all of it. Mount this descriptor.
    ///
    /// # Errors
    /// The image is gone, is not what was imported, or can be written by others.
    pub fn open(&self) -> Result<File, StoreError> {
        let mut options = File::options();
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
        options.read(true).custom_flags(flags.cast_signed());
        let file = options.open(&self.path).map_err(io_step("open the image", &self.path))?;
        let meta = file.metadata().map_err(io_step("look at", &self.path))?;
        private(&self.path, &meta)?;
        if Stamp::from(&meta) == self.stamp {
            return Ok(file);
        }
        let changed =
            || StoreError::Changed { name: self.name.clone().unwrap_or_else(|| self.digest.clone()) };
        if !meta.is_file() || meta.len() != self.size {
            return Err(changed());
        }
        let digest = hash(&file).map_err(io_step("read", &self.path))?;
        if self.digest != digest.to_string() {
            return Err(changed());
        }
        erofs::check(&file)?;
        // On a read-only store this fails and the next open hashes again: slower, as safe.
        let _ = self.store.restamp(&digest, Stamp::from(&meta));
        Ok(file)
    }
}

/// Digest of a whole file, from wherever its cursor is.
pub(super) fn hash(mut file: &File) -> io::Result<Digest> {
    file.rewind()?;
    let mut hashing = Hashing::new(file);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match hashing.read(&mut buffer) {
            Ok(0) => return Ok(hashing.digest()),
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
            Ok(_) | Err(_) => {}
        }
    }
}
