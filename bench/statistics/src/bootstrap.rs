//! Bootstrap intervals of the median: bias-corrected and accelerated (BCa, Efron 1987) over independent values, percentiles
//! over blocks or rounds where values are not independent.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::{CONFIDENCE, Estimate, MIN_FOR_INTERVAL, count, median};

/// What is drawn again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resampling<'a> {
    /// Single values.
    Independent,
    /// Runs of neighbours, for values that depend on the one before. The values are a circle, so that each is in as many blocks.
    Blocks(usize),
    /// Rounds first, then values within: lengths of the rounds, in the order of the values.
    Rounds(&'a [usize]),
}

impl Resampling<'_> {
    /// Blocks of the usual length for so many values: their cube root.
    #[must_use]
    pub fn blocks_for(n: usize) -> Self {
        let length = (1..n).find(|length| length.pow(3) >= n).unwrap_or(1);
        Self::Blocks(length.max(2))
    }
}

/// How the ends of an interval were read from the resamples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntervalMethod {
    /// Bias-corrected and accelerated, single values drawn.
    Bca,
    /// Percentiles, single values drawn: the correction was not defined.
    Percentile,
    /// Percentiles, blocks of neighbours drawn.
    Block,
    /// Percentiles, rounds and then their values drawn.
    Cluster,
}

/// A median with its interval and how that was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The numbers.
    pub estimate: Estimate,
    /// How its ends were found; absent where there are none.
    pub method: Option<IntervalMethod>,
}

/// The median with its bootstrap interval; nothing for nothing, no interval for too few.
#[must_use]
pub fn median_with_interval(
    values: &[f64],
    how: Resampling<'_>,
    seed: u64,
    resamples: usize,
) -> Option<Interval> {
    let first = *values.first()?;
    let middle = median(values);
    if values.len() < MIN_FOR_INTERVAL {
        return Some(Interval { estimate: Estimate { median: middle, ci95: None }, method: None });
    }
    let found = |ci95, method| Interval {
        estimate: Estimate { median: middle, ci95: Some(ci95) },
        method: Some(method),
    };
    if values.iter().all(|v| *v == first) {
        return Some(found([first, first], IntervalMethod::Percentile));
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let places = Places::of_medians(values, how, seed, resamples);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let (tails, method) = match how {
        Resampling::Independent => bca_tails(&sorted, &places)
            .map_or(([tail, 1.0 - tail], IntervalMethod::Percentile), |tails| (tails, IntervalMethod::Bca)),
        Resampling::Blocks(_) => ([tail, 1.0 - tail], IntervalMethod::Block),
        Resampling::Rounds(_) => ([tail, 1.0 - tail], IntervalMethod::Cluster),
    };
    let [low, high] = tails.map(|tau| value_at(&sorted, places.quantile(tau)));
    // With few resamples an end can fall on the wrong side of the estimate by rounding.
    Some(found([low.min(middle), high.max(middle)], method))
}

/// Where the medians of the resamples lie among the sorted values: how many at each half place (between two values, for an even
/// number). Places and not values are counted: they are small integers, and equal values keep places of their own.
struct Places(Vec<usize>);

impl Places {
    fn of_medians(values: &[f64], how: Resampling<'_>, seed: u64, resamples: usize) -> Self {
        let n = values.len();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
        let mut ranks = vec![0; n];
        for (rank, position) in order.into_iter().enumerate() {
            ranks[position] = rank;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw: Vec<usize> = Vec::with_capacity(n);
        let mut counts = vec![0; 2 * n - 1];
        for _ in 0..resamples {
            draw.clear();
            resample(&mut draw, &ranks, how, &mut rng);
            if let Some(place) = middle_of(&mut draw) {
                counts[place] += 1;
            }
        }
        Self(counts)
    }

    /// A quantile in half places. Medians of resamples fall on few places, so that a plain quantile jumps by whole gaps between
    /// them, and intervals of an odd number of values would cover too little. So each place stands at the middle of its step of
    /// the distribution function, with straight lines between (Ma, Genton and Parzen 2011).
    fn quantile(&self, tau: f64) -> f64 {
        let all = count(self.0.iter().sum());
        let (mut below, mut last) = (0.0, None);
        for (place, n) in self.0.iter().enumerate().filter(|(_, n)| **n > 0) {
            let middle = (below + count(*n) / 2.0) / all;
            below += count(*n);
            let place = count(place);
            match last {
                _ if middle <= tau => last = Some((middle, place)),
                None => return place,
                Some((left, low)) => return low + (tau - left) / (middle - left) * (place - low),
            }
        }
        last.map_or(f64::NAN, |(_, place)| place)
    }
}

/// The value at a half place, on the straight line between its neighbours.
fn value_at(sorted: &[f64], half_place: f64) -> f64 {
    let place = (half_place / 2.0).clamp(0.0, count(sorted.len() - 1));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the places that there are"
    )]
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (place - place.floor()) * (sorted[high] - sorted[low])
}

