//! What an import did and what it left out.

use serde::{Deserialize, Serialize};

/// Counts over a whole image, for `image inspect` and the result record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The layers, lowest first; one without digests for a plain root filesystem.
    pub layers: Vec<LayerReport>,
    /// Block and character devices left out: every level brings its own `/dev`.
    pub devices_dropped: u64,
    /// Sockets left out.
    pub sockets_dropped: u64,
    /// `security.capability` attributes left out: no level grants file capabilities.
    pub capabilities_dropped: u64,
    /// Other attributes outside `user.` left out.
    pub xattrs_dropped: u64,
    /// Vendor records of PAX headers that mean nothing here.
    pub pax_records_ignored: u64,
    /// Files with the set-user-ID or set-group-ID bit; kept.
    pub set_id_files: u64,
    /// Directories that no entry described; made with mode 0755 and owner 0:0.
    pub implied_directories: u64,
}

/// One layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerReport {
    /// Digest of the bytes as stored or transferred.
    pub digest: Option<String>,
    /// Digest of the tar stream.
    pub diff_id: Option<String>,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// Bytes of the tar stream.
    pub tar_bytes: u64,
    /// Entries, whiteouts included.
    pub entries: u64,
    /// Whiteouts and opaque markers.
    pub whiteouts: u64,
}
