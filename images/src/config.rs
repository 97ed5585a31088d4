//! What an image says about its own start: the OCI config as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Defaults that the image brings; a job may override each.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// First words of the command.
    pub entrypoint: Vec<String>,
    /// Words after the entry point where the user gives none.
    pub cmd: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// `USER` as written: `name`, `uid`, `name:group`, `uid:gid`.
    pub user: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name or number of the signal that asks the workload to end.
    pub stop_signal: Option<String>,
}
