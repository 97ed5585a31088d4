//! Layers: from stored bytes to changes of the tree.
//!
//! Order: a layer is read to its end first (entries collected, contents spooled, both digests verified), then its
//! whiteouts hide names of lower layers, then its entries are applied in the order of the archive. So a layer
//! with a wrong digest changes nothing, and the place of a whiteout among the entries does not matter.

mod apply;
mod decode;
#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
mod path;
#[cfg(any(test, fuzzing))]
pub(crate) mod samples;
mod tar;
#[cfg(test)]
pub(crate) mod tests;
mod walk;

use std::collections::BTreeMap;
use std::io::Read;

pub use apply::{ApplyError, ApplyFault};
pub use decode::Compression;
pub(crate) use decode::Decoder;
pub use path::PathFault;
pub(crate) use path::TreePath;
pub(crate) use tar::Reader;
pub use tar::{Fault, TarError};

use crate::budget::{BudgetError, Meter};
use crate::digest::{Digest, Hashing};
use crate::escape::Escaped;
use crate::report::{LayerReport, Report};
use crate::spool::SpoolWriter;
use crate::tree::{Content, Meta, Spool, Tree};
use path::Whiteout;
use tar::Entry;
pub(crate) use tar::EntryKind;

/// A layer that is refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stored bytes can't be read.
    #[error("read the stored layer")]
    Stored(#[source] std::io::Error),
    /// The archive is refused.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry's path is refused.
    #[error("tar entry {name} at byte {offset}: {fault}")]
    Path {
        /// The path as written.
        name: Escaped,
        /// Offset of the entry.
        offset: u64,
        /// What is wrong.
        fault: PathFault,
    },
    /// Entries that can't be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The import as a whole is too large.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// Not compressed as the media type says.
    #[error("layer is stored as {found:?}, its media type says {expected:?}")]
    Compression {
        /// By media type.
        expected: Compression,
        /// By first bytes.
        found: Compression,
    },
    /// Other bytes than the digest says.
    #[error("digest of the {what} is {found}, expected {expected}")]
    Digest {
        /// Which bytes.
        what: &'static str,
        /// Computed.
        found: Digest,
        /// Promised.
        expected: Digest,
    },
}

/// What is known about a layer before it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    /// Digest of the stored bytes.
    pub(crate) stored: Option<Digest>,
    /// Digest of the tar stream.
    pub(crate) diff_id: Option<Digest>,
    /// By media type.
    pub(crate) compression: Option<Compression>,
}

/// A tree under construction with everything that an import counts.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    pub(crate) tree: Tree,
    pub(crate) spool: SpoolWriter<'a>,
    pub(crate) meter: Meter,
    pub(crate) report: Report,
}

impl<'a> Build<'a> {
    pub(crate) fn new(spool: &'a mut Spool, meter: Meter) -> Self {
        Self { tree: Tree::new(), spool: SpoolWriter::new(spool), meter, report: Report::default() }
    }

    /// Reads one layer, verifies it and applies it.
    pub(crate) fn layer<R: Read>(
        &mut self,
        stored: R,
        expected: Expected,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), LayerError> {
        let (compression, decoder) = Decoder::new(stored, &self.meter).map_err(LayerError::Stored)?;
        if let Some(expected) = expected.compression.filter(|&c| c != compression) {
            return Err(LayerError::Compression { expected, found: compression });
        }
        let mut reader = Reader::new(Hashing::new(decoder), &self.meter.budgets);
        let layer = self.collect(&mut reader, progress)?;
        let tar = reader.inner();
        let stored = tar.inner().stored();
        self.meter.decompressed(tar.count)?;
        let diff_id = tar.digest();
        // Without compression the same bytes are hashed once.
        let digest = if compression == Compression::None { diff_id } else { stored.digest() };
        verify("stored layer", digest, expected.stored)?;
        verify("layer's tar stream", diff_id, expected.diff_id)?;
        self.report.layers.push(LayerReport {
            digest: Some(digest.to_string()),
            diff_id: Some(diff_id.to_string()),
            stored_bytes: stored.count,
            tar_bytes: tar.count,
            entries: (layer.entries.len() + layer.whiteouts.len()) as u64,
            whiteouts: layer.whiteouts.len() as u64,
        });
        self.apply(layer)?;
        Ok(())
    }

