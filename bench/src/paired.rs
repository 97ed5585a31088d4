//! Two arms over the pairs that have both: difference, shift, ratio, test, and what may be said.

use serde::{Deserialize, Serialize};

use crate::statistics::{
    Estimate, IntervalMethod, RESAMPLES, Resampling, count, hodges_lehmann, is_autocorrelated, lag1,
    median_with_interval, sign_flip_p,
};

/// Chance of a false finding that a test may have.
pub const SIGNIFICANCE: f64 = 0.05;
/// Most pairs that "would need about" speaks of.
const MOST_NEEDED: f64 = 1e6;

/// Numbers of paired values, without a judgement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Pairs.
    pub pairs: usize,
    /// Median of `b - a`.
    pub difference: Estimate,
    /// Hodges-Lehmann shift from `a` to `b`.
    pub shift: Option<Estimate>,
    /// Median of `b / a`, by logarithms; absent where a value is not positive.
    pub ratio: Option<Estimate>,
    /// Sign-flip permutation test of the log ratios, else of the differences.
    pub p_value: f64,
    /// Correlation of a pair's log ratio (or difference) with that of the next pair.
    pub lag1: Option<f64>,
    /// How the interval of the ratio (or difference) was made.
    pub interval: Option<IntervalMethod>,
}

impl Paired {
    /// The numbers of these pairs, in the order in which they were measured; `rounds` are the numbers of pairs of each round.
    #[must_use]
    pub fn new(pairs: &[(f64, f64)], rounds: &[usize], seed: u64) -> Option<Self> {
        Self::with_resamples(pairs, rounds, seed, RESAMPLES)
    }

    /// The same from another number of resamples.
    #[must_use]
    pub fn with_resamples(
        pairs: &[(f64, f64)],
        rounds: &[usize],
        seed: u64,
        resamples: usize,
    ) -> Option<Self> {
        let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
        let positive = pairs.iter().all(|(a, b)| *a > 0.0 && *b > 0.0);
        let logs: Option<Vec<f64>> = positive.then(|| pairs.iter().map(|(a, b)| (b / a).ln()).collect());
        let series = logs.as_deref().unwrap_or(&differences);
        let how = if rounds.len() > 1 { Resampling::Rounds(rounds) } else { resampling(series) };
        let difference = median_with_interval(&differences, how, seed, resamples)?;
        let ratio = match &logs {
            Some(logs) => median_with_interval(logs, how, seed, resamples),
            None => None,
        };
        Some(Self {
            pairs: pairs.len(),
            difference: difference.estimate,
            shift: hodges_lehmann(&differences),
            ratio: ratio.map(|r| r.estimate.map(f64::exp)),
            p_value: sign_flip_p(series, seed),
            lag1: lag1(series),
            interval: ratio.unwrap_or(difference).method,
        })
    }

    /// Half the interval of the ratio, as a share of it: the larger half.
    #[must_use]
    pub fn half_width(&self) -> Option<f64> {
        let ratio = self.ratio?;
        let [low, high] = ratio.ci95?;
        Some((high / ratio.median).max(ratio.median / low) - 1.0)
    }
}

/// Single values, or blocks where each depends on the one before.
#[must_use]
pub fn resampling(series: &[f64]) -> Resampling<'static> {
    if is_autocorrelated(series) { Resampling::blocks_for(series.len()) } else { Resampling::Independent }
}

/// One arm against itself: what the instrument finds where there is nothing to find.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseFloor {
    /// The arm that ran twice in each pair.
    pub arm: String,
    /// Pairs.
    pub pairs: usize,
    /// Median of the differences of its two runs.
    pub difference: Estimate,
    /// Median of their ratios; absent where a value is zero.
    pub ratio: Option<Estimate>,
}

impl NoiseFloor {
    /// The band of ratios that say nothing: as far to either side of 1 as the interval reaches to one. Which of two equal runs was the
    /// slower one is chance, so what it could be is no finding in the other direction either.
    #[must_use]
    pub fn band(&self) -> Option<[f64; 2]> {
        let [low, high] = self.ratio?.ci95?;
        let reach = high.max(low.recip()).max(1.0);
        Some([reach.recip(), reach])
    }

    /// The band of differences that say nothing: as far to either side of 0.
    #[must_use]
    pub fn difference_band(&self) -> Option<[f64; 2]> {
        let [low, high] = self.difference.ci95?;
        let reach = high.max(-low).max(0.0);
        Some([-reach, reach])
    }
}

/// What may be said of arm `b`, seen from arm `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// More time.
    Slower,
    /// Less time.
    Faster,
    /// More of something else.
    More,
    /// Less of something else.
    Less,
    /// The same, within the margin.
    Same,
    /// Neither different nor the same can be said.
    NotResolved,
}

