//! The rules' vocabulary, and their meaning in Rust: what the compiled filter is tested against.

#[path = "table.rs"]
mod table;

pub use table::{GROUPS, Group};

/// `EPERM`.
pub const EPERM: u16 = 1;
/// `ENOSYS`.
pub const ENOSYS: u16 = 38;
/// `EAFNOSUPPORT`.
pub const EAFNOSUPPORT: u16 = 97;

/// Bits of `clone` that make a namespace.
pub const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// Refused requests: `TIOCSTI`, `TIOCLINUX`.
pub const IOCTLS_REFUSED: [u32; 2] = [0x5412, 0x541c];
/// `AF_UNIX`, `AF_INET`, `AF_INET6`.
pub const FAMILIES: [u32; 3] = [1, 2, 10];
/// `AF_UNIX`.
pub const UNIX: u32 = 1;
/// `AF_NETLINK`, allowed with protocol 0 (`NETLINK_ROUTE`).
pub const NETLINK: u32 = 16;
/// Docker's: `PER_LINUX`, `PER_LINUX32`, each with `UNAME26`, and the query.
pub const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// What the filter answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel runs it.
    Allow,
    /// The kernel returns this error, or with 0 success, without running it.
    Errno(u16),
    /// It depends on an argument.
    Check(Check),
}

/// Which argument, and how. The kernel uses the low 32 bits of each of them, so the filter looks at those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// `clone`: no namespace bits in the flags.
    CloneFlags,
    /// `ioctl`: no request of [`IOCTLS_REFUSED`].
    IoctlRequest,
    /// `socket`: one of [`FAMILIES`], or netlink for routes.
    SocketFamily,
    /// `socketpair`: Unix.
    SocketPairFamily,
    /// `personality`: one of [`PERSONALITIES`].
    Personality,
}

impl Check {
    /// The answer for these arguments: allowed, or the error.
    #[must_use]
    pub fn answer(self, args: [u32; 3]) -> Verdict {
        let (passes, errno) = match self {
            Self::CloneFlags => (args[0] & CLONE_NAMESPACES == 0, EPERM),
            Self::IoctlRequest => (!IOCTLS_REFUSED.contains(&args[1]), EPERM),
            Self::SocketFamily => {
                (FAMILIES.contains(&args[0]) || (args[0] == NETLINK && args[2] == 0), EAFNOSUPPORT)
            }
            Self::SocketPairFamily => (args[0] == UNIX, EAFNOSUPPORT),
            Self::Personality => (PERSONALITIES.contains(&args[0]), EPERM),
        };
        if passes { Verdict::Allow } else { Verdict::Errno(errno) }
    }
}

/// The answer to a call by number, before its arguments are looked at.
#[must_use]
pub fn verdict(number: u32) -> Verdict {
    let group = GROUPS.iter().find(|group| group.calls.iter().any(|&(n, _)| n == number));
    group.map_or(Verdict::Errno(ENOSYS), |group| group.verdict)
}
