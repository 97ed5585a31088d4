//! What measuring switches off to see what it costs.

use crate::child::namespace;

/// Mechanisms of a container that can be left out. The default leaves out none; anything else is a weaker container,
/// for measurements of the mechanism and not for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// The system call filter.
    pub seccomp: bool,
    /// Namespaces that are the host's instead of its own, of those in [`SHAREABLE`], as `CLONE_NEW*` bits.
    pub shared: u64,
}

/// What a container can do without: in the others process 1 could not do its work.
pub const SHAREABLE: u64 = namespace::NET | namespace::UTS | namespace::IPC | namespace::CGROUP;

impl Default for Knobs {
    fn default() -> Self {
        Self { seccomp: true, shared: 0 }
    }
}

impl Knobs {
    /// The namespaces of the container's own.
    pub(crate) const fn namespaces(self) -> u64 {
        namespace::ALL & !(self.shared & SHAREABLE)
    }

    /// Whether the container has a host name of its own.
    pub(crate) const fn has_host_name(self) -> bool {
        self.namespaces() & namespace::UTS != 0
    }
}
