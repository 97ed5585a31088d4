//! Faults that a test makes in a stage of a start: where the stage ends, the process that makes it waits, fails, panics or dies.

use core::fmt;

use crate::trace::Subphase;

/// Longest delay in milliseconds.
pub const MAX_DELAY_MS: u16 = 10_000;
/// The error number of a stage that is made to fail: `EIO`.
pub const ERRNO: u16 = 5;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The stage takes so many milliseconds more.
    Delay(u16),
    /// The stage fails, as if a system call of it had given [`ERRNO`].
    Error,
    /// The process panics.
    Panic,
    /// The process is killed: it does nothing more, and nobody is told.
    Kill,
}

impl Fault {
    /// As a number; 0 is none.
    #[must_use]
    pub const fn encode(self) -> u16 {
        match self {
            Self::Delay(ms) => ms,
            Self::Error => u16::MAX - 2,
            Self::Panic => u16::MAX - 1,
            Self::Kill => u16::MAX,
        }
    }

    /// From any number; nothing for those that [`Fault::encode`] never makes of a fault.
    #[must_use]
    pub const fn decode(number: u16) -> Option<Self> {
        const ERROR: u16 = Fault::Error.encode();
        const PANIC: u16 = Fault::Panic.encode();
        match number {
            1..=MAX_DELAY_MS => Some(Self::Delay(number)),
            ERROR => Some(Self::Error),
            PANIC => Some(Self::Panic),
            u16::MAX => Some(Self::Kill),
            _ => None,
        }
    }
}

/// A stage was made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageFailed(pub Subphase);

impl fmt::Display for StageFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {} failed by a test's fault: {}", self.0.key(), self.0.meaning())
    }
}

impl core::error::Error for StageFailed {}
