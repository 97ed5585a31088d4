//! Live progress on a terminal: what is planned and done, what is known so far of each arm, and the time left.
//!
//! Drawn between runs and never during one: no thread of its own, no ticking. Nothing on what is no terminal.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use isolab_bench::measure::Observer;
use isolab_bench::plan::{Plan, Slot};
use isolab_bench::run_report::EndReport;
use isolab_bench::sample::Sample;
use isolab_bench::summary::{CHARGE, CLEAN, FIRST_INSTRUCTION, Metric, PEAK, READINESS};
use serde::{Deserialize, Serialize};

/// What is shown of a finished run; also what the isolab in a lab tells the one outside, as a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Runs done, and planned at most.
    pub(crate) done: usize,
    pub(crate) planned: usize,
    /// The arm.
    pub(crate) arm: String,
    /// It counts.
    pub(crate) measured: bool,
    /// From request to ready, else to the first instruction, else to clean.
    pub(crate) time_ns: Option<u64>,
    /// Charge when ready, else the peak.
    pub(crate) memory_bytes: Option<u64>,
}

impl Step {
    fn of(done: usize, planned: usize, sample: &Sample) -> Self {
        let first = |metrics: &[&Metric]| metrics.iter().find_map(|metric| metric.of(sample));
        Self {
            done,
            planned,
            arm: sample.arm.clone(),
            measured: sample.analysed(),
            time_ns: first(&[&READINESS, &FIRST_INSTRUCTION, &CLEAN]),
            memory_bytes: first(&[&CHARGE, &PEAK]),
        }
    }
}

/// Who is shown the progress.
#[derive(Debug)]
enum Audience {
    /// Nobody.
    None,
    /// The isolab outside of the lab, by lines on standard output.
    Lines,
    /// A person.
    Terminal(Table),
}

/// Watches the measuring.
#[derive(Debug)]
pub(crate) struct Progress {
    planned: usize,
    done: usize,
    audience: Audience,
    interrupted: Rc<Cell<Option<u8>>>,
}

impl Progress {
    /// `lines`: to standard output, for an isolab that reads them.
    pub(crate) fn new(plan: &Plan, interrupted: Rc<Cell<Option<u8>>>, lines: bool) -> Self {
        let audience = if lines {
            Audience::Lines
        } else {
            Table::on_a_terminal(false).map_or(Audience::None, Audience::Terminal)
        };
        Self { planned: plan.order().len(), done: 0, audience, interrupted }
    }
}

impl Observer for Progress {
    fn started(&mut self, slot: &Slot) {
        if let Audience::Terminal(table) = &mut self.audience {
            table.started(&slot.arm);
        }
    }

    fn finished(&mut self, sample: &Sample) -> ControlFlow<()> {
        self.done += 1;
        let step = Step::of(self.done, self.planned, sample);
        match &mut self.audience {
            Audience::None => {}
            Audience::Lines => {
                if let Ok(line) = serde_json::to_string(&step) {
                    // Where nobody reads it, nobody misses it.
                    let _ = writeln!(std::io::stdout(), "{line}");
                }
            }
            Audience::Terminal(table) => table.show(&step),
        }
        // The first warm-up pair tells what can't run at all: no use in repeating it.
        let none = sample.error.is_some() || matches!(sample.end, Some(EndReport::Failed(..)));
        let stop = self.interrupted.get().is_some() || (none && sample.pair == 0);
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// A line of totals and one for each arm, drawn anew after each run and taken away when it is dropped.
#[derive(Debug)]
pub(crate) struct Table {
    all: MultiProgress,
    head: ProgressBar,
    arms: BTreeMap<String, Arm>,
    started: Instant,
    /// Times are instructions of the lab.
    instructions: bool,
}

#[derive(Debug)]
struct Arm {
    line: ProgressBar,
    times: Vec<u64>,
    memory: Vec<u64>,
}

impl Table {
    /// A table on standard error; nothing where that is no terminal.
    pub(crate) fn on_a_terminal(instructions: bool) -> Option<Self> {
        std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let head = all.add(ProgressBar::new(1));
            head.set_style(style("{bar:24} {pos}/{len} runs{msg}"));
            Self { all, head, arms: BTreeMap::new(), started: Instant::now(), instructions }
        })
    }

    fn started(&mut self, arm: &str) {
        if self.head.position() == 0 {
            self.head.set_message(format!(", first {arm}"));
        }
    }

