//! Where the results go: the matrix to standard output, the record and the page to files.

use std::io::Write;

use anyhow::Context;
use isolab_bench::probe::ProbeRecord;
use isolab_bench::report::{html, probe as text};

use crate::cli::ProbeArgs;
use crate::output::{put, text_style};

/// Writes everything that was asked for; what can't be written keeps nothing else from it.
///
/// # Errors
/// The first place that can't be written.
pub(super) fn write(args: &ProbeArgs, record: &ProbeRecord) -> anyhow::Result<()> {
    let matrix = || {
        let evidence = args.evidence || args.only.is_some();
        let text = text::render(record, text_style(true), evidence);
        std::io::stdout().write_all(text.as_bytes()).context("write the matrix")
    };
    let to = &args.output;
    let matrix = if to.silent() { Ok(()) } else { matrix() };
    let json = to.json.as_ref().map_or(Ok(()), |path| put(path, &record.to_json()?));
    let html = to.html.as_ref().map_or(Ok(()), |path| put(path, &html::render_probe(record)?));
    matrix.and(json).and(html)
}