impl Finding {
    /// Whether a difference is claimed.
    #[must_use]
    pub const fn is_difference(self) -> bool {
        !matches!(self, Self::Same | Self::NotResolved)
    }
}

/// By what a finding is judged.
#[derive(Clone, Copy, Debug)]
pub struct Measure<'a> {
    /// Smallest share of a difference that is worth a word, and within which arms are the same.
    pub margin: f64,
    /// Whether the numbers are times.
    pub time: bool,
    /// One arm against itself, where that was measured.
    pub floor: Option<&'a NoiseFloor>,
    /// p-value, corrected where the metric is not a primary one.
    pub p_value: f64,
    /// Whether that p-value must be significant for a difference: for metrics that the plan does not name.
    pub needs_p: bool,
}

/// The finding, and for one that is not resolved about how many pairs it would take.
#[must_use]
pub fn judge(numbers: &Paired, by: Measure<'_>) -> (Finding, Option<u32>) {
    let (more, less) =
        if by.time { (Finding::Slower, Finding::Faster) } else { (Finding::More, Finding::Less) };
    let significant = !by.needs_p || by.p_value <= SIGNIFICANCE;
    let Some(ratio) = numbers.ratio else {
        // A zero has no ratio: the difference alone, against its own noise.
        let [floor_low, floor_high] = by.floor.and_then(NoiseFloor::difference_band).unwrap_or([0.0, 0.0]);
        return match numbers.difference.ci95 {
            Some([low, _]) if significant && low > floor_high => (more, None),
            Some([_, high]) if significant && high < floor_low => (less, None),
            Some([low, high]) if low == 0.0 && high == 0.0 => (Finding::Same, None),
            _ => (Finding::NotResolved, None),
        };
    };
    let Some([low, high]) = ratio.ci95 else { return (Finding::NotResolved, None) };
    let [floor_low, floor_high] = by.floor.and_then(NoiseFloor::band).unwrap_or([1.0, 1.0]);
    let margins = [1.0 - by.margin, 1.0 + by.margin];
    let inside = |low: f64, high: f64| margins[0] <= low && high <= margins[1];
    if significant && low > floor_high && ratio.median > margins[1] {
        return (more, None);
    }
    if significant && high < floor_low && ratio.median < margins[0] {
        return (less, None);
    }
    if inside(low, high) && inside(floor_low, floor_high) {
        return (Finding::Same, None);
    }
    (Finding::NotResolved, needed(numbers, by.margin, [floor_low, floor_high]))
}

