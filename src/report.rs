//! `isolab report`: what a record says, in the form that the reader wants. Nothing is measured.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use isolab_bench::export;
use isolab_bench::record::Record;
use isolab_bench::report::{html, markdown, text};
use isolab_bench::summary::{METRICS, Metric, metric};

use crate::cli::{ReportArgs, ReportFormat};
use crate::compare::output::{is_stdout, put, text_style};

/// Most bytes of a record file: more than the largest plan gives.
const MAX_BYTES: u64 = 1 << 30;

/// Writes the report.
///
/// # Errors
/// A file is no record, or can't be written.
pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<u8> {
    let metric = args.metric.as_deref().map(named).transpose()?;
    if metric.is_some() && args.format != ReportFormat::Hyperfine {
        bail!("--metric is for --format hyperfine; the other formats hold every metric");
    }
    let records = args.files.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let content = match args.format {
        ReportFormat::Text => {
            let style = text_style(is_stdout(&args.output));
            joined(records.iter().map(|record| text::render(record, style)))
        }
        ReportFormat::Markdown => joined(records.iter().map(markdown::render)),
        ReportFormat::Html => html::page(&records)?,
        ReportFormat::Hyperfine => export::hyperfine(&records, metric)?,
        ReportFormat::Benchfmt => export::benchfmt(&records),
        ReportFormat::Firecracker => match &records[..] {
            [record] => export::firecracker(record)?,
            _ => bail!("a metrics.json of Firecracker holds one record; name one file"),
        },
    };
    put(&args.output, &content)?;
    Ok(0)
}

fn joined(reports: impl Iterator<Item = String>) -> String {
    reports.collect::<Vec<_>>().join("\n")
}

/// The metric of a key that was typed.
///
/// # Errors
/// There is none; the message names all.
pub(crate) fn named(name: &str) -> anyhow::Result<&'static Metric> {
    metric(name).with_context(|| {
        let all: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        format!("there is no metric {name:?}; there are {}", all.join(", "))
    })
}

/// Reads a record file (`-`: standard input).
///
/// # Errors
/// It can't be read, or is no record.
pub(crate) fn read(path: &Path) -> anyhow::Result<Record> {
    let reading = || format!("read {}", path.display());
    Record::from_json(&bytes(path)?).with_context(reading)
}

/// A file's content (`-`: standard input).
///
/// # Errors
/// It can't be read, or is too large.
pub(crate) fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reading = || format!("read {}", path.display());
    if is_stdout(path) {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(reading)?;
    } else {
        let file = File::open(path).with_context(reading)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(reading)?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        bail!("read {}: larger than 1 GiB", path.display());
    }
    Ok(bytes)
}