fn resample(draw: &mut Vec<usize>, ranks: &[usize], how: Resampling<'_>, rng: &mut ChaCha8Rng) {
    let n = ranks.len();
    match how {
        Resampling::Independent => draw.extend((0..n).map(|_| ranks[below(rng, n)])),
        Resampling::Blocks(length) => {
            while draw.len() < n {
                let start = below(rng, n);
                let missing = n - draw.len();
                draw.extend((start..).take(length.max(1).min(missing)).map(|i| ranks[i % n]));
            }
        }
        Resampling::Rounds(lengths) => {
            for _ in 0..lengths.len() {
                let round = below(rng, lengths.len());
                let start: usize = lengths[..round].iter().sum();
                let length = lengths[round];
                draw.extend((0..length).filter_map(|_| ranks.get(start + below(rng, length))));
            }
        }
    }
}

fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    // 32-bit draws are the same on every machine and cost half.
    rng.random_range(0..u32::try_from(n).unwrap_or(u32::MAX)) as usize
}

/// Twice the place of the median of these ranks; nothing for nothing.
fn middle_of(ranks: &mut [usize]) -> Option<usize> {
    if ranks.is_empty() {
        return None;
    }
    let even = ranks.len().is_multiple_of(2);
    let (below, upper, _) = ranks.select_nth_unstable(ranks.len() / 2);
    let lower = if even { below.iter().max().copied() } else { None };
    Some(*upper + lower.unwrap_or(*upper))
}

/// Which quantiles of the resampled medians are the ends of the interval; nothing where the correction is not defined.
fn bca_tails(sorted: &[f64], places: &Places) -> Option<[f64; 2]> {
    let normal = Normal::standard();
    // The middle of n values is half place n - 1.
    let (less, more) = places.0.split_at(sorted.len() - 1);
    let share = (count(less.iter().sum()) + count(more[0]) / 2.0) / count(places.0.iter().sum());
    let bias = (share > 0.0 && share < 1.0).then(|| normal.inverse_cdf(share))?;
    let acceleration = acceleration(sorted)?;
    let z = normal.inverse_cdf(f64::midpoint(1.0, CONFIDENCE));
    let tail = |z: f64| {
        let moved = bias + z;
        let tau = normal.cdf(bias + moved / (1.0 - acceleration * moved));
        (tau > 0.0 && tau < 1.0).then_some(tau)
    };
    Some([tail(-z)?, tail(z)?])
}

