//! Where the results go: lines to a file or to standard output as they come, the table and the page at the end.

use std::fs::File;
use std::io::{self, Write};

use anyhow::Context;
use isolab_bench::report;
use isolab_bench::suite::lines::{Line, SuiteRecord};

use crate::cli::OutputOptions;
use crate::output::{is_stdout, put_to};
use crate::say;

/// Columns of the table.
pub(crate) const COLUMNS: usize = 110;

/// Takes the lines.
pub(super) struct Sink(Option<Box<dyn Write>>);

impl Sink {
    /// Opens what was asked for.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn open(to: &OutputOptions) -> anyhow::Result<Self> {
        Ok(Self(match &to.json {
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

/// Prints the table and writes the page, where they are wanted, each whatever becomes of the other.
///
/// # Errors
/// One can't be written.
pub(super) fn write(to: &OutputOptions, record: &SuiteRecord) -> anyhow::Result<()> {
    let wanted = !to.silent() && record.end.interrupted.is_none();
    let table = if wanted { say::all(report::suite::render(record, COLUMNS)) } else { Ok(()) };
    let html = put_to(to.html.as_ref(), || Ok(report::html::render_bench(record)?));
    table.and(html)
}
