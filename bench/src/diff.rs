//! Two records of the same comparison: did an arm get slower or larger?
//!
//! Unpaired: the runs of two records share no pairs. Per arm and metric the ratio of the medians, B over A, with a
//! percentile bootstrap interval that resamples each record by itself. All judged intervals hold together with 95 %
//! (Bonferroni), so a diff of many metrics finds no more by chance than a diff of one.

use serde::Serialize;

use crate::record::Record;
use crate::sample::Sample;
use crate::statistics::{MIN_FOR_INTERVAL, RESAMPLES, median, ratio_interval};
use crate::summary::{CLEAN, METRICS, Metric, Unit};

mod same;
mod text;

pub use self::same::{Reasons, reasons};
pub use self::text::render;

/// Margin of times, percent: less is no regression.
pub const TIME_MARGIN_PERCENT: f64 = 2.0;
/// Margin of memory, percent.
pub const MEMORY_MARGIN_PERCENT: f64 = 1.0;

/// Seed of the resampling: the answer depends on the two records alone.
const SEED: u64 = 1;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Run of A.
    pub a: String,
    /// Run of B.
    pub b: String,
    /// What differs between the records and may be the cause; it does not forbid the diff.
    pub differs: Vec<String>,
    /// One line per arm and metric.
    pub lines: Vec<Line>,
    /// Whether one of them is a regression.
    pub regression: bool,
}

/// One arm's metric in both records.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The arm.
    pub arm: String,
    /// The metric.
    pub metric: &'static str,
    /// What its numbers count.
    pub unit: Unit,
    /// Runs in A and in B.
    pub n: [usize; 2],
    /// Median in A and in B.
    pub median: [f64; 2],
    /// B minus A.
    pub difference: f64,
    /// B over A; null where A is zero.
    pub ratio: Option<f64>,
    /// Interval of the ratio; null for too few runs.
    pub interval: Option<[f64; 2]>,
    /// Below which a change is none, percent.
    pub margin_percent: f64,
    /// The answer.
    pub judgement: Judgement,
}

/// The answer for one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// The interval leaves out 1 and the ratio lies above the margin.
    Regression,
    /// The interval leaves out 1 and the ratio lies below the margin.
    Improvement,
    /// The whole interval lies inside the margin.
    Same,
    /// None of these: too few runs, or too much scatter.
    NotResolved,
}

/// What is judged, and against which margin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question {
    /// Only this metric; else what record A leads with, and the time until an instance is gone.
    pub metric: Option<&'static Metric>,
    /// For every metric; else [`TIME_MARGIN_PERCENT`] and [`MEMORY_MARGIN_PERCENT`].
    pub margin_percent: Option<f64>,
}

/// Judges B against A; [`reasons`] says beforehand whether it may.
#[must_use]
pub fn diff(a: &Record, b: &Record, question: Question) -> Diff {
    let metrics: Vec<&Metric> = question.metric.map_or_else(
        || {
            let lead = a.headline();
            let wanted = [lead.startup(), &CLEAN, lead.memory()];
            METRICS.into_iter().filter(|m| wanted.iter().any(|w| w.name == m.name)).collect()
        },
        |metric| vec![metric],
    );
    let pairs: Vec<(&String, &Metric, [Vec<f64>; 2])> = a
        .run
        .plan
        .arms
        .iter()
        .flat_map(|arm| metrics.iter().map(move |metric| (arm, *metric)))
        .map(|(arm, metric)| (arm, metric, [values(a, arm, metric), values(b, arm, metric)]))
        .filter(|(.., both)| both.iter().all(|values| !values.is_empty()))
        .collect();
    let judged = pairs.len();
    let lines: Vec<Line> = pairs
        .into_iter()
        .map(|(arm, metric, both)| line(arm, metric, &both, question.margin_percent, judged))
        .collect();
    let regression = lines.iter().any(|line| line.judgement == Judgement::Regression);
    Diff { a: a.run.id.clone(), b: b.run.id.clone(), differs: same::differences(a, b), lines, regression }
}

fn values(record: &Record, arm: &str, metric: &Metric) -> Vec<f64> {
    let own = record.samples.iter().filter(|s: &&Sample| s.arm == arm && s.analysed());
    own.filter_map(|s| metric.of(s)).map(number).collect()
}

