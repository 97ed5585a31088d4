//! Where the results go: the table to standard output, the record and the page to files.

use isolab_bench::record::Record;
use isolab_bench::report::{html, text};

use crate::cli::OutputOptions;
use crate::output::{put_to, text_style};
use crate::say;

/// Writes everything that was asked for; what can't be written keeps nothing else from it. There is no table where no run succeeded.
///
/// # Errors
/// The first place that can't be written.
pub(super) fn write(to: &OutputOptions, record: &Record) -> anyhow::Result<()> {
    let wanted = !to.silent() && record.run.interrupted.is_none() && record.samples.iter().any(|s| s.ok);
    let table = if wanted { say::all(text::render(record, text_style(true))) } else { Ok(()) };
    let json = put_to(to.json.as_ref(), || Ok(record.to_json()?));
    let html = put_to(to.html.as_ref(), || Ok(html::render(record)?));
    table.and(json).and(html)
}
