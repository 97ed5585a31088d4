//! What can go wrong in a store, with the remedy in the message.

use std::io;
use std::path::{Path, PathBuf};

use crate::erofs::{ErofsCheckError, ErofsWriteError};

/// Why the store can't do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No place for a store.
    #[error("no place for the image store: set ISOLAB_HOME to a directory")]
    Home,
    /// No store can be made or used there.
    #[error("use `{}` as the image store: set ISOLAB_HOME to a directory that this user may write to", path.display())]
    Place {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else could change the images.
    #[error("store `{}` {why}: move it away or set ISOLAB_HOME to another directory", path.display())]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Somebody else could put another store in its place.
    #[error("`{}`, above the store, {why}: give it to root or to this user (chown) and close it to others (chmod go-w), or set ISOLAB_HOME to another directory", path.display())]
    UnsafeWay {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A step on a file failed.
    #[error("{step} `{}`", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space left in the image store `{}`: free some (`isolab gc`, `isolab image rm`) or set ISOLAB_HOME to a larger disk", path.display())]
    Full {
        /// The store.
        path: PathBuf,
    },
    /// Not a name for an image.
    #[error("`{}` is not a name for an image: use 1 to 200 of a-z A-Z 0-9 . _ - + / :, starting with a letter or digit", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// No such image.
    #[error("no image `{}` in the store: `isolab image ls` shows what there is, `isolab image import` adds one", name.escape_debug())]
    NotFound {
        /// Name or digest as given.
        name: String,
    },
    /// The beginning of several digests.
    #[error("`{prefix}` is the beginning of more than one digest: give more digits")]
    Ambiguous {
        /// The digits.
        prefix: String,
    },
    /// The tree could not be written.
    #[error("write the image")]
    Write(#[from] ErofsWriteError),
    /// What was written is not accepted.
    #[error("check the image")]
    Check(#[from] ErofsCheckError),
    /// A record that is none.
    #[error("record `{}` is damaged: remove the image (`isolab image rm`) and import it again", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The file is not what was imported.
    #[error(
        "image `{name}` was changed or damaged after its import: remove it (`isolab image rm {name}`) and import it again"
    )]
    Changed {
        /// Its name or digest.
        name: String,
    },
}

/// Whether an error or one below it says that the disk is full.
#[must_use]
pub fn no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref().is_some_and(is_full) {
            return true;
        }
        next = error.source();
    }
    false
}

pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

pub(super) fn io_step(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { step, path, source }
}
