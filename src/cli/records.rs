//! Commands about records: `report`, `diff`, `check`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `isolab report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// As what
    #[arg(long, short, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
    /// Write it here (`-`: standard output)
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub(crate) output: PathBuf,
    /// The time of a run, for hyperfine (default: what the record leads with)
    #[arg(long, value_name = "METRIC")]
    pub(crate) metric: Option<String>,
    /// Record files of compare or of bench (`-`: standard input)
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// What `report` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// The table of `compare`.
    Text,
    /// The same for an issue or a wiki.
    Markdown,
    /// One page with pictures that loads nothing.
    Html,
    /// JSON as by `hyperfine --export-json`, one result per arm.
    Hyperfine,
    /// A metrics.json as Firecracker's A/B script reads it.
    Firecracker,
    /// Lines of the Go benchmark format, for benchstat.
    Benchfmt,
}

/// `isolab diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Judge this metric only (default: the two that the record leads with, and the time until all is gone)
    #[arg(long, value_name = "METRIC")]
    pub(crate) metric: Option<String>,
    /// Changes up to so many percent are none [default: 2 for times, 1 for memory]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    pub(crate) margin: Option<f64>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The record before
    #[arg(value_name = "A")]
    pub(crate) a: PathBuf,
    /// The record after
    #[arg(value_name = "B")]
    pub(crate) b: PathBuf,
}

/// `isolab check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The record
    #[arg(value_name = "RECORD")]
    pub(crate) record: PathBuf,
    /// What the exercise asks for, as TOML (or JSON, by the file's name)
    #[arg(long, value_name = "SPEC")]
    pub(crate) against: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}
