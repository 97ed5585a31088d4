//! Budgets: what one import may use at most, whatever the image says.

use serde::{Deserialize, Serialize};

/// Limits of one import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// Bytes after decompression, all layers together.
    pub decompressed_bytes: u64,
    /// Most decompressed bytes for one compressed byte; holds above [`Budgets::ratio_floor_bytes`].
    pub ratio: u64,
    /// Decompressed bytes of a stream that are free of the ratio.
    pub ratio_floor_bytes: u64,
    /// Tar entries and directories that they imply, all layers together.
    pub entries: u64,
    /// Bytes of names, link targets and extended attributes, all layers together.
    pub metadata_bytes: u64,
    /// Components looked up while paths are resolved, all layers together.
    pub lookups: u64,
    /// Directories above an entry.
    pub depth: usize,
    /// Bytes of one component of a path.
    pub name_bytes: usize,
    /// Bytes of a path or of a link target.
    pub path_bytes: usize,
    /// Bytes of names and values of one entry's extended attributes.
    pub xattr_bytes: usize,
    /// Bytes of one zstd window.
    pub zstd_window_bytes: u64,
    /// Bytes of an index, manifest or configuration.
    pub document_bytes: u64,
    /// Layers of an image.
    pub layers: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            decompressed_bytes: 16 << 30,
            ratio: 2000,
            ratio_floor_bytes: 64 << 20,
            entries: 2_000_000,
            metadata_bytes: 512 << 20,
            lookups: 1 << 28,
            depth: 1024,
            name_bytes: 255,
            path_bytes: 4096,
            // EROFS keeps an inode's attributes within one 64 KiB area.
            xattr_bytes: 60 << 10,
            zstd_window_bytes: 64 << 20,
            document_bytes: 4 << 20,
            layers: 512,
        }
    }
}

/// What [`Budgets::decompressed_bytes`] counts.
pub(crate) const DECOMPRESSED: &str = "decompressed bytes";

/// A budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image is over the import budget of {limit} {what}")]
pub struct BudgetError {
    /// What was counted.
    pub what: &'static str,
    /// The limit.
    pub limit: u64,
}

/// What an import has used so far.
#[derive(Debug)]
pub struct Meter {
    /// The limits.
    pub budgets: Budgets,
    decompressed_bytes: u64,
    entries: u64,
    metadata_bytes: u64,
    lookups: u64,
}

fn charge(used: &mut u64, more: u64, limit: u64, what: &'static str) -> Result<(), BudgetError> {
    *used = used.saturating_add(more);
    if *used > limit { Err(BudgetError { what, limit }) } else { Ok(()) }
}

impl Meter {
    /// Nothing used.
    #[must_use]
    pub fn new(budgets: Budgets) -> Self {
        Self { budgets, decompressed_bytes: 0, entries: 0, metadata_bytes: 0, lookups: 0 }
    }

    pub(crate) fn decompressed(&mut self, bytes: u64) -> Result<(), BudgetError> {
        charge(&mut self.decompressed_bytes, bytes, self.budgets.decompressed_bytes, DECOMPRESSED)
    }

    pub(crate) fn entries(&mut self, count: u64) -> Result<(), BudgetError> {
        charge(&mut self.entries, count, self.budgets.entries, "entries")
    }

    pub(crate) fn metadata(&mut self, bytes: usize) -> Result<(), BudgetError> {
        charge(
            &mut self.metadata_bytes,
            bytes as u64,
            self.budgets.metadata_bytes,
            "bytes of names and attributes",
        )
    }

    pub(crate) fn lookup(&mut self) -> Result<(), BudgetError> {
        charge(&mut self.lookups, 1, self.budgets.lookups, "path lookups")
    }

    /// Bytes that may still be decompressed.
    pub(crate) fn decompressed_left(&self) -> u64 {
        self.budgets.decompressed_bytes.saturating_sub(self.decompressed_bytes)
    }
}
