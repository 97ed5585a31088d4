//! Signals as readable events.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use isolab_container::child::ignores;
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// Number of SIGWINCH.
pub(crate) const WINCH: u8 = 28;
/// Signals that ask for the end.
pub(crate) const ENDING: [u8; 4] = [1, 2, 3, 15];

/// From now on a write to a pipe without a reader ends the process by SIGPIPE, which Rust programs ignore at first.
///
/// # Errors
/// The signal can't be caught.
pub(crate) fn end_with_a_closed_pipe() -> io::Result<()> {
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_default(SIGPIPE, always).map(drop)
}

/// The signals that isolab answers, delivered through a socket pair.
#[derive(Debug)]
pub(crate) struct Signals(SignalDelivery<UnixStream, SignalOnly>);

impl Signals {
    /// Starts to catch INT, TERM, HUP, QUIT, USR1, USR2 and WINCH, but for those that are ignored.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(crate) fn catch() -> io::Result<Self> {
        Self::of(&[SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH])
    }

    /// Starts to catch what asks for the end, but for those that are ignored.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(crate) fn catch_ending() -> io::Result<Self> {
        Self::of(&[SIGINT, SIGTERM, SIGHUP, SIGQUIT])
    }

    fn of(wanted: &[i32]) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        // What our parent ignores (nohup, a shell's background job) is not meant for us.
        let wanted = wanted.iter().copied().filter(|signal| !ignores(*signal));
        Ok(Self(SignalDelivery::with_pipe(read, write, SignalOnly, wanted)?))
    }

    /// What to poll for reading.
    #[must_use]
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }

    /// The signals that arrived.
    pub(crate) fn pending(&mut self) -> Vec<u8> {
        self.0.pending().filter_map(|n| u8::try_from(n).ok()).collect()
    }
}