    /// Draws what is known after a run.
    pub(crate) fn show(&mut self, step: &Step) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        self.head.set_length(count(step.planned));
        self.head.set_message(left(self.started.elapsed(), step.done, step.planned));
        self.head.set_position(count(step.done));
        let all = &self.all;
        let arm = self.arms.entry(step.arm.clone()).or_insert_with(|| {
            let line = all.add(ProgressBar::new(1));
            line.set_style(style("{msg}"));
            Arm { line, times: vec![], memory: vec![] }
        });
        if step.measured {
            arm.times.extend(step.time_ns);
            arm.memory.extend(step.memory_bytes);
        }
        arm.line.set_message(arm.words(&step.arm, self.instructions));
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to take away.
        let _ = self.all.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The time that is left if the rest takes as long as what was done.
fn left(elapsed: Duration, done: usize, planned: usize) -> String {
    let (Ok(done), Ok(rest)) = (u32::try_from(done), u32::try_from(planned.saturating_sub(done))) else {
        return String::new();
    };
    let seconds = elapsed.checked_div(done).map_or(0, |each| each.saturating_mul(rest).as_secs());
    if rest == 0 {
        return String::new();
    }
    format!(", at most {}:{:02} left", seconds / 60, seconds % 60)
}

impl Arm {
    fn words(&self, name: &str, instructions: bool) -> String {
        let n = self.times.len();
        let (time, unit) = if instructions { (2e6, "Mi") } else { (1e6, "ms") };
        let part = |values: &[u64], unit: &str, divisor: f64| {
            let Some((median, half_percent)) = middle(values) else { return String::new() };
            let width = half_percent.map(|p| format!(" \u{b1}{p:.1} %")).unwrap_or_default();
            format!("  {:>9.3} {unit}{width:<8}", median / divisor)
        };
        let (times, memory) = (part(&self.times, unit, time), part(&self.memory, "MiB", 1_048_576.0));
        format!("{:<12} n = {n:<4}{times}{memory}", crate::escaped(name))
    }
}

/// The median, and half the width of its distribution-free 95 % interval (between two order statistics) in percent of it,
/// from six values on.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn middle(values: &[u64]) -> Option<(f64, Option<f64>)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let n = sorted.len();
    let at = |i: usize| sorted.get(i).map(|v| *v as f64);
    let median = f64::midpoint(at(n.checked_sub(1)? / 2)?, at(n / 2)?);
    // The largest k for which fewer than 2.5 % of all samples lie with k or fewer values below the median.
    let (mut k, mut term, mut sum) = (0_usize, 0.5_f64.powi(i32::try_from(n).ok()?), 0.0);
    while sum + term < 0.025 && k < n {
        sum += term;
        term *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    let half =
        k.checked_sub(1).filter(|_| median > 0.0).and_then(|low| Some((at(n - 1 - low)? - at(low)?) / 2.0));
    Some((median, half.map(|half| half / median * 100.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_median_has_the_ranks_of_the_binomial_table() {
        assert_eq!(middle(&[]), None);
        assert_eq!(middle(&[4, 2]), Some((3.0, None)));
        assert_eq!(middle(&[1, 2, 3, 4, 5]).expect("values").1, None);
        // Ranks 1 and 6 of 6, 10 and 21 of 30.
        assert_eq!(middle(&[10, 20, 30, 40, 50, 60]), Some((35.0, Some(25.0 / 35.0 * 100.0))));
        let thirty: Vec<u64> = (1..=30).collect();
        assert_eq!(middle(&thirty), Some((15.5, Some(5.5 / 15.5 * 100.0))));
    }

    #[test]
    fn time_left_follows_what_was_done() {
        assert_eq!(left(Duration::from_secs(10), 5, 50), ", at most 1:30 left");
        assert_eq!(left(Duration::from_secs(10), 50, 50), "");
        assert_eq!(left(Duration::ZERO, 0, 50), ", at most 0:00 left");
    }

    #[test]
    fn a_step_travels_as_one_line() {
        let step = Step {
            done: 1,
            planned: 9,
            arm: "vm\n".to_owned(),
            measured: true,
            time_ns: Some(5),
            memory_bytes: None,
        };
        let line = serde_json::to_string(&step).expect("plain data");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Step>(&line).expect("our own"), step);
    }
}