    fn collect<R: Read>(
        &mut self,
        reader: &mut Reader<Hashing<Decoder<R>>>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Layer, LayerError> {
        let mut layer = Layer::default();
        while let Some(entry) = reader.next_entry()? {
            self.meter.entries(1)?;
            let attributes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            self.meter.metadata(entry.path.len() + entry.link.len() + attributes)?;
            let (name, offset) = (Escaped::new(&entry.path), entry.offset);
            let path = TreePath::parse(&entry.path, entry.kind == EntryKind::Dir, &self.meter.budgets);
            let whiteout = path.as_ref().map_or(Ok(None), TreePath::whiteout);
            let refuse = |fault| LayerError::Path { name, offset, fault };
            match (path, whiteout) {
                (Err(fault), _) | (_, Err(fault)) => return Err(refuse(fault)),
                (Ok(_), Ok(Some(whiteout))) => {
                    let is_file = matches!(entry.kind, EntryKind::File | EntryKind::HardLink);
                    if !is_file || entry.size > 0 {
                        return Err(refuse(PathFault::Whiteout(Escaped::new(&entry.path))));
                    }
                    layer.whiteouts.push(whiteout);
                }
                (Ok(path), Ok(None)) => {
                    let offset = self.spool.position();
                    reader.copy_data(&mut self.spool)?;
                    let content = Content { offset, len: entry.size };
                    let entry = self.change(path, entry, content).map_err(refuse)?;
                    layer.entries.push(entry);
                }
            }
            progress(reader.inner().inner().stored().count);
        }
        self.spool.flush().map_err(TarError::Store)?;
        Ok(layer)
    }

    /// An entry as a change of the tree.
    fn change(&mut self, path: TreePath, entry: Entry, content: Content) -> Result<Change, PathFault> {
        let budgets = &self.meter.budgets;
        let make = match entry.kind {
            EntryKind::File => Make::File(content),
            EntryKind::Dir => Make::Dir,
            EntryKind::Fifo => Make::Fifo,
            EntryKind::Device => Make::Nothing,
            EntryKind::Symlink if entry.link.is_empty() => return Err(PathFault::Empty),
            // The kernel's own limit for a target is PATH_MAX with its NUL.
            EntryKind::Symlink if entry.link.len() >= budgets.path_bytes => {
                let limit = budgets.path_bytes as u64 - 1;
                return Err(BudgetError { what: "bytes of a link target", limit }.into());
            }
            EntryKind::Symlink => Make::Symlink(entry.link),
            EntryKind::HardLink => {
                let target = TreePath::parse(&entry.link, false, budgets)?;
                if target.whiteout()?.is_some() {
                    return Err(PathFault::Whiteout(Escaped::new(&entry.link)));
                }
                Make::HardLink(target)
            }
        };
        self.report.pax_records_ignored += entry.ignored;
        let keep = matches!(make, Make::File(_) | Make::Dir);
        let xattrs = self.report.keep_xattrs(entry.xattrs, keep);
        Ok(Change { path, make, meta: entry.meta, xattrs, offset: entry.offset })
    }
}

impl Report {
    /// Keeps `user.*` where the kernel allows it; counts the rest.
    pub(crate) fn keep_xattrs(
        &mut self,
        xattrs: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
        allowed: bool,
    ) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut kept = BTreeMap::new();
        for (name, value) in xattrs {
            // Attributes under user.overlay. steer overlayfs when it runs without privileges.
            let user = name.starts_with(b"user.") && (6..=255).contains(&name.len());
            if name == b"security.capability" {
                self.capabilities_dropped += 1;
            } else if allowed && user && !name.starts_with(b"user.overlay.") && !name.contains(&0) {
                kept.insert(name, value);
            } else {
                self.xattrs_dropped += 1;
            }
        }
        kept
    }
}

fn verify(what: &'static str, found: Digest, expected: Option<Digest>) -> Result<(), LayerError> {
    match expected {
        Some(expected) if expected != found => Err(LayerError::Digest { what, found, expected }),
        _ => Ok(()),
    }
}

/// A layer that was read.
#[derive(Debug, Default)]
struct Layer {
    whiteouts: Vec<Whiteout>,
    entries: Vec<Change>,
}

/// One entry, checked on its own.
#[derive(Debug)]
struct Change {
    path: TreePath,
    make: Make,
    meta: Meta,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    offset: u64,
}

/// What an entry puts in its place.
#[derive(Debug)]
enum Make {
    File(Content),
    HardLink(TreePath),
    Symlink(Vec<u8>),
    Dir,
    Fifo,
    /// A device: it hides what was there and is left out itself.
    Nothing,
}
