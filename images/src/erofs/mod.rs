//! EROFS, the read-only file system that every level mounts: our writer, our checker, our reader.
//!
//! Only the plainest subset is written: blocks of 4096 bytes, extended inodes, data in whole blocks or with the
//! tail behind its inode, attributes behind their inode, no compression, chunks, fragments or further devices.
//! Linux reads it since 5.4.
//!
//! The checker accepts nothing else. It reads a file into a [`crate::tree::Tree`], lays that tree out again with the
//! writer's own plan and demands the same bytes: what it accepts is what the writer makes, to the last bit
//! of metadata and padding. Contents of files are guarded by the digest of the whole image.

mod check;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
mod plan;
mod read;
#[cfg(test)]
mod tests;
mod writer;

pub use check::{Checked, ErofsCheckError, check};
pub use format::{BLOCK, MAX_DEPTH, MAX_NAME};
pub use plan::PlanError;
pub use read::{DirEntry, ErofsReadError, Image, Node, NodeKind};
pub use writer::{ErofsWriteError, Written, write};
