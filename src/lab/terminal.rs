//! Our own terminal while the lab's isolab has one: raw, and put back afterwards.

use std::io;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Rows and columns of our terminal; 24 by 80 where there is none.
pub(crate) fn size() -> (u16, u16) {
    let sizes = [tcgetwinsize(io::stdin()), tcgetwinsize(io::stdout())];
    let known = sizes.into_iter().flatten().find(|size| size.ws_row > 0 && size.ws_col > 0);
    known.map_or((24, 80), |size| (size.ws_row, size.ws_col))
}

/// Standard input in raw mode; dropping this restores it.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Raw mode, or nothing where standard input is no terminal.
    pub(crate) fn enter() -> Result<Option<Self>> {
        let stdin = io::stdin();
        if !isatty(stdin.as_fd()) {
            return Ok(None);
        }
        let before = tcgetattr(stdin.as_fd()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Drain, &raw).context("put the terminal into raw mode")?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Fails only where the terminal is gone.
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Drain, &self.before);
    }
}
