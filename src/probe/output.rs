//! Where the results go: the matrix to standard output, the record and the page to files.

use std::io::Write;

use anyhow::Context;
use isolab_bench::probe::ProbeRecord;
use isolab_bench::report::{html, probe as text};

use crate::cli::ProbeArgs;
use crate::compare::output::{check_path, is_stdout, put, text_style};

/// Refuses outputs that can't be written before anything is run.
///
/// # Errors
/// The directory is not there.
pub(super) fn check(args: &ProbeArgs) -> anyhow::Result<()> {
    [&args.json, &args.html].into_iter().flatten().try_for_each(|path| check_path(path))
}

/// Writes everything that was asked for.
///
/// # Errors
/// A file can't be written.
pub(super) fn write(args: &ProbeArgs, record: &ProbeRecord) -> anyhow::Result<()> {
    if let Some(path) = &args.json {
        put(path, &record.to_json()?)?;
    }
    if let Some(path) = &args.html {
        put(path, &html::render_probe(record)?)?;
    }
    let to_stdout = |path: &Option<std::path::PathBuf>| path.as_deref().is_some_and(is_stdout);
    if !args.quiet && !to_stdout(&args.json) && !to_stdout(&args.html) {
        let evidence = args.evidence || args.only.is_some();
        let text = text::render(record, text_style(true), evidence);
        std::io::stdout().write_all(text.as_bytes()).context("write the matrix")?;
    }
    Ok(())
}
