//! A strict, streaming tar reader.
//!
//! Own code, because readers in use forgive: they skip malformed extensions, take the last of two headers or
//! guess at sizes, so that a scanner and we could see two different images in one stream. Here every byte either
//! means one thing or is an error that names the entry and the offset. Read: ustar, GNU `L` and `K`, PAX `x` with
//! `path`, `linkpath`, `size`, `mtime`, `uid`, `gid` and `SCHILY.xattr.*`, base-256 numbers. Refused: sparse files,
//! continued volumes, unknown types, headers that would change all later entries, bytes after the end.

mod header;
mod pax;
mod reader;

pub(crate) use reader::Reader;

use crate::budget::BudgetError;
use crate::escape::Escaped;
use crate::tree::Meta;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 512;

/// A tar stream that is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream under the archive failed: decompression, budget or file.
    #[error("read the tar stream at byte {offset}")]
    Read {
        /// Bytes read before.
        offset: u64,
        /// What failed.
        source: std::io::Error,
    },
    /// The place for file contents failed, for example because the disk is full.
    #[error("store file contents of the image")]
    Store(#[source] std::io::Error),
    /// The stream ends inside the archive.
    #[error("the tar stream is cut short at byte {offset}")]
    Truncated {
        /// Bytes before the end.
        offset: u64,
    },
    /// A header or extension is malformed or not supported.
    #[error("tar entry {name} at byte {offset}: {fault}")]
    Entry {
        /// The name as far as it is known.
        name: Escaped,
        /// Offset of the entry's first header.
        offset: u64,
        /// What is wrong.
        fault: Fault,
    },
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a header, or damaged.
    #[error("header checksum does not match")]
    Checksum,
    /// v7, star or not tar at all.
    #[error("neither a POSIX (ustar) nor a GNU tar header")]
    Magic,
    /// A number that is not one, or is out of range.
    #[error("bad number in field {0}")]
    Number(&'static str),
    /// Bytes after the terminating NUL of a text.
    #[error("bytes after the end of field {0}")]
    Text(&'static str),
    /// A type of entry that this reader does not know or refuses.
    #[error("entry type {0} is not supported")]
    Type(Escaped),
    /// Size on an entry that has no data.
    #[error("an entry of this type can't have data")]
    Size,
    /// A PAX record that breaks the format.
    #[error("malformed PAX record")]
    PaxRecord,
    /// A PAX record that this reader must understand and does not.
    #[error("PAX record {0} is not supported")]
    PaxKey(Escaped),
    /// The same thing said twice.
    #[error("{0} given twice")]
    Twice(&'static str),
    /// An extension without an entry.
    #[error("extension header without an entry")]
    Dangling,
    /// Extension larger than any real one.
    #[error("extension header of {0} bytes")]
    ExtensionSize(u64),
    /// A long name without its NUL.
    #[error("malformed GNU long name")]
    LongName,
    /// One zero block, or bytes that are not zero after the end.
    #[error("bytes after the end of the archive")]
    AfterEnd,
    /// Over a budget.
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    HardLink,
    Symlink,
    Device,
    Dir,
    Fifo,
}

/// An entry's headers, merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Path as written.
    pub(crate) path: Vec<u8>,
    /// Link target as written; empty where there is none.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) meta: Meta,
    /// Bytes of data that follow.
    pub(crate) size: u64,
    /// Extended attributes with full names.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Vendor records that were ignored.
    pub(crate) ignored: u64,
    /// Where its first header starts.
    pub(crate) offset: u64,
}
