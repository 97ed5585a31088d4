//! The initramfs: process 1, the modules in the order of loading, and the directories that init mounts on.
//!
//! A plain newc archive, not compressed (unpacking costs guest time), without times or owners: the same input gives
//! the same bytes.

use std::fs;
use std::io::{self, Write};

use cpio::newc::{Builder, ModeFileType, trailer};

use crate::kernels::{KernelEntry, ModuleSet};

/// Largest single file, and largest archive: both fit the format's 32-bit sizes and any sane guest.
const MAX_FILE: usize = 512 << 20;

/// A step of making an initramfs that failed.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A module of the entry can't be read.
    #[error("read kernel module {path}")]
    ReadModule {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than an initramfs takes.
    #[error("file {name} of {size} bytes is over the initramfs limit of 512 MiB")]
    TooLarge {
        /// Which.
        name: String,
        /// Its size.
        size: usize,
    },
    /// The archive writer refused.
    #[error("write initramfs entry {name}")]
    Write {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// An archive being written. Directories come before what they hold; names are relative.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    last_ino: u32,
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// Never for a name of sane length.
    pub fn dir(&mut self, name: &str, mode: u32) -> Result<(), InitramfsError> {
        let entry = self.entry(name, mode, ModeFileType::Directory).nlink(2);
        self.append(name, entry, &[])
    }

    /// Adds a regular file.
    ///
    /// # Errors
    /// The content is too large.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), InitramfsError> {
        let entry = self.entry(name, mode, ModeFileType::Regular);
        self.append(name, entry, content)
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// Never for a name of sane length.
    pub fn char_device(
        &mut self,
        name: &str,
        mode: u32,
        (major, minor): (u32, u32),
    ) -> Result<(), InitramfsError> {
        let entry = self.entry(name, mode, ModeFileType::Char).rdev_major(major).rdev_minor(minor);
        self.append(name, entry, &[])
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// Never for a target of sane length.
    pub fn symlink(&mut self, name: &str, target: &str) -> Result<(), InitramfsError> {
        let entry = self.entry(name, 0o777, ModeFileType::Symlink);
        self.append(name, entry, target.as_bytes())
    }

    /// The finished archive.
    ///
    /// # Errors
    /// Never in practice: it goes to memory.
    pub fn finish(self) -> Result<Vec<u8>, InitramfsError> {
        trailer(self.bytes).map_err(|source| InitramfsError::Write { name: "TRAILER!!!".into(), source })
    }

    /// Inode numbers count up: equal numbers would be hard links to the kernel.
    fn entry(&mut self, name: &str, mode: u32, kind: ModeFileType) -> Builder {
        self.last_ino += 1;
        Builder::new(name).ino(self.last_ino).mode(mode).set_mode_file_type(kind)
    }

    fn append(&mut self, name: &str, entry: Builder, content: &[u8]) -> Result<(), InitramfsError> {
        let size = u32::try_from(content.len())
            .ok()
            .filter(|_| content.len() <= MAX_FILE)
            .ok_or_else(|| InitramfsError::TooLarge { name: name.into(), size: content.len() })?;
        let mut writer = entry.write(&mut self.bytes, size);
        writer
            .write_all(content)
            .and_then(|()| writer.finish().map(|_| ()))
            .map_err(|source| InitramfsError::Write { name: name.into(), source })
    }
}

/// The initramfs for `entry` with `init` as process 1 and one set of the entry's modules in `/modules`, whose names
/// sort in the order of loading.
///
/// # Errors
/// A module can't be read or a file is too large.
pub fn build(entry: &KernelEntry, init: &[u8], set: ModuleSet) -> Result<Vec<u8>, InitramfsError> {
    start(entry, init, set)?.finish()
}

/// As [`build`], left open for more files.
///
/// # Errors
/// As [`build`].
pub fn start(entry: &KernelEntry, init: &[u8], set: ModuleSet) -> Result<Archive, InitramfsError> {
    let mut archive = Archive::new();
    for name in ["dev", "modules", "proc", "sys"] {
        archive.dir(name, 0o755)?;
    }
    // The kernel opens /dev/console for process 1 before anything is mounted.
    archive.char_device("dev/console", 0o600, (5, 1))?;
    archive.char_device("dev/null", 0o666, (1, 3))?;
    archive.file("init", 0o755, init)?;
    for path in entry.modules(set) {
        let content = fs::read(&path)
            .map_err(|source| InitramfsError::ReadModule { path: path.display().to_string(), source })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), 0o644, &content)?;
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new();
        archive.dir("dev", 0o755).unwrap();
        archive.char_device("dev/console", 0o600, (5, 1)).unwrap();
        archive.file("init", 0o755, b"hello").unwrap();
        archive.symlink("link", "init").unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn writes_the_documented_header() {
        let bytes = sample();
        // newc: magic, ino, mode, uid, gid, nlink, mtime, filesize, 4 device numbers, namesize, check.
        let head = concat!(
            "070701", "00000001", "000041ed", "00000000", "00000000", "00000002", "00000000", "00000000",
            "00000000", "00000000", "00000000", "00000000", "00000004", "00000000", "dev\0"
        );
        assert_eq!(&bytes[..114], head.as_bytes());
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn same_input_gives_same_bytes() {
        assert_eq!(sample(), sample());
    }

    #[test]
    fn cpio_lists_what_was_written() {
        let mut child = Command::new("cpio")
            .args(["-t", "-v", "--numeric-uid-gid"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("cpio is installed");
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success());
        let text = String::from_utf8(out.stdout).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!((lines[0][0], lines[0][8]), ("drwxr-xr-x", "dev"));
        assert_eq!((lines[1][0], lines[1][4], lines[1][5]), ("crw-------", "5,", "1"));
        assert_eq!((lines[2][0], lines[2][4], lines[2][8]), ("-rwxr-xr-x", "5", "init"));
        assert_eq!(&lines[3][8..], ["link", "->", "init"]);
    }
}
