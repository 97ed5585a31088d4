//! Which cgroup controllers there are, and whether this user may make cgroups with them.

use std::path::PathBuf;

use isolab_container::cgroup::{self, Offer};
use serde::{Deserialize, Serialize};

/// One controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    /// `memory`, `cpu` or `pids`.
    pub name: String,
    /// 1 or 2; nothing where it is not there.
    pub version: Option<u8>,
    /// The directory in which cgroups would be made.
    pub path: Option<PathBuf>,
    /// This user may make cgroups there.
    pub writable: bool,
}

impl From<Offer> for Controller {
    fn from(offer: Offer) -> Self {
        let (version, path) = offer.place.unzip();
        Self { name: offer.controller.name().to_owned(), version, path, writable: offer.writable }
    }
}

/// The controllers that enforce a job's limits, as a run would find them.
pub(super) fn controllers() -> Vec<Controller> {
    cgroup::offers().unwrap_or_default().into_iter().map(Controller::from).collect()
}
