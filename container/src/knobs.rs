//! What measuring switches off to see what it costs.

/// Mechanisms of a container that can be left out. The default leaves out none; anything else is a weaker container,
/// for measurements of the mechanism and not for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// The system call filter.
    pub seccomp: bool,
    /// A network namespace of its own, in which there is nothing but the loopback device; without it the host's.
    pub private_net: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { seccomp: true, private_net: true }
    }
}
