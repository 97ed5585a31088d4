//! What a command prints as its result.

use std::fmt;
use std::io::{Write, stdout};

use anyhow::Context;

/// Prints a line on standard output; where that fails, it is an error of the function around it (`println!` would panic).
macro_rules! say {
    ($($text:tt)*) => {
        crate::say::line(format_args!($($text)*))?
    };
}

/// Prints a line.
///
/// # Errors
/// It can't be printed.
pub(crate) fn line(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    writeln!(stdout(), "{text}").context("write to standard output")
}

/// Prints all of it, as it is.
///
/// # Errors
/// It can't be printed.
pub(crate) fn all(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    stdout().write_all(text.as_ref()).context("write to standard output")
}
