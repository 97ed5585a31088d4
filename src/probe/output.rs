//! Where the results go: the matrix to standard output, the record and the page to files.

use std::io::Write;

use anyhow::Context;
use isolab_bench::probe::ProbeRecord;
use isolab_bench::report::{html, probe as text};

use crate::cli::ProbeArgs;
use crate::output::{put, text_style};

/// Writes everything that was asked for.
///
/// # Errors
/// A file can't be written.
pub(super) fn write(args: &ProbeArgs, record: &ProbeRecord) -> anyhow::Result<()> {
    if let Some(path) = &args.output.json {
        put(path, &record.to_json()?)?;
    }
    if let Some(path) = &args.output.html {
        put(path, &html::render_probe(record)?)?;
    }
    if !args.output.silent() {
        let evidence = args.evidence || args.only.is_some();
        let text = text::render(record, text_style(true), evidence);
        std::io::stdout().write_all(text.as_bytes()).context("write the matrix")?;
    }
    Ok(())
}
