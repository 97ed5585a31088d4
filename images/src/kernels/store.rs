//! The directory of entries: list, find, remove, and the temporary names that entries are built under.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{KernelEntry, KernelInfo, STOCK, TUNED};
use crate::staging::{self, Staging};

/// A step of keeping kernels that failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelStoreError {
    /// No entry of this name.
    #[error(
        "no kernel named {name} (there are: {known}); `isolab kernel fetch` gets the distribution's (stock), `isolab kernel build` makes tuned"
    )]
    Unknown {
        /// As asked.
        name: String,
        /// What there is.
        known: String,
    },
    /// A name that can't be one.
    #[error(
        "{name:?} can't be a kernel name: use 1 to 64 of a-z, 0-9, dot, dash and underscore, not a dot first"
    )]
    Name {
        /// As given.
        name: String,
    },
    /// The name is taken.
    #[error("kernel {name} exists: give another --name, or remove it with `isolab kernel rm {name}`")]
    Exists {
        /// The name.
        name: String,
    },
    /// Reading or writing the store failed.
    #[error("{step} {path}")]
    Io {
        /// What was done.
        step: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// `entry.json` is not one.
    #[error("kernel entry {path} is damaged: remove it with `isolab kernel rm`")]
    Damaged {
        /// The entry's directory.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
}

fn io_error<'a>(step: &'static str, path: &'a Path) -> impl Fn(io::Error) -> KernelStoreError + 'a {
    move |source| KernelStoreError::Io { step, path: path.display().to_string(), source }
}

/// The entries below one directory (`$ISOLAB_HOME/kernels`).
#[derive(Clone, Debug)]
pub struct KernelStore {
    root: PathBuf,
}

impl KernelStore {
    /// The store at `root`, which need not exist yet.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory that holds the entries.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// All entries by name.
    ///
    /// # Errors
    /// The directory can't be read, or an entry is damaged.
    pub fn list(&self) -> Result<Vec<KernelEntry>, KernelStoreError> {
        let names = self.names(|name| !name.starts_with('.'))?;
        names.iter().map(|name| self.read(name)).collect()
    }

    /// The entry `name`.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn get(&self, name: &str) -> Result<KernelEntry, KernelStoreError> {
        check_name(name)?;
        if !self.root.join(name).is_dir() {
            return Err(self.unknown(name));
        }
        self.read(name)
    }

    /// Name of the kernel that guests get where none is asked for: the built one where there is one, else the
    /// distribution's, there or not.
    #[must_use]
    pub fn default_name(&self) -> &'static str {
        if self.contains(TUNED) { TUNED } else { STOCK }
    }

    /// Removes the entry `name`: out of sight first, so that nobody sees half of it.
    ///
    /// # Errors
    /// There is none, or it can't be removed.
    pub fn remove(&self, name: &str) -> Result<(), KernelStoreError> {
        check_name(name)?;
        let entry = self.root.join(name);
        if !entry.is_dir() {
            return Err(self.unknown(name));
        }
        let staging = self.stage()?;
        let gone = staging.path().join(name);
        fs::rename(&entry, gone).map_err(io_error("remove", &entry))?;
        staging.close().map_err(io_error("remove", &entry))
    }

    /// Directories that an interrupted add, fetch or removal left.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn stale(&self) -> Result<Vec<PathBuf>, KernelStoreError> {
        staging::stale(&self.root).map_err(io_error("read", &self.root))
    }

    /// A fresh temporary directory on the store's file system, locked until it is dropped, then removed.
    pub(super) fn stage(&self) -> Result<Staging, KernelStoreError> {
        fs::create_dir_all(&self.root).map_err(io_error("create", &self.root))?;
        Staging::new_in(&self.root).map_err(io_error("create a directory in", &self.root))
    }

    /// Gives a finished entry its name; `replace` lets it take the place of another.
    pub(super) fn publish(
        &self,
        staging: &Staging,
        built: &Path,
        name: &str,
        replace: bool,
    ) -> Result<KernelEntry, KernelStoreError> {
        check_name(name)?;
        let target = self.root.join(name);
        match staging.publish(built, &target, replace) {
            Ok(()) => self.read(name),
            Err(rustix::io::Errno::EXIST) => Err(KernelStoreError::Exists { name: name.into() }),
            Err(errno) => Err(io_error("name", staging.path())(errno.into())),
        }
    }

    /// Whether an entry of this name is there.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.root.join(name).is_dir()
    }

    fn read(&self, name: &str) -> Result<KernelEntry, KernelStoreError> {
        let dir = self.root.join(name);
        let path = dir.join("entry.json");
        let json = fs::read(&path).map_err(io_error("read", &path))?;
        let info: KernelInfo = serde_json::from_slice(&json)
            .map_err(|source| KernelStoreError::Damaged { path: dir.display().to_string(), source })?;
        Ok(KernelEntry { dir, info })
    }

    fn names(&self, keep: impl Fn(&str) -> bool) -> Result<Vec<String>, KernelStoreError> {
        let mut names = staging::names(&self.root).map_err(io_error("read", &self.root))?;
        names.retain(|name| keep(name));
        Ok(names)
    }

    fn unknown(&self, name: &str) -> KernelStoreError {
        let known = self.names(|name| !name.starts_with('.')).unwrap_or_default();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        KernelStoreError::Unknown { name: name.into(), known }
    }
}

/// Whether `name` can be an entry's.
///
/// # Errors
/// It can't.
pub(super) fn check_name(name: &str) -> Result<(), KernelStoreError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let good = (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fits);
    if good { Ok(()) } else { Err(KernelStoreError::Name { name: name.into() }) }
}

/// A name made from a file's name.
pub(super) fn name_from(file: &OsStr) -> String {
    let text = file.to_string_lossy().to_lowercase();
    let kept: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    kept.trim_start_matches('.').chars().take(64).collect()
}
