//! `isolab report`: what a record says, in the form that the reader wants. Nothing is measured.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use isolab_bench::export;
use isolab_bench::record::Record;
use isolab_bench::recorded::Recorded;
use isolab_bench::report::{html, markdown, suite, text};
use isolab_bench::summary::{METRICS, Metric, Unit, metric};

use crate::bench::output::COLUMNS;
use crate::cli::{ReportArgs, ReportFormat};
use crate::output::{check_path, is_stdout, put, same, text_style};

/// Most bytes of a record file: more than the largest plan gives.
const MAX_BYTES: u64 = 1 << 30;

/// Writes the report.
///
/// # Errors
/// A file is no record, or can't be written.
pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<u8> {
    let metric = args.metric.as_deref().map(named).transpose()?;
    if let Some(metric) = metric.filter(|metric| metric.unit != Unit::Ns) {
        bail!(
            "--metric {} is no time, and hyperfine's results are times; give a startup metric",
            metric.name
        );
    }
    if metric.is_some() && args.format != ReportFormat::Hyperfine {
        bail!("--metric is for --format hyperfine; the other formats hold every metric");
    }
    check_path(&args.output)?;
    if !is_stdout(&args.output) && args.files.iter().any(|file| same(file, &args.output)) {
        bail!("{} is read and would be written over; give another name with -o", args.output.display());
    }
    let records = args.files.iter().map(|path| recorded(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let comparisons = || only_comparisons(&args.files, &records);
    let content = match args.format {
        ReportFormat::Text => {
            let style = text_style(is_stdout(&args.output));
            joined(records.iter().map(|record| match record {
                Recorded::Comparison(record) => text::render(record, style),
                Recorded::Bench(record) => suite::render(record, COLUMNS),
            }))
        }
        ReportFormat::Markdown => joined(records.iter().map(|record| match record {
            Recorded::Comparison(record) => markdown::render(record),
            Recorded::Bench(record) => markdown::render_bench(record),
        })),
        ReportFormat::Html => html::page(&records)?,
        ReportFormat::Hyperfine => export::hyperfine(&comparisons()?, metric)?,
        ReportFormat::Benchfmt => export::benchfmt(&comparisons()?),
        ReportFormat::Firecracker => match &comparisons()?[..] {
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

/// Reads the record of a comparison (`-`: standard input).
///
/// # Errors
/// It can't be read, or is no such record.
pub(crate) fn read(path: &Path) -> anyhow::Result<Record> {
    comparison(path, &recorded(path)?)
}

/// Reads a record of either kind (`-`: standard input).
fn recorded(path: &Path) -> anyhow::Result<Recorded> {
    Recorded::from_bytes(&bytes(path)?).with_context(|| format!("read {}", path.display()))
}

fn comparison(path: &Path, record: &Recorded) -> anyhow::Result<Record> {
    match record {
        Recorded::Comparison(record) => Ok(Record::clone(record)),
        Recorded::Bench(_) => bail!(
            "{} is the record of a bench run; this needs one of a comparison (text, markdown and html take both)",
            path.display()
        ),
    }
}

/// The records of formats that know comparisons only.
fn only_comparisons(files: &[PathBuf], records: &[Recorded]) -> anyhow::Result<Vec<Record>> {
    files.iter().zip(records).map(|(path, record)| comparison(path, record)).collect()
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
