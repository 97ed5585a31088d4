//! The descriptor on which `isolab run` reports to `isolab compare`.

use std::fs::{File, OpenOptions};

use anyhow::Context;

/// Opens the inherited descriptor anew, by its name in /proc: a pipe's write end.
///
/// # Errors
/// It is not open, or not for writing.
pub(crate) fn take(number: i32) -> anyhow::Result<File> {
    OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{number}"))
        .with_context(|| format!("open report descriptor {number}"))
}
