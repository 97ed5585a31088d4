//! Every later arm against the first, metric by metric: numbers first, then what may be said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::paired::{Finding, Measure, NoiseFloor, Paired, judge};
use crate::plan::Plan;
use crate::sample::Sample;
use crate::statistics::{Estimate, IntervalMethod, holm};
use crate::summary::{Metric, Unit, number};

/// How the numbers of a summary were made.
pub const METHOD: &str = "medians, of paired differences and of paired log ratios; 95 % intervals by BCa bootstrap over pairs \
                          (percentiles of blocks where neighbours are correlated, of rounds where there are several), 10000 \
                          resamples; Hodges-Lehmann shift; sign-flip permutation test; quantiles of Hyndman and Fan's type 8";

/// Arm `b` against arm `a`, over the pairs that have both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The base.
    pub a: String,
    /// The other.
    pub b: String,
    /// Pairs.
    pub pairs: usize,
    /// Median of `b - a`.
    pub difference: Estimate,
    /// Hodges-Lehmann shift from `a` to `b`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hodges_lehmann: Option<Estimate>,
    /// Median of `b / a`; absent where an `a` or a `b` is zero.
    pub ratio_b_over_a: Option<Estimate>,
    /// How the interval of the ratio was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<IntervalMethod>,
    /// Sign-flip permutation test of the pairs.
    #[serde(default)]
    pub p_value: Option<f64>,
    /// The same after Holm's correction over all metrics that are not primary ones; null for a primary one.
    #[serde(default)]
    pub p_holm: Option<f64>,
    /// Correlation of each pair's ratio with the next pair's.
    #[serde(default)]
    pub lag1_autocorrelation: Option<f64>,
    /// Share of a difference that is worth a word, and within which the arms are the same.
    #[serde(default)]
    pub margin: Option<f64>,
    /// What may be said; absent in records of an older isolab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
    /// About how many pairs would resolve it; null where it is resolved, or where more than a million would not.
    #[serde(default)]
    pub pairs_needed: Option<u32>,
    /// Whether a difference is found.
    pub resolved: bool,
    /// The one sentence that may be quoted: where, under what conditions, what was found, what speaks against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
    /// [`METHOD`].
    pub method: String,
}

impl Comparison {
    /// What may be said; of a record of an older isolab, only what it said.
    #[must_use]
    pub fn finding(&self, unit: Unit) -> Finding {
        let more = self.difference.median > 0.0;
        self.finding.unwrap_or(match (self.resolved, unit, more) {
            (false, ..) => Finding::NotResolved,
            (_, Unit::Ns, true) => Finding::Slower,
            (_, Unit::Ns, false) => Finding::Faster,
            (_, _, true) => Finding::More,
            (_, _, false) => Finding::Less,
        })
    }
}

/// The values of one metric by arm and pair, with the control's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    arms: BTreeMap<String, BTreeMap<u32, f64>>,
    control: BTreeMap<u32, f64>,
}

impl Series {
    /// What the analysed samples say.
    pub(crate) fn of(metric: &Metric, plan: &Plan, samples: &[Sample]) -> Self {
        let value = |s: &Sample| Some((s.pair, number(metric.of(s)?)));
        let of = |arm: &String| {
            samples.iter().filter(|s| s.arm == *arm && s.analysed()).filter_map(value).collect()
        };
        Self {
            arms: plan.arms.iter().map(|arm| (arm.clone(), of(arm))).collect(),
            control: samples.iter().filter(|s| s.is_usable_control()).filter_map(value).collect(),
        }
    }

    /// An arm's values in the order of the pairs.
    pub(crate) fn values(&self, arm: &str) -> Option<Vec<f64>> {
        Some(self.arms.get(arm)?.values().copied().collect())
    }

    /// The numbers of two arms; of the first arm and its control without a name.
    pub(crate) fn paired(&self, plan: &Plan, b: Option<&str>, resamples: usize) -> Option<Paired> {
        let of_a = self.arms.get(plan.arms.first()?)?;
        let of_b = b.map_or(Some(&self.control), |b| self.arms.get(b))?;
        let both: Vec<(u32, (f64, f64))> =
            of_a.iter().filter_map(|(pair, a)| Some((*pair, (*a, *of_b.get(pair)?)))).collect();
        let rounds = plan.rounds_of(both.iter().map(|(pair, _)| *pair));
        let values: Vec<(f64, f64)> = both.into_iter().map(|(_, values)| values).collect();
        Paired::with_resamples(&values, &rounds, plan.seed, resamples)
    }
}

/// For each metric the noise floor and the comparisons. Metrics that the plan does not name are corrected for their number.
pub(crate) fn compare(
    plan: &Plan,
    metrics: &[(&Metric, &Series)],
) -> Vec<(Option<NoiseFloor>, Vec<Comparison>)> {
    let Some((base, others)) = plan.arms.split_first() else { return vec![] };
    let resamples = crate::statistics::RESAMPLES;
    let mut all: Vec<(Option<NoiseFloor>, Vec<Comparison>)> = metrics
        .iter()
        .map(|(_, series)| (series.paired(plan, None, resamples).map(|p| floor(base, p)), vec![]))
        .collect();
    for other in others {
        let numbers: Vec<Option<Paired>> =
            metrics.iter().map(|(_, series)| series.paired(plan, Some(other), resamples)).collect();
        let corrected = corrected(plan, metrics, &numbers);
        for (i, (metric, _)) in metrics.iter().enumerate() {
            let Some(numbers) = numbers[i] else { continue };
            let comparison = comparison((base, other), metric.unit, numbers, corrected[i], all[i].0.as_ref());
            all[i].1.push(comparison);
        }
    }
    all
}

/// Holm's p-values of the metrics that are not primary ones.
fn corrected(plan: &Plan, metrics: &[(&Metric, &Series)], numbers: &[Option<Paired>]) -> Vec<Option<f64>> {
    let mut corrected = vec![None; metrics.len()];
    let other = |i: &usize| !plan.primary_metrics.iter().any(|name| name == metrics[*i].0.name);
    let others: Vec<(usize, f64)> =
        (0..metrics.len()).filter(other).filter_map(|i| Some((i, numbers[i]?.p_value))).collect();
    let p_values: Vec<f64> = others.iter().map(|(_, p)| *p).collect();
    for ((i, _), p) in others.into_iter().zip(holm(&p_values)) {
        corrected[i] = Some(p);
    }
    corrected
}

fn floor(arm: &str, p: Paired) -> NoiseFloor {
    NoiseFloor { arm: arm.to_owned(), pairs: p.pairs, difference: p.difference, ratio: p.ratio }
}

fn comparison(
    (a, b): (&str, &str),
    unit: Unit,
    numbers: Paired,
    p_holm: Option<f64>,
    floor: Option<&NoiseFloor>,
) -> Comparison {
    let by = Measure {
        margin: unit.margin(),
        time: unit == Unit::Ns,
        floor,
        p_value: p_holm.unwrap_or(numbers.p_value),
        needs_p: p_holm.is_some(),
    };
    let (finding, pairs_needed) = judge(&numbers, by);
    Comparison {
        a: a.to_owned(),
        b: b.to_owned(),
        pairs: numbers.pairs,
        difference: numbers.difference,
        hodges_lehmann: numbers.shift,
        ratio_b_over_a: numbers.ratio,
        interval: numbers.interval,
        p_value: Some(numbers.p_value),
        p_holm,
        lag1_autocorrelation: numbers.lag1,
        margin: Some(by.margin),
        finding: Some(finding),
        pairs_needed,
        resolved: finding.is_difference(),
        sentence: None,
        method: METHOD.to_owned(),
    }
}
