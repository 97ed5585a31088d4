//! Where the results go: the matrix to standard output, the record and the page to files.

use isolab_bench::probe::ProbeRecord;
use isolab_bench::report::{html, probe as text};

use crate::cli::ProbeArgs;
use crate::output::{put_to, text_style};
use crate::say;

/// Writes everything that was asked for; what can't be written keeps nothing else from it.
///
/// # Errors
/// The first place that can't be written.
pub(super) fn write(args: &ProbeArgs, record: &ProbeRecord) -> anyhow::Result<()> {
    let (to, evidence) = (&args.output, args.evidence || args.only.is_some());
    let matrix =
        if to.silent() { Ok(()) } else { say::all(text::render(record, text_style(true), evidence)) };
    let json = put_to(to.json.as_ref(), || Ok(record.to_json()?));
    let html = put_to(to.html.as_ref(), || Ok(html::render_probe(record)?));
    matrix.and(json).and(html)
}
