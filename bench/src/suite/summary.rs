//! The numbers of each workload: every arm's median, every later arm against the first, pair by pair.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SuiteUnit;
use super::plan::SuitePlan;
use super::sample::SuiteSample;
use crate::paired::resampling;
use crate::statistics::{Estimate, RESAMPLES, median_with_interval};

/// One metric of one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuiteSummary {
    /// The suite.
    pub suite: String,
    /// The workload.
    pub workload: String,
    /// The metric.
    pub metric: String,
    /// What its numbers count.
    pub unit: SuiteUnit,
    /// Each arm that has it: samples, median with its interval, least and most.
    pub arms: BTreeMap<String, ArmNumbers>,
    /// Every later arm against the first.
    pub comparisons: Vec<Compared>,
    /// Doubts of its samples, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// An arm's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmNumbers {
    /// Samples.
    pub n: usize,
    /// The median with its interval.
    #[serde(flatten)]
    pub middle: Estimate,
    /// Least.
    pub min: f64,
    /// Most.
    pub max: f64,
}

/// Arm `b` against arm `a`, over the pairs that have both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The base.
    pub a: String,
    /// The other.
    pub b: String,
    /// Pairs.
    pub pairs: usize,
    /// Median of `b - a`.
    pub difference: Estimate,
    /// Median of `b / a`; absent where an `a` or a `b` is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_b_over_a: Option<Estimate>,
    /// Whether the difference has an interval and it leaves out zero.
    pub resolved: bool,
}

/// A workload's metric over the arms: values by pair.
type ByArm = BTreeMap<String, BTreeMap<u32, f64>>;

/// The numbers of every workload, in the order of the plan.
#[must_use]
pub fn summarise(plan: &SuitePlan, samples: &[SuiteSample]) -> Vec<SuiteSummary> {
    let mut summaries = Vec::new();
    for (i, task) in plan.tasks.iter().enumerate() {
        let Some(work) = plan.work(i) else { continue };
        let own: Vec<&SuiteSample> = samples
            .iter()
            .filter(|s| s.suite == task.suite && s.workload == task.workload && s.analysed())
            .collect();
        let mut metrics: Vec<(&'static str, SuiteUnit, ByArm)> = Vec::new();
        for sample in &own {
            for (name, unit, value) in sample.told(work) {
                let known = metrics.iter().position(|(known, ..)| *known == name);
                let at = known.unwrap_or_else(|| {
                    metrics.push((name, unit, ByArm::new()));
                    metrics.len() - 1
                });
                metrics[at].2.entry(sample.arm.clone()).or_default().insert(sample.pair, value);
            }
        }
        let mut flags: Vec<String> = Vec::new();
        for flag in own.iter().flat_map(|s| &s.flags) {
            // The same doubt with other numbers is the same doubt.
            if !flags.iter().any(|known| known.split(':').next() == flag.split(':').next()) {
                flags.push(flag.clone());
            }
        }
        for (metric, unit, by_arm) in metrics {
            summaries.push(SuiteSummary {
                suite: task.suite.clone(),
                workload: task.workload.clone(),
                metric: metric.to_owned(),
                unit,
                arms: by_arm
                    .iter()
                    .filter_map(|(arm, v)| Some((arm.clone(), numbers(v, plan.seed)?)))
                    .collect(),
                comparisons: comparisons(plan, &by_arm),
                flags: flags.clone(),
            });
        }
    }
    summaries
}

/// A median with its interval, of values in the order in which they were measured.
fn estimate(values: &[f64], seed: u64) -> Option<Estimate> {
    Some(median_with_interval(values, resampling(values), seed, RESAMPLES)?.estimate)
}

fn numbers(values: &BTreeMap<u32, f64>, seed: u64) -> Option<ArmNumbers> {
    let values: Vec<f64> = values.values().copied().collect();
    Some(ArmNumbers {
        n: values.len(),
        middle: estimate(&values, seed)?,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    })
}

fn comparisons(plan: &SuitePlan, by_arm: &ByArm) -> Vec<Compared> {
    let Some((base, others)) = plan.arms.split_first() else { return vec![] };
    let against = |b: &String| compare((base, by_arm.get(base)?), (b, by_arm.get(b)?), plan.seed);
    others.iter().filter_map(against).collect()
}

fn compare(
    (a, of_a): (&str, &BTreeMap<u32, f64>),
    (b, of_b): (&str, &BTreeMap<u32, f64>),
    seed: u64,
) -> Option<Compared> {
    let pairs: Vec<(f64, f64)> = of_a.iter().filter_map(|(pair, a)| Some((*a, *of_b.get(pair)?))).collect();
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
    let difference = estimate(&differences, seed)?;
    let logs: Vec<f64> =
        pairs.iter().filter(|(a, b)| *a > 0.0 && *b > 0.0).map(|(a, b)| (b / a).ln()).collect();
    let ratio_b_over_a = (logs.len() == pairs.len())
        .then(|| estimate(&logs, seed))
        .flatten()
        .map(|e| Estimate { median: e.median.exp(), ci95: e.ci95.map(|ends| ends.map(f64::exp)) });
    Some(Compared {
        a: a.to_owned(),
        b: b.to_owned(),
        pairs: pairs.len(),
        resolved: difference.ci95.is_some_and(|[low, high]| low > 0.0 || high < 0.0),
        difference,
        ratio_b_over_a,
    })
}
