//! Where the results go: the table to standard output, the record and the page to files.

use std::io::Write;

use anyhow::Context;
use isolab_bench::record::Record;
use isolab_bench::report::{html, text};

use crate::cli::OutputOptions;
use crate::output::{put, text_style};

/// Writes everything that was asked for; what can't be written keeps nothing else from it. The table is of runs that count.
///
/// # Errors
/// The first place that can't be written.
pub(super) fn write(to: &OutputOptions, record: &Record) -> anyhow::Result<()> {
    let table = || {
        let table = text::render(record, text_style(true));
        std::io::stdout().write_all(table.as_bytes()).context("write the table")
    };
    let wanted = !to.silent() && record.run.interrupted.is_none() && record.samples.iter().any(|s| s.ok);
    let table = if wanted { table() } else { Ok(()) };
    let json = to.json.as_ref().map_or(Ok(()), |path| put(path, &record.to_json()?));
    let html = to.html.as_ref().map_or(Ok(()), |path| put(path, &html::render(record)?));
    table.and(json).and(html)
}
