//! Estimators: pure functions of numbers. A seed makes the intervals the same on every machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::statistics::{Data, OrderStatistics};

/// Resamples of a bootstrap interval.
pub const RESAMPLES: usize = 10_000;
/// Samples from which on the largest is a 95 % upper bound of the 95th percentile (0.95^59 < 0.05).
pub const MIN_FOR_P95: usize = 59;

/// Values below which no interval is given: a bootstrap of fewer covers far less than it says.
pub const MIN_FOR_INTERVAL: usize = 5;

/// A number with the ends of its 95 % interval; null for fewer than [`MIN_FOR_INTERVAL`] values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number.
    pub median: f64,
    /// Its interval.
    pub ci95: Option<[f64; 2]>,
}

/// The median; NaN for nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    Data::new(values.to_vec()).median()
}

/// A quantile by Hyndman and Fan's definition 8; NaN for nothing.
#[must_use]
pub fn quantile(values: &[f64], tau: f64) -> f64 {
    Data::new(values.to_vec()).quantile(tau)
}

/// Median absolute deviation from the median, not scaled.
#[must_use]
pub fn mad(values: &[f64]) -> f64 {
    let centre = median(values);
    median(&values.iter().map(|v| (v - centre).abs()).collect::<Vec<_>>())
}

/// Values outside Tukey's fences: beyond 1.5 and beyond 3 interquartile ranges. Named, never dropped.
#[must_use]
pub fn outliers(values: &[f64]) -> (usize, usize) {
    let (q1, q3) = (quantile(values, 0.25), quantile(values, 0.75));
    let beyond = |k: f64| {
        let reach = k * (q3 - q1);
        values.iter().filter(|&&v| v < q1 - reach || v > q3 + reach).count()
    };
    let severe = beyond(3.0);
    (beyond(1.5) - severe, severe)
}

/// The median with the percentile bootstrap interval; nothing for nothing, no interval for too few.
#[must_use]
pub fn median_with_interval(values: &[f64], seed: u64, resamples: usize) -> Option<Estimate> {
    let first = *values.first()?;
    if values.len() < MIN_FOR_INTERVAL {
        return Some(Estimate { median: median(values), ci95: None });
    }
    if values.iter().all(|v| *v == first) {
        return Some(Estimate { median: first, ci95: Some([first, first]) });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = vec![0.0; values.len()];
    let medians: Vec<f64> = (0..resamples)
        .map(|_| {
            draw.fill_with(|| values[rng.random_range(0..values.len())]);
            Data::new(&mut draw[..]).median()
        })
        .collect();
    let middle = median(values);
    // With few resamples an end can fall on the wrong side of the estimate by rounding.
    let ci95 = [quantile(&medians, 0.025).min(middle), quantile(&medians, 0.975).max(middle)];
    Some(Estimate { median: middle, ci95: Some(ci95) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;

    #[test]
    fn known_answers() {
        let values = [4.0, 1.0, 3.0, 2.0, 100.0];
        assert_eq!((median(&values), mad(&values)), (3.0, 1.0));
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        let numbers: Vec<f64> = (1..=10).map(f64::from).collect();
        // Type 8: h = (n + 1/3) p + 1/3 = 10.15, past the last value.
        assert_eq!(quantile(&numbers, 0.95), 10.0);
        assert!((quantile(&numbers, 0.25) - 2.916_666).abs() < 1e-5);
        let spread: Vec<f64> = numbers.iter().copied().chain([18.0, 60.0]).collect();
        assert_eq!(outliers(&spread), (0, 1));
    }

    #[test]
    fn the_interval_of_a_constant_is_the_constant() {
        let estimate = median_with_interval(&[5.0; 12], 1, 1000);
        assert_eq!(estimate, Some(Estimate { median: 5.0, ci95: Some([5.0, 5.0]) }));
        assert_eq!(median_with_interval(&[], 1, 1000), None);
    }

    #[test]
    fn too_few_values_have_no_interval() {
        for values in [&[7.0][..], &[7.0; 4], &[1.0, 2.0, 9.0, 11.0]] {
            let estimate = median_with_interval(values, 1, 1000).expect("not empty");
            assert_eq!(estimate, Estimate { median: median(values), ci95: None });
        }
        assert!(median_with_interval(&[1.0, 2.0, 3.0, 4.0, 5.0], 1, 1000).is_some_and(|e| e.ci95.is_some()));
    }

    #[test]
    fn the_interval_covers_the_true_median_about_as_often_as_it_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(2026);
        let trials = 400;
        // exp(sum of uniforms): skewed like a start-up time, with median exp(3).
        let covered = (0..trials)
            .filter(|&trial| {
                let values: Vec<f64> =
                    (0..30).map(|_| (0..6).map(|_| rng.random::<f64>()).sum::<f64>().exp()).collect();
                let [low, high] =
                    median_with_interval(&values, trial, 500).expect("30 values").ci95.expect("enough");
                (low..=high).contains(&3.0_f64.exp())
            })
            .count();
        let share = f64::from(u32::try_from(covered).expect("few trials")) / 400.0;
        assert!((0.92..=0.98).contains(&share), "covered {share}");
    }

    proptest! {
        #[test]
        fn the_interval_holds_its_median_and_stays_among_the_values(
            values in prop::collection::vec(0.0_f64..1e12, MIN_FOR_INTERVAL..40), seed: u64,
        ) {
            let Estimate { median, ci95 } = median_with_interval(&values, seed, 200).expect("not empty");
            let [low, high] = ci95.expect("enough");
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            prop_assert!(least <= low && low <= median && median <= high && high <= most);
        }

        #[test]
        fn estimates_scale_with_their_unit(values in prop::collection::vec(1.0_f64..1e6, MIN_FOR_INTERVAL..30), seed: u64) {
            let scaled: Vec<f64> = values.iter().map(|v| v * 1024.0).collect();
            let one = median_with_interval(&values, seed, 100).expect("not empty");
            let other = median_with_interval(&scaled, seed, 100).expect("not empty");
            prop_assert!((one.median * 1024.0 - other.median).abs() <= 1e-9 * other.median);
            let (one, other_low) = (one.ci95.expect("enough"), other.ci95.expect("enough")[0]);
            prop_assert!((one[0] * 1024.0 - other_low).abs() <= 1e-9 * other.median);
        }
    }
}