/// Skewness of the medians that leave out one value each, over six.
fn acceleration(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    let without = |left_out: usize| {
        let at = |i: usize| sorted[if i < left_out { i } else { i + 1 }];
        let half = (n - 1) / 2;
        if (n - 1).is_multiple_of(2) { f64::midpoint(at(half - 1), at(half)) } else { at(half) }
    };
    let medians: Vec<f64> = (0..n).map(without).collect();
    let mean = medians.iter().sum::<f64>() / count(n);
    let power = |k: i32| medians.iter().map(|m| (mean - m).powi(k)).sum::<f64>();
    let spread = power(2);
    let acceleration = power(3) / (6.0 * spread.powf(1.5));
    (spread > 0.0 && acceleration.is_finite()).then_some(acceleration)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn interval(values: &[f64], how: Resampling<'_>, resamples: usize) -> Interval {
        median_with_interval(values, how, 1, resamples).expect("not empty")
    }

    #[test]
    fn the_interval_of_a_constant_is_the_constant() {
        let estimate = interval(&[5.0; 12], Resampling::Independent, 1000).estimate;
        assert_eq!(estimate, Estimate { median: 5.0, ci95: Some([5.0, 5.0]) });
        assert_eq!(median_with_interval(&[], Resampling::Independent, 1, 1000), None);
    }

    #[test]
    fn too_few_values_have_no_interval() {
        for values in [&[7.0][..], &[7.0; 5], &[1.0, 2.0, 9.0, 11.0, 12.0]] {
            let found = interval(values, Resampling::Independent, 1000);
            assert_eq!(found.estimate, Estimate { median: median(values), ci95: None });
            assert_eq!(found.method, None);
        }
        assert!(interval(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], Resampling::Independent, 1000).method.is_some());
    }

    #[test]
    fn six_values_are_spanned_nearly_whole() {
        // The true median lies outside of six values in 3 % of the cases, so little less would do.
        let [low, high] = interval(&[1.0, 2.0, 3.0, 4.0, 5.0, 60.0], Resampling::Independent, 10_000)
            .estimate
            .ci95
            .expect("six");
        assert!(low < 2.0 && high > 5.0, "[{low}, {high}]");
    }

    #[test]
    fn quantiles_of_places_lie_on_the_lines_between_the_middles_of_their_steps() {
        // One median at place 0, two at 2, one at 6: middles 1/8, 1/2, 7/8.
        let places = Places(vec![1, 0, 2, 0, 0, 0, 1]);
        for (tau, expected) in
            [(0.0, 0.0), (0.125, 0.0), (0.3125, 1.0), (0.5, 2.0), (0.6875, 4.0), (0.9, 6.0)]
        {
            assert!((places.quantile(tau) - expected).abs() < 1e-12, "{tau}");
        }
        let sorted = [10.0, 20.0, 20.0, 50.0];
        let at = [0.0, 1.0, 3.0, 5.0, 6.0, 9.0].map(|place| value_at(&sorted, place));
        assert_eq!(at, [10.0, 15.0, 20.0, 35.0, 50.0, 50.0]);
    }

    #[test]
    fn equal_values_are_not_stretched_towards_others() {
        let values: Vec<f64> = [vec![100.0; 25], vec![104.0; 5]].concat();
        assert_eq!(interval(&values, Resampling::Independent, 2000).estimate.ci95, Some([100.0, 100.0]));
    }

    #[test]
    fn the_correction_falls_back_to_percentiles_where_it_is_not_defined() {
        // All medians that leave out one value are equal: no acceleration.
        let mut values = [3.0; 11];
        values[0] = 1.0;
        let found = interval(&values, Resampling::Independent, 1000);
        assert_eq!((found.method, found.estimate.ci95), (Some(IntervalMethod::Percentile), Some([3.0, 3.0])));
        let spread: Vec<f64> = (0..30).map(f64::from).collect();
        assert_eq!(interval(&spread, Resampling::Independent, 1000).method, Some(IntervalMethod::Bca));
    }

    #[test]
    fn values_that_come_in_rounds_vary_as_the_rounds_do() {
        // Ten values a round, equal within: there are three observations, not thirty.
        let values: Vec<f64> = [10.0, 20.0, 30.0].iter().flat_map(|v| [*v; 10]).collect();
        let rounds = interval(&values, Resampling::Rounds(&[10, 10, 10]), 2000);
        assert_eq!(
            (rounds.method, rounds.estimate.ci95),
            (Some(IntervalMethod::Cluster), Some([10.0, 30.0]))
        );
        let blocks = interval(&values, Resampling::blocks_for(30), 2000);
        assert_eq!(
            (blocks.method, Resampling::blocks_for(30)),
            (Some(IntervalMethod::Block), Resampling::Blocks(4))
        );
    }

    proptest! {
        #[test]
        fn the_interval_holds_its_median_and_stays_among_the_values(
            values in prop::collection::vec(0.0_f64..1e12, MIN_FOR_INTERVAL..40), seed: u64, which in 0_usize..3,
        ) {
            let lengths = [values.len() / 2, values.len() - values.len() / 2];
            let how = [Resampling::Independent, Resampling::Blocks(3), Resampling::Rounds(&lengths)][which];
            let found = median_with_interval(&values, how, seed, 200).expect("not empty");
            let Estimate { median, ci95 } = found.estimate;
            let [low, high] = ci95.expect("enough");
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            prop_assert!(least <= low && low <= median && median <= high && high <= most);
        }

        #[test]
        fn estimates_scale_with_their_unit(values in prop::collection::vec(1.0_f64..1e6, MIN_FOR_INTERVAL..30), seed: u64) {
            let scaled: Vec<f64> = values.iter().map(|v| v * 1024.0).collect();
            let of = |values: &[f64]| {
                median_with_interval(values, Resampling::Independent, seed, 100).expect("not empty").estimate
            };
            let (one, other) = (of(&values).map(|v| v * 1024.0), of(&scaled));
            prop_assert!((one.median - other.median).abs() <= 1e-9 * other.median);
            for (one, other) in one.ci95.expect("enough").iter().zip(other.ci95.expect("enough")) {
                prop_assert!((one - other).abs() <= 1e-6 * other);
            }
        }

        #[test]
        fn a_resample_has_the_median_of_its_values(ranks in prop::collection::vec(0_usize..9, 1..40)) {
            let sorted = [1.0, 2.0, 2.0, 5.0, 7.0, 7.5, 11.0, 12.0, 90.0];
            let places: Vec<f64> = ranks.iter().map(|r| count(*r)).collect();
            let mut ranks = ranks;
            let place = middle_of(&mut ranks).expect("not empty");
            prop_assert_eq!(count(place) / 2.0, median(&places));
            prop_assert!(sorted.contains(&value_at(&sorted, count(place & !1))));
        }
    }
}
