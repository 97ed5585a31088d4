//! Two samples that share no pairs: the ratio of their medians.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{median, quantile};

/// Ends of the percentile bootstrap interval of the ratio of two medians, `of` over `base`, for which each sample is drawn again by
/// itself; `tail` is the share beyond each end. Nothing where a resample of the base has a median that is not above zero.
#[must_use]
pub fn ratio_interval(base: &[f64], of: &[f64], tail: f64, seed: u64, resamples: usize) -> Option<[f64; 2]> {
    if base.is_empty() || of.is_empty() {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn: Vec<f64> = Vec::new();
    let mut draw = |values: &[f64]| {
        drawn.clear();
        drawn.extend((0..values.len()).map(|_| values[rng.random_range(0..values.len())]));
        median(&drawn)
    };
    let mut ratios = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        let below = draw(base);
        if below <= 0.0 {
            return None;
        }
        ratios.push(draw(of) / below);
    }
    Some([quantile(&ratios, tail), quantile(&ratios, 1.0 - tail)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let base: Vec<f64> = (0..30).map(|i| 1000.0 + f64::from(i % 5)).collect();
        let twice: Vec<f64> = base.iter().map(|v| v * 2.0).collect();
        let [low, high] = ratio_interval(&base, &twice, 0.025, 1, 2000).expect("thirty values");
        assert!((1.99..=2.0).contains(&low) && (2.0..2.01).contains(&high), "{low} {high}");
        assert_eq!(ratio_interval(&[5.0; 9], &[10.0; 7], 0.025, 1, 100), Some([2.0, 2.0]));
        for (base, of) in [(&[][..], &[1.0][..]), (&[1.0], &[]), (&[0.0, 0.0, 1.0], &[1.0])] {
            assert_eq!(ratio_interval(base, of, 0.025, 1, 100), None, "{base:?} {of:?}");
        }
    }

    #[test]
    fn a_smaller_tail_is_a_wider_interval() {
        let values: Vec<f64> = (0..30).map(|i| 1000.0 + f64::from(i * 7 % 31)).collect();
        let width = |tail| {
            let [low, high] = ratio_interval(&values, &values, tail, 1, 10_000).expect("thirty values");
            high - low
        };
        assert!(width(0.025 / 9.0) > width(0.025));
    }
}
