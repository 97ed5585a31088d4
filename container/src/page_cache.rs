//! How much of a file is in the page cache, and how to bring it in or out. Looking changes nothing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{Advice, fadvise};
use rustix::param::page_size;

use crate::sys;

/// Bytes of one read that brings a file in.
const CHUNK: usize = 1 << 20;

/// Pages of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// In memory.
    pub resident: u64,
    /// All of them.
    pub all: u64,
}

/// Counts the pages of the first `bytes` bytes that are in the page cache. Holes of a file have none, and count as none. The kernel
/// tells it only to who may write the file, and calls every page of another file resident.
///
/// # Errors
/// The kernel's own.
pub fn look(file: &File, bytes: u64) -> io::Result<Pages> {
    let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    if length == 0 {
        return Ok(Pages { resident: 0, all: 0 });
    }
    let seen = sys::resident_pages(file.as_fd(), length, page_size())?;
    let resident = seen.iter().filter(|page| **page & 1 == 1).count() as u64;
    let meta = file.metadata()?;
    let all = match meta.file_type().is_file() {
        // In units of 512 bytes (stat(2)); metadata may be among them.
        true => (seen.len() as u64).min((meta.blocks() * 512).div_ceil(page_size() as u64)),
        false => seen.len() as u64,
    };
    Ok(Pages { resident: resident.min(all), all })
}

/// Brings the first `bytes` bytes in, by reading them.
///
/// # Errors
/// The file can't be read.
pub fn warm(file: &File, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < bytes {
        match file.read_at(&mut buffer, at)? {
            0 => break,
            n => at += n as u64,
        }
    }
    Ok(())
}

/// Gives the file's pages back; those that are mapped or not yet written stay.
///
/// # Errors
/// The kernel's own.
pub fn evict(file: &File) -> io::Result<()> {
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn pages_come_in_and_go_out() {
        let dir = std::env::var_os("CARGO_TARGET_TMPDIR")
            .map_or_else(|| "/var/tmp".into(), std::path::PathBuf::from);
        let mut file = tempfile::tempfile_in(dir).expect("a file on a disk");
        let bytes = 10 * page_size() as u64 - 7;
        file.write_all(&vec![7; usize::try_from(bytes).expect("small")]).expect("room");
        file.sync_all().expect("a disk");
        evict(&file).expect("advice is taken");
        let cold = look(&file, bytes).expect("our own file");
        assert_eq!(cold.all, 10);
        warm(&file, bytes).expect("readable");
        assert_eq!(look(&file, bytes).expect("our own file"), Pages { resident: 10, all: 10 });
        // In a file system that lives in memory nothing goes out.
        assert!(cold.resident == 0 || cold.resident == 10, "{cold:?}");
        assert_eq!(look(&file, 0).expect("nothing"), Pages { resident: 0, all: 0 });
        // A hole of ten pages behind them.
        file.set_len(20 * page_size() as u64).expect("room");
        let with_hole = look(&file, 20 * page_size() as u64).expect("our own file");
        assert!((10..=12).contains(&with_hole.all), "{with_hole:?}");
    }
}
