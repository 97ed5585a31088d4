//! Files that are the user's own and nobody else's, whatever stands under their names.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::{SnapshotError, io_error};
use crate::digest::Hashing;

/// Longest entry file.
const MAX_ENTRY: u64 = 64 << 10;

/// Why a file of an entry is not taken.
pub(super) enum Refused {
    Missing,
    NotOwn,
    Io(io::Error),
}

impl Refused {
    /// As an error of the snapshot's.
    pub(super) fn explain(
        self,
        path: &Path,
        altered: impl Fn(&'static str) -> SnapshotError,
    ) -> SnapshotError {
        match self {
            Self::Missing => altered("is missing"),
            Self::NotOwn => altered("is not a file of yours alone (mode 0600)"),
            Self::Io(source) => io_error("open", path)(source),
        }
    }
}

/// Opens a regular file that is ours and nobody else's, whatever stands under its name.
pub(super) fn open_own(path: &Path) -> Result<File, Refused> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let opened = File::options().read(true).custom_flags(flags.cast_signed()).open(path);
    let file =
        opened.map_err(|error| match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOENT) => Refused::Missing,
            Some(rustix::io::Errno::LOOP) => Refused::NotOwn,
            _ => Refused::Io(error),
        })?;
    let meta = file.metadata().map_err(Refused::Io)?;
    let own =
        meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o777 == 0o600;
    if own { Ok(file) } else { Err(Refused::NotOwn) }
}

/// Reads an entry file.
pub(super) fn read_small(path: &Path) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    open_own(path)?.take(MAX_ENTRY).read_to_end(&mut bytes).map_err(Refused::Io)?;
    Ok(bytes)
}

/// SHA-256 of a whole file, as hexadecimal digits.
pub(super) fn hash(mut file: &File) -> io::Result<String> {
    file.rewind()?;
    let mut hashing = Hashing::new(file);
    let mut buffer = vec![0; 1 << 20];
    while hashing.read(&mut buffer)? > 0 {}
    file.rewind()?;
    Ok(hashing.digest().hex())
}
