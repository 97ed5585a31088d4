//! Where the results go: lines to a file or to standard output as they come, the table and the page at the end.

use std::fs::File;
use std::io::{self, Write};

use anyhow::Context;
use isolab_bench::report;
use isolab_bench::suite::lines::{Line, SuiteRecord};

use crate::cli::BenchArgs;
use crate::compare::output::{check_path, is_stdout, put};

/// Columns of the table.
pub(crate) const COLUMNS: usize = 110;

/// Takes the lines.
pub(super) struct Sink(Option<Box<dyn Write>>);

impl Sink {
    /// Opens what was asked for.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn open(args: &BenchArgs) -> anyhow::Result<Self> {
        Ok(Self(match &args.json {
            None => None,
            Some(path) if is_stdout(path) => Some(Box::new(io::stdout())),
            Some(path) => {
                let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
                Some(Box::new(file))
            }
        }))
    }

    /// Writes a line at once, so that an end at any moment leaves whole lines.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn line(&mut self, line: &Line) -> anyhow::Result<()> {
        self.whole(&line.to_text()?)
    }

    /// Writes lines that are there already.
    ///
    /// # Errors
    /// They can't be written.
    pub(super) fn whole(&mut self, lines: &str) -> anyhow::Result<()> {
        match &mut self.0 {
            Some(out) => {
                out.write_all(lines.as_bytes()).and_then(|()| out.flush()).context("write the record")
            }
            None => Ok(()),
        }
    }
}

/// Refuses outputs that can't be written before anything is measured.
///
/// # Errors
/// A directory is not there.
pub(super) fn check(args: &BenchArgs) -> anyhow::Result<()> {
    [&args.json, &args.html].into_iter().flatten().try_for_each(|path| check_path(path))
}

/// Writes the page and prints the table, where they are wanted.
///
/// # Errors
/// One can't be written.
pub(super) fn write(args: &BenchArgs, record: &SuiteRecord) -> anyhow::Result<()> {
    if let Some(path) = &args.html {
        put(path, &report::html::render_bench(record)?)?;
    }
    if silent(args) || record.end.interrupted.is_some() {
        return Ok(());
    }
    io::stdout().write_all(report::suite::render(record, COLUMNS).as_bytes()).context("write the table")
}

/// Whether no table is printed.
pub(super) fn silent(args: &BenchArgs) -> bool {
    args.quiet || [&args.json, &args.html].into_iter().flatten().any(|path| is_stdout(path))
}
