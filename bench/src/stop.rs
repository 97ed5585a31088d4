//! When measuring ends: a rule of the plan, written before the first sample. It looks at the width of the intervals and at the
//! clock, never at what they say: stopping at a welcome result would make it frequent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::comparison::Series;
use crate::paired::resampling;
use crate::plan::{PAIRS_ON_HOST, Plan, pairs_done};
use crate::sample::Sample;
use crate::statistics::median_with_interval;
use crate::summary::STARTUP;

/// Most pairs on a host when the user names no number.
pub const MOST_PAIRS: u32 = 200;
/// Resamples of the intervals that are looked at on the way.
const RESAMPLES: usize = 2000;

/// After the least number of pairs, the first of: narrow intervals, the time limit, all pairs of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Pairs before which nothing but their number ends it.
    pub min_pairs: u32,
    /// Half the 95 % interval of each start-up ratio, as a share of the ratio.
    pub half_width_percent: u32,
    /// Time since the first sample.
    pub time_limit_ms: u64,
}

/// What ended the measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// All pairs of the plan were measured.
    Pairs,
    /// The intervals were narrow enough.
    Width,
    /// The time limit.
    Time,
    /// A signal, or a first run that could not be made.
    Stopped,
}

impl Stop {
    /// On a host, where the user asks for nothing else.
    pub const ON_HOST: Self = Self { min_pairs: PAIRS_ON_HOST, half_width_percent: 2, time_limit_ms: 40_000 };

    /// In words.
    #[must_use]
    pub fn rule(&self, most: u32) -> String {
        format!(
            "at least {} pairs; then until the 95 % interval of each start-up ratio is within {} % of it, or {most} pairs, \
             or {} s",
            self.min_pairs,
            self.half_width_percent,
            self.time_limit_ms / 1000
        )
    }

    /// Whether these samples, which end with a whole pair, are enough, and why.
    #[must_use]
    pub fn reached(&self, plan: &Plan, samples: &[Sample], elapsed: Duration) -> Option<Ended> {
        if pairs_done(plan, samples) < self.min_pairs {
            None
        } else if narrow(plan, samples, f64::from(self.half_width_percent) / 100.0) {
            Some(Ended::Width)
        } else {
            (elapsed >= Duration::from_millis(self.time_limit_ms)).then_some(Ended::Time)
        }
    }
}

/// Whether the interval of each arm's ratio to the first is within this share of it; of a single arm, that of its median.
fn narrow(plan: &Plan, samples: &[Sample], half_width: f64) -> bool {
    let analysed = || samples.iter().filter(|s| s.analysed());
    let leading = STARTUP.into_iter().find(|metric| analysed().all(|s| metric.of(s).is_some()));
    let Some(metric) = leading else { return false };
    let series = Series::of(metric, plan, samples);
    let others = plan.arms.get(1..).unwrap_or_default();
    if let ([only], []) = (&plan.arms[..], others) {
        let values = series.values(only).unwrap_or_default();
        let found =
            median_with_interval(&values, resampling(&values), plan.seed, RESAMPLES).map(|i| i.estimate);
        return found.is_some_and(|e| {
            e.ci95.is_some_and(|[low, high]| {
                high - e.median <= half_width * e.median && e.median - low <= half_width * e.median
            })
        });
    }
    let width = |arm: &String| series.paired(plan, Some(arm), RESAMPLES)?.half_width();
    others.iter().all(|arm| width(arm).is_some_and(|width| width <= half_width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Slot;
    use crate::timeline::Times;

    const STOP: Stop = Stop { min_pairs: 10, half_width_percent: 2, time_limit_ms: 5000 };

    fn plan() -> Plan {
        let arms = ["process", "container"].map(str::to_owned).to_vec();
        Plan::new(arms, 100, 0, 1).expect("two arms").stopping(STOP)
    }

    /// Pairs whose ratio goes up and down by this share.
    fn samples(pairs: u32, permille: u64) -> Vec<Sample> {
        let ready = |slot: &Slot| {
            let swing = u64::from(slot.pair * 7 % 5) * permille;
            1_000_000 * if slot.arm == "process" { 1 } else { 3 }
                + if slot.arm == "process" { 0 } else { 3000 * swing / 4 }
        };
        let of = |slot: Slot| {
            let t_ns = Some(Times { ready: Some(ready(&slot)), clean: Some(9_000_000), ..Times::default() });
            Sample { ok: true, t_ns, ..Sample::failed(&slot, String::new()) }
        };
        plan().order().into_iter().take(pairs as usize * 2).map(of).collect()
    }

    #[test]
    fn width_ends_it_and_what_the_interval_says_does_not() {
        let at =
            |pairs, permille, ms| STOP.reached(&plan(), &samples(pairs, permille), Duration::from_millis(ms));
        assert_eq!(at(9, 1, 9999), None, "below the least number");
        assert_eq!(at(10, 1, 0), Some(Ended::Width));
        assert_eq!(at(10, 300, 0), None, "a clear difference with a wide interval goes on");
        assert_eq!(at(10, 300, 5000), Some(Ended::Time));
    }

    #[test]
    fn the_rule_is_written_in_the_plan() {
        assert_eq!(
            plan().stop_rule,
            "at least 10 pairs; then until the 95 % interval of each start-up ratio is within 2 % of it, or 100 pairs, or 5 s"
        );
    }

    #[test]
    fn runs_that_all_failed_are_never_narrow() {
        let mut samples = samples(10, 1);
        samples.iter_mut().for_each(|s| s.ok = false);
        assert_eq!(STOP.reached(&plan(), &samples, Duration::ZERO), None);
    }
}
