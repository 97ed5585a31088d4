//! The one line that a measuring workload prints, and the numbers in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{REPETITIONS, Tells};
use crate::statistics::median;

/// Longest line that is read, in bytes.
const MAX_LINE: usize = 8192;
/// A reading of the clock that takes longer makes every short time inside doubtful, in nanoseconds.
const SLOW_CLOCK_NS: f64 = 1000.0;

/// What the numbers of a metric count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SuiteUnit {
    /// Nanoseconds for one operation.
    #[serde(rename = "ns/op")]
    NsPerOp,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Ns,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
}

/// A line: raw times of each batch, nothing subtracted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkLine {
    /// What was measured.
    pub name: String,
    /// Operations in a batch.
    pub n: u64,
    /// Time of each batch.
    pub ns: Vec<u64>,
    /// Ticks of the time stamp counter in each batch.
    pub tsc: Vec<u64>,
    /// Time of a loop around nothing, of as many rounds.
    pub loop_ns: u64,
    /// Time of `clock_reads` readings of the clock.
    pub clock_ns: u64,
    /// Readings that were timed together.
    pub clock_reads: u64,
    /// `vdso`, or `syscall` where the kernel maps no clock into programs.
    pub clock: String,
    /// What this workload tells besides, in whole numbers.
    #[serde(flatten)]
    pub more: BTreeMap<String, Numbers>,
}

/// One whole number, or one for each batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Numbers {
    /// One.
    One(u64),
    /// One for each batch.
    Each(Vec<u64>),
}

/// Why a line counts for nothing.
#[derive(Debug, thiserror::Error)]
pub enum WorkLineError {
    /// There is none.
    #[error("the workload printed no line of numbers")]
    Missing,
    /// Not such a line.
    #[error("read the workload's line of numbers")]
    Json(#[source] serde_json::Error),
    /// Another batch than the other arms'.
    #[error("the workload ran batches of {found} operations, not {planned}")]
    Batch {
        /// What it says.
        found: u64,
        /// What every arm was to run.
        planned: u64,
    },
    /// Another number of batches.
    #[error("the workload tells {0} batches, not {REPETITIONS}")]
    Repetitions(usize),
    /// Nothing is left after the overhead is taken off.
    #[error("a batch of {ns} ns is not longer than the clock and the loop around it")]
    NothingLeft {
        /// The median batch.
        ns: f64,
    },
}

impl WorkLine {
    /// The last line of what a workload printed.
    ///
    /// # Errors
    /// [`WorkLineError::Missing`], [`WorkLineError::Json`].
    pub fn last_of(output: &[u8]) -> Result<Self, WorkLineError> {
        let line = output.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        if line.is_empty() || line.len() > MAX_LINE {
            return Err(WorkLineError::Missing);
        }
        serde_json::from_slice(line).map_err(WorkLineError::Json)
    }

    /// Refuses a line of other batches than planned.
    ///
    /// # Errors
    /// [`WorkLineError::Batch`], [`WorkLineError::Repetitions`].
    pub fn check(&self, planned: u64) -> Result<(), WorkLineError> {
        if self.n != planned || planned == 0 {
            return Err(WorkLineError::Batch { found: self.n, planned });
        }
        let wanted = REPETITIONS as usize;
        match [self.ns.len(), self.tsc.len()].into_iter().find(|&len| len != wanted) {
            Some(len) => Err(WorkLineError::Repetitions(len)),
            None => Ok(()),
        }
    }

    /// Nanoseconds for one operation: the median batch less one reading of the clock and less the empty loop, or the
    /// median of the lateness. [`WorkLine::check`] comes first.
    ///
    /// # Errors
    /// [`WorkLineError::NothingLeft`], and [`WorkLineError::Missing`] where a sleep does not say how late it was.
    pub fn per_operation(&self, tells: Tells) -> Result<f64, WorkLineError> {
        if tells == Tells::Lateness {
            return match self.more.get("late_ns") {
                Some(Numbers::Each(late)) if !late.is_empty() => Ok(middle(late) / number(self.n)),
                _ => Err(WorkLineError::Missing),
            };
        }
        let ns = middle(&self.ns);
        let left = ns - self.clock_read_ns() - number(self.loop_ns);
        if left > 0.0 { Ok(left / number(self.n)) } else { Err(WorkLineError::NothingLeft { ns }) }
    }

    /// What one reading of the clock takes, in nanoseconds.
    #[must_use]
    pub fn clock_read_ns(&self) -> f64 {
        number(self.clock_ns) / number(self.clock_reads.max(1))
    }

    /// Doubts about the line.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.clock_read_ns() > SLOW_CLOCK_NS {
            doubts.push(format!("clock: a reading takes {:.0} ns", self.clock_read_ns()));
        }
        // A thousand readings are what the batch size was chosen for, at the first level.
        if self.ns.iter().any(|&ns| number(ns) < 1000.0 * self.clock_read_ns()) {
            doubts.push("batch: shorter than a thousand readings of the clock".to_owned());
        }
        doubts
    }
}

fn middle(values: &[u64]) -> f64 {
    median(&values.iter().copied().map(number).collect::<Vec<_>>())
}

/// Exact below 2^53: 104 days in nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "see the sentence above")]
pub(crate) const fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = r#"{"name":"alu","n":10,"ns":[900,1000,1100],"tsc":[1,2,3],"loop_ns":100,"clock_ns":20000,
        "clock_reads":1000,"clock":"vdso","minor_faults":7,"late_ns":[50,70,60]}"#;

    fn line() -> WorkLine {
        serde_json::from_str(LINE).expect("a line")
    }

    #[test]
    fn an_operation_is_the_median_batch_less_clock_and_loop() {
        let per = line().per_operation(Tells::Operations).expect("enough is left");
        assert!((per - (1000.0 - 20.0 - 100.0) / 10.0).abs() < 1e-9);
        assert!((line().per_operation(Tells::Lateness).expect("late") - 6.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_left_is_an_error_and_never_a_negative_number() {
        let line = WorkLine { loop_ns: 1000, ..line() };
        assert!(matches!(line.per_operation(Tells::Operations), Err(WorkLineError::NothingLeft { .. })));
    }

    #[test]
    fn other_batches_than_planned_are_refused() {
        assert!(matches!(line().check(11), Err(WorkLineError::Batch { found: 10, planned: 11 })));
        assert!(matches!(line().check(10), Err(WorkLineError::Repetitions(3))));
        let whole = WorkLine { ns: vec![9; 11], tsc: vec![9; 11], ..line() };
        whole.check(10).expect("as planned");
    }

    #[test]
    fn a_slow_clock_and_a_short_batch_are_doubts() {
        let slow = WorkLine { clock_ns: 2_000_000, ..line() };
        assert_eq!(slow.doubts().len(), 2);
        let good = WorkLine { ns: vec![20_000; 11], ..line() };
        assert_eq!(good.doubts(), Vec::<String>::new());
    }

    #[test]
    fn the_last_line_counts() {
        let output = format!("words\n{}\n", LINE.replace('\n', ""));
        assert_eq!(WorkLine::last_of(output.as_bytes()).expect("the line"), line());
        assert!(matches!(WorkLine::last_of(b"\n"), Err(WorkLineError::Missing)));
    }

    proptest! {
        #[test]
        fn any_output_gives_a_line_or_an_error(output: Vec<u8>) {
            let _ = WorkLine::last_of(&output);
        }
    }
}
