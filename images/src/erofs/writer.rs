//! A tree and its spool to one file, hashed on the way.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use sha2::{Digest as _, Sha256};

use super::format::BLOCK_LEN;
use super::plan::{PlanError, plan};
use crate::digest::Digest;
use crate::tree::{Content, InodeId, Kind, Spool, Tree};

/// Bytes that go to the file at once.
const CHUNK: usize = 1 << 20;

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum ErofsWriteError {
    /// The tree has no EROFS form.
    #[error("lay out the image")]
    Plan(#[from] PlanError),
    /// Content that the spool does not hold.
    #[error("content of {} bytes at {} is outside the spool of {spool_len} bytes", content.len, content.offset)]
    Content {
        /// The content.
        content: Content,
        /// Bytes of the spool.
        spool_len: u64,
    },
    /// Reading contents.
    #[error("read contents from the spool")]
    ReadSpool(#[source] io::Error),
    /// Writing the image.
    #[error("write the image of {len} bytes")]
    Write {
        /// Bytes that it needs.
        len: u64,
        /// Why.
        source: io::Error,
    },
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the image.
    pub len: u64,
    /// Digest of the image.
    pub digest: Digest,
    /// Inodes of the image.
    pub inodes: u64,
}

/// Writes the image to `out` from its position on, in one pass. The same tree and contents give the same bytes.
///
/// # Errors
/// A tree that no image can hold, or input and output that fail.
pub fn write(tree: &Tree, spool: &Spool, out: &File) -> Result<Written, ErofsWriteError> {
    let content = |id: InodeId| match tree.inode(id).kind {
        Kind::File(content) => content,
        _ => Content::default(),
    };
    let inside = |c: &Content| c.offset.checked_add(c.len).is_some_and(|end| end <= spool.len);
    let files = tree.inodes.iter().filter_map(|inode| match inode.kind {
        Kind::File(content) => Some(content),
        _ => None,
    });
    if let Some(content) = files.into_iter().find(|c| !inside(c)) {
        return Err(ErofsWriteError::Content { content, spool_len: spool.len });
    }
    let plan = plan(tree, &mut |id, tail| {
        let Content { offset, len } = content(id);
        spool.file.read_exact_at(tail, offset + len - tail.len() as u64)
    })?;
    let len = u64::from(plan.blocks) * BLOCK_LEN;
    let mut sink = Sink { out, hash: Sha256::new(), pending: Vec::with_capacity(CHUNK) };
    let failed = |source| ErofsWriteError::Write { len, source };
    sink.put(&plan.meta).map_err(failed)?;
    for (id, bytes) in plan.files {
        let mut at = content(id).offset;
        let end = at + bytes;
        while at < end {
            let room = sink.room(end - at).map_err(failed)?;
            spool.file.read_exact_at(room, at).map_err(ErofsWriteError::ReadSpool)?;
            at += room.len() as u64;
        }
        sink.pad(bytes).map_err(failed)?;
    }
    let digest = sink.finish().map_err(failed)?;
    Ok(Written { len, digest, inodes: plan.inodes })
}

/// Hashes and writes in large pieces.
struct Sink<'f> {
    out: &'f File,
    hash: Sha256,
    pending: Vec<u8>,
}

impl Sink<'_> {
    fn flush(&mut self) -> io::Result<()> {
        self.hash.update(&self.pending);
        self.out.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Room for up to `wanted` bytes, to be filled by the caller; at least one.
    fn room(&mut self, wanted: u64) -> io::Result<&mut [u8]> {
        if self.pending.len() == CHUNK {
            self.flush()?;
        }
        let start = self.pending.len();
        let len = usize::try_from(wanted).unwrap_or(CHUNK).min(CHUNK - start);
        self.pending.resize(start + len, 0);
        Ok(&mut self.pending[start..])
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len() as u64)?;
            let (now, later) = bytes.split_at(room.len());
            room.copy_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Zeros up to a block boundary after `len` bytes that started at one.
    fn pad(&mut self, len: u64) -> io::Result<()> {
        let mut left = len.next_multiple_of(BLOCK_LEN) - len;
        while left > 0 {
            left -= self.room(left)?.len() as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Digest> {
        self.flush()?;
        Ok(Digest(self.hash.finalize().into()))
    }
}
