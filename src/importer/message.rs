//! What the importer says, each as one line of JSON.

use isolab_images::config::ImageConfig;
use isolab_images::digest::Digest;
use isolab_images::report::Report;
use isolab_images::source::Progress;
use serde::{Deserialize, Serialize};

/// Longest line: a configuration of 4 MiB in which each character is escaped, and the reports of all layers.
pub(super) const MOST_BYTES: u64 = 64 << 20;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// How far it is.
    Progress(Progress),
    /// The image is written. The last message.
    Done(Box<Converted>),
    /// It is not, and why. The last message.
    Refused {
        /// For people, with what to do about it.
        text: String,
        /// The disk is full.
        full: bool,
    },
}

/// What is known of an image besides its files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Converted {
    /// Defaults for a job; empty for a plain root filesystem.
    pub(crate) config: ImageConfig,
    /// What was read and left out.
    pub(crate) report: Report,
    /// Digest of the OCI manifest, of the configuration or of the tar file; nothing for a directory.
    pub(crate) source_digest: Option<Digest>,
}