/// The interval shrinks with the root of the pairs, that of the noise floor too: so many make one of the two claims possible.
fn needed(numbers: &Paired, margin: f64, floor: [f64; 2]) -> Option<u32> {
    let effect = numbers.ratio?.median.ln();
    let half = numbers.half_width()?.ln_1p();
    let floor = floor[1].ln().max(-floor[0].ln());
    let margin = margin.ln_1p();
    // A difference over the margin: its interval must clear the floor. Else both must fit within the margin.
    let factor = if effect.abs() > margin {
        (half + floor) / effect.abs()
    } else {
        (half / (margin - effect.abs())).max(floor / margin)
    };
    let pairs = (count(numbers.pairs) * factor.powi(2)).ceil();
    // Never fewer than there were: the rule was not met with these.
    let pairs = pairs.max(count(numbers.pairs) + 1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and a million")]
    (pairs <= MOST_NEEDED).then_some(pairs as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn paired(ratio: f64, ci95: [f64; 2]) -> Paired {
        let estimate = |median, ci95| Estimate { median, ci95: Some(ci95) };
        Paired {
            pairs: 30,
            difference: estimate(0.0, [0.0, 0.0]),
            shift: None,
            ratio: Some(estimate(ratio, ci95)),
            p_value: 0.01,
            lag1: None,
            interval: Some(IntervalMethod::Bca),
        }
    }

    fn floor(low: f64, high: f64) -> NoiseFloor {
        let ratio = Some(Estimate { median: 1.0, ci95: Some([low, high]) });
        let difference = Estimate { median: 0.0, ci95: Some([-1.0, 1.0]) };
        NoiseFloor { arm: "process".to_owned(), pairs: 30, difference, ratio }
    }

    fn time(floor: Option<&NoiseFloor>) -> Measure<'_> {
        Measure { margin: 0.02, time: true, floor, p_value: 0.01, needs_p: false }
    }

    #[test]
    fn a_difference_lies_outside_the_noise_and_over_the_margin() {
        let quiet = floor(0.995, 1.004);
        let found = |ratio, ci95| judge(&paired(ratio, ci95), time(Some(&quiet))).0;
        assert_eq!(found(1.05, [1.03, 1.07]), Finding::Slower);
        assert_eq!(found(0.9, [0.88, 0.93]), Finding::Faster);
        assert_eq!(found(1.015, [1.01, 1.018]), Finding::Same, "below the margin");
        assert_eq!(found(1.015, [1.006, 1.03]), Finding::NotResolved, "significant, and below the margin");
        assert_eq!(found(1.05, [1.003, 1.1]), Finding::NotResolved, "the interval reaches into the noise");
        let noisy = floor(0.94, 1.06);
        let judged = |ratio, ci95| judge(&paired(ratio, ci95), time(Some(&noisy))).0;
        assert_eq!(judged(1.05, [1.03, 1.07]), Finding::NotResolved, "no claim smaller than the noise floor");
        assert_eq!(judged(1.0, [0.99, 1.01]), Finding::NotResolved, "not that of being the same either");
        assert_eq!(judged(1.5, [1.45, 1.55]), Finding::Slower);
    }

    #[test]
    fn a_metric_that_the_plan_does_not_name_needs_its_corrected_p() {
        let numbers = paired(1.5, [1.4, 1.6]);
        let with = |p_value| Measure { p_value, needs_p: true, time: false, ..time(None) };
        assert_eq!(judge(&numbers, with(0.2)).0, Finding::NotResolved);
        assert_eq!(judge(&numbers, with(0.04)).0, Finding::More);
    }

    #[test]
    fn what_is_not_resolved_says_how_many_pairs_it_would_take() {
        // Half-width 4 %, effect 1 %: "same within 2 %" needs a half-width of 1 %, so about 16 times the pairs.
        let (finding, pairs) = judge(&paired(1.01, [0.97, 1.05]), time(None));
        assert_eq!(finding, Finding::NotResolved);
        assert!(pairs.is_some_and(|n| (400..=560).contains(&n)), "{pairs:?}");
        // Half-width 6 %, effect 4 %: "slower" needs less than 4 %.
        let (_, pairs) = judge(&paired(1.04, [0.98, 1.1]), time(None));
        assert!(pairs.is_some_and(|n| (60..=75).contains(&n)), "{pairs:?}");
        // An effect as large as the margin is resolved by no number of pairs.
        assert_eq!(judge(&paired(1.019_999_9, [0.97, 1.07]), time(None)), (Finding::NotResolved, None));
    }

    #[test]
    fn zeros_have_a_difference_and_no_ratio() {
        let pairs: Vec<(f64, f64)> = (0..12).map(|i| (0.0, 5.0 + f64::from(i % 3))).collect();
        let numbers = Paired::new(&pairs, &[], 1).expect("pairs");
        assert_eq!((numbers.ratio, numbers.half_width(), numbers.difference.median), (None, None, 6.0));
        assert_eq!(judge(&numbers, Measure { time: false, ..time(None) }), (Finding::More, None));
        let none = Paired::new(&[(0.0, 0.0); 12], &[], 1).expect("pairs");
        assert_eq!(judge(&none, time(None)).0, Finding::Same);
        assert_eq!(Paired::new(&[], &[], 1), None);
    }

    #[test]
    fn pairs_that_depend_on_the_one_before_are_drawn_in_blocks() {
        let pairs: Vec<(f64, f64)> =
            (0..60).map(|i| (100.0, 110.0 + 10.0 * (f64::from(i) / 8.0).sin())).collect();
        let numbers = Paired::new(&pairs, &[], 1).expect("pairs");
        assert_eq!(numbers.interval, Some(IntervalMethod::Block));
        assert!(numbers.lag1.is_some_and(|r| r > 0.8));
        assert_eq!(Paired::new(&pairs, &[30, 30], 1).expect("pairs").interval, Some(IntervalMethod::Cluster));
    }

    proptest! {
        #[test]
        fn the_other_way_round_it_is_the_inverse(
            values in prop::collection::vec((1.0_f64..1e6, 1.0_f64..1e6), 6..40), seed: u64,
        ) {
            let numbers = Paired::with_resamples(&values, &[], seed, 200).expect("pairs");
            let swapped: Vec<(f64, f64)> = values.iter().map(|(a, b)| (*b, *a)).collect();
            let other = Paired::with_resamples(&swapped, &[], seed, 200).expect("pairs");
            let (one, inverse) = (numbers.ratio.expect("positive").median, other.ratio.expect("positive").median);
            prop_assert!((one * inverse - 1.0).abs() < 1e-9);
            prop_assert!((numbers.difference.median + other.difference.median).abs() < 1e-6);
            prop_assert_eq!(numbers.p_value, other.p_value);
        }

        #[test]
        fn no_finding_of_a_difference_within_the_margin(ratio in 0.5_f64..2.0, low in 0.8_f64..1.0, high in 1.0_f64..1.2) {
            let (finding, _) = judge(&paired(ratio, [ratio * low, ratio * high]), time(None));
            prop_assert!(!finding.is_difference() || !(0.98..=1.02).contains(&ratio));
        }
    }
}
