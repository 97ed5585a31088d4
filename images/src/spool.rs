//! Writing and reading the [`Spool`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};

use crate::tree::{Content, Spool};

/// Bytes collected before a write; longer pieces go straight to the file.
const BUFFER: usize = 1 << 20;

impl Spool {
    /// An unnamed file in a directory (`O_TMPFILE`): it goes away with its descriptor, also after a crash.
    ///
    /// # Errors
    /// The directory is not writable, or its filesystem has no unnamed files.
    pub fn create_in(directory: impl AsFd) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
        let fd = rustix::fs::openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self { file: File::from(fd), len: 0 })
    }

    /// An empty spool in an open file.
    ///
    /// # Errors
    /// The file can't be cut to length zero.
    pub fn from_file(file: File) -> io::Result<Self> {
        file.set_len(0)?;
        Ok(Self { file, len: 0 })
    }

    /// Bytes of a file of the tree.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&self, content: Content) -> io::Result<Vec<u8>> {
        let len = usize::try_from(content.len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, content.offset)?;
        Ok(bytes)
    }
}

/// Appends file contents in large writes.
#[derive(Debug)]
pub(crate) struct SpoolWriter<'a> {
    spool: &'a mut Spool,
    buffer: Vec<u8>,
}

impl<'a> SpoolWriter<'a> {
    pub(crate) fn new(spool: &'a mut Spool) -> Self {
        Self { spool, buffer: Vec::with_capacity(BUFFER) }
    }

    /// Where the next byte will lie.
    pub(crate) fn position(&self) -> u64 {
        self.spool.len + self.buffer.len() as u64
    }

    /// The file, to read what was flushed by offset.
    pub(crate) fn reopen(&self) -> io::Result<File> {
        self.spool.file.try_clone()
    }

    /// Appends a file of a directory until its end.
    pub(crate) fn append_all(&mut self, mut from: impl Read, most: u64) -> io::Result<Content> {
        self.flush()?;
        let offset = self.spool.len;
        let mut end = &self.spool.file;
        end.seek(SeekFrom::Start(offset))?;
        let len = io::copy(&mut from.by_ref().take(most.saturating_add(1)), &mut end)?;
        self.spool.len += len;
        Ok(Content { offset, len })
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.buffer);
        self.append(&bytes)?;
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.spool.file.write_all_at(bytes, self.spool.len)?;
        self.spool.len += bytes.len() as u64;
        Ok(())
    }
}

impl Write for SpoolWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            SpoolWriter::flush(self)?;
        }
        if bytes.len() >= BUFFER / 4 {
            SpoolWriter::flush(self)?;
            self.append(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        SpoolWriter::flush(self)
    }
}
