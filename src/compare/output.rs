//! Where the results go: the table to standard output, the record and the page to files.

use std::io::Write;

use anyhow::Context;
use isolab_bench::record::Record;
use isolab_bench::report::{html, text};

use crate::cli::OutputOptions;
use crate::output::{put, text_style};

/// Writes everything that was asked for.
///
/// # Errors
/// A file can't be written.
pub(super) fn write(to: &OutputOptions, record: &Record) -> anyhow::Result<()> {
    if let Some(path) = &to.json {
        put(path, &record.to_json()?)?;
    }
    if let Some(path) = &to.html {
        put(path, &html::render(record)?)?;
    }
    if !to.silent() && record.run.interrupted.is_none() {
        let table = text::render(record, text_style(true));
        std::io::stdout().write_all(table.as_bytes()).context("write the table")?;
    }
    Ok(())
}