fn line(arm: &str, metric: &Metric, both: &[Vec<f64>; 2], margin: Option<f64>, judged: usize) -> Line {
    let medians = [median(&both[0]), median(&both[1])];
    let ratio = (medians[0] > 0.0).then(|| medians[1] / medians[0]);
    let enough = both.iter().all(|values| values.len() >= MIN_FOR_INTERVAL);
    let interval = ratio.filter(|_| enough).and_then(|ratio| interval(ratio, both, judged));
    let margin_percent = margin.unwrap_or(match metric.unit {
        Unit::Bytes => MEMORY_MARGIN_PERCENT,
        Unit::Ns => TIME_MARGIN_PERCENT,
    });
    Line {
        arm: arm.to_owned(),
        metric: metric.name,
        unit: metric.unit,
        n: [both[0].len(), both[1].len()],
        median: medians,
        difference: medians[1] - medians[0],
        ratio,
        interval,
        margin_percent,
        judgement: judge(ratio, interval, margin_percent / 100.0),
    }
}

fn judge(ratio: Option<f64>, interval: Option<[f64; 2]>, margin: f64) -> Judgement {
    let (Some(ratio), Some([low, high])) = (ratio, interval) else { return Judgement::NotResolved };
    if low > 1.0 && ratio > 1.0 + margin {
        Judgement::Regression
    } else if high < 1.0 && ratio < 1.0 - margin {
        Judgement::Improvement
    } else if low >= 1.0 - margin && high <= 1.0 + margin {
        Judgement::Same
    } else {
        Judgement::NotResolved
    }
}

/// The interval of the ratio of medians; nothing where a resample of A has a median of zero.
fn interval(ratio: f64, both: &[Vec<f64>; 2], judged: usize) -> Option<[f64; 2]> {
    let tail = 0.025 / number(u64::try_from(judged.max(1)).unwrap_or(u64::MAX));
    let [low, high] = ratio_interval(&both[0], &both[1], tail, SEED, RESAMPLES)?;
    // With few resamples in a tail an end can fall on the wrong side of the estimate by rounding.
    Some([low.min(ratio), high.max(ratio)])
}

/// Exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see the sentence above")]
const fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::summary::READINESS;

    fn judged(a: &[f64], b: &[f64]) -> Judgement {
        line("vm", &READINESS, &[a.to_vec(), b.to_vec()], None, 1).judgement
    }

    #[test]
    fn each_answer_has_its_case() {
        let base: Vec<f64> = (0..30).map(|i| 1000.0 + f64::from(i % 5)).collect();
        let times = |k: f64| base.iter().map(|v| v * k).collect::<Vec<_>>();
        assert_eq!(judged(&base, &times(1.05)), Judgement::Regression);
        assert_eq!(judged(&base, &times(0.9)), Judgement::Improvement);
        assert_eq!(judged(&base, &times(1.005)), Judgement::Same);
        assert_eq!(judged(&base, &base[..4]), Judgement::NotResolved);
        let wide: Vec<f64> = (0..30).map(|i| 600.0 + f64::from(i) * 30.0).collect();
        assert_eq!(judged(&base, &wide), Judgement::NotResolved);
        assert_eq!(judged(&[0.0; 9], &base), Judgement::NotResolved);
    }

    #[test]
    fn equal_distributions_seldom_show_a_regression() {
        let mut rng = ChaCha8Rng::seed_from_u64(99);
        // A coefficient of variation of about 3 %, 30 runs each.
        let mut draw = || -> Vec<f64> {
            (0..30).map(|_| 1000.0 + (0..12).map(|_| rng.random::<f64>() - 0.5).sum::<f64>() * 30.0).collect()
        };
        let found = (0..100).filter(|_| judged(&draw(), &draw()) == Judgement::Regression).count();
        assert!(found <= 5, "{found} of 100");
    }

    #[test]
    fn more_lines_widen_each_interval() {
        let base: Vec<f64> = (0..30).map(|i| 1000.0 + f64::from(i * 7 % 31)).collect();
        let both = [base.clone(), base];
        let width = |judged| {
            let [low, high] = interval(1.0, &both, judged).expect("30 runs");
            high - low
        };
        assert!(width(9) > width(1));
    }
}
