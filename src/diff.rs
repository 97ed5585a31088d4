//! `isolab diff`: did an arm get slower or larger between two records?

use anyhow::bail;
use isolab_bench::diff::{Question, diff, reasons, render};

use crate::cli::DiffArgs;
use crate::report::{named, read};
use crate::{REFUSED, escaped, say};

/// Exit status of a regression, and of a record that fails its check.
const REGRESSION: u8 = 1;

/// Judges.
///
/// # Errors
/// A file is no record.
pub(crate) fn command(args: &DiffArgs) -> anyhow::Result<u8> {
    let metric = args.metric.as_deref().map(named).transpose()?;
    if args.margin.is_some_and(|margin| !margin.is_finite() || margin < 0.0) {
        bail!("--margin is a percentage from 0 on");
    }
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let reasons = reasons(&a, &b);
    if !reasons.is_empty() {
        for reason in &reasons {
            eprintln!("isolab: not comparable: {}", escaped(reason));
        }
        return Ok(REFUSED);
    }
    let diff = diff(&a, &b, Question { metric, margin_percent: args.margin });
    if diff.lines.is_empty() {
        eprintln!("isolab: not comparable: no arm has a measured run of the metric in both records");
        return Ok(REFUSED);
    }
    let text = if args.json { isolab_images::escape::json(&diff)? + "\n" } else { render(&diff, &a.host) };
    say::all(text)?;
    Ok(if diff.regression { REGRESSION } else { 0 })
}
