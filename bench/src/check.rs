//! Does a record hold what an exercise asked for? One line per demand, passed or failed, and why.
//!
//! Besides what the exercise says, the record is checked against itself: its order against the plan's seed, its phases
//! against its times, each number of its summary and its verdict against its raw samples. That finds damage and hasty
//! edits. It proves no origin: who invents all samples of a record consistently passes.

use serde::Serialize;

use crate::record::Record;
use crate::report::words::printable;

mod demands;
mod integrity;
mod spec;

pub use self::spec::{Allowed, Bound, NameError, Ratio, Spec, Subject};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Of the exercise.
    pub title: String,
    /// Run of the record.
    pub run: String,
    /// Whether every line passed.
    pub passed: bool,
    /// Demands of the exercise, then those of every record.
    pub lines: Vec<Line>,
}

/// One demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Whether it is met.
    pub passed: bool,
    /// What was demanded.
    pub demand: String,
    /// What the record holds.
    pub found: String,
}

impl Line {
    fn new(passed: bool, demand: impl Into<String>, found: impl Into<String>) -> Self {
        Self { passed, demand: demand.into(), found: found.into() }
    }
}

/// Checks.
#[must_use]
pub fn check(record: &Record, spec: &Spec) -> Checked {
    let mut lines = demands::lines(record, spec);
    lines.extend(integrity::lines(record));
    Checked {
        title: spec.title.clone(),
        run: record.run.id.clone(),
        passed: lines.iter().all(|line| line.passed),
        lines,
    }
}

/// The answer for a terminal, with its last newline.
#[must_use]
pub fn render(checked: &Checked) -> String {
    let mut out = format!("{}\nrun {}\n\n", printable(&checked.title), printable(&checked.run));
    for line in &checked.lines {
        let word = if line.passed { "pass" } else { "FAIL" };
        out.push_str(&format!("{word}  {}: {}\n", printable(&line.demand), printable(&line.found)));
    }
    let failed = checked.lines.iter().filter(|line| !line.passed).count();
    let end = if failed == 0 { "All met".to_owned() } else { format!("{failed} not met") };
    out.push_str(&format!("\n{end}, of {} demands.\n", checked.lines.len()));
    out
}
