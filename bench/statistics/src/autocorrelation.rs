//! Whether a value depends on the one before it.

use super::count;

/// Correlation from which on neighbours are not taken as independent.
const LIMIT: f64 = 0.2;
/// What chance gives in n independent values: one-sided 5 % of a normal, over the root of n.
const CHANCE: f64 = 1.645;

/// Correlation of each value with the next one; nothing for fewer than three values or for equal ones.
#[must_use]
pub fn lag1(values: &[f64]) -> Option<f64> {
    let mean = values.iter().sum::<f64>() / count(values.len());
    let spread: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let together: f64 = values.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum();
    let correlation = together / spread;
    (values.len() >= 3 && spread > 0.0 && correlation.is_finite()).then_some(correlation)
}

/// Whether the values are correlated over 0.2, and over what chance would give in so many.
#[must_use]
pub fn is_autocorrelated(values: &[f64]) -> bool {
    lag1(values).is_some_and(|r| r > LIMIT && r > CHANCE / count(values.len()).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;

    #[test]
    fn known_answers() {
        let alternating: Vec<f64> = (0..40).map(|i| f64::from(i % 2)).collect();
        assert!((lag1(&alternating).expect("not equal") + 39.0 / 40.0).abs() < 1e-12);
        let wave: Vec<f64> = (0..60).map(|i| (f64::from(i) / 8.0).sin()).collect();
        assert!(is_autocorrelated(&wave) && !is_autocorrelated(&alternating));
        assert_eq!((lag1(&[1.0, 2.0]), lag1(&[3.0; 9])), (None, None));
        // So much in nine values is what chance gives.
        let few = [1.0, 2.0, 3.0, 4.0, 5.0, 2.0, 1.0, 2.0, 1.0];
        assert!(lag1(&few).is_some_and(|r| r > 0.2) && !is_autocorrelated(&few));
    }

    proptest! {
        #[test]
        fn it_is_a_correlation(values in prop::collection::vec(-1e6_f64..1e6, 3..60)) {
            if let Some(r) = lag1(&values) {
                prop_assert!((-1.0..=1.0).contains(&r));
            }
        }
    }
}
