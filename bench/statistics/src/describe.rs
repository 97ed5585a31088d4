//! One sample described: centre, spread, tails.

use statrs::statistics::{Data, OrderStatistics, Statistics};

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

/// Mean and standard deviation of the population that the values come from (divisor n - 1); nothing for fewer than two values.
#[must_use]
pub fn mean_and_sd(values: &[f64]) -> Option<(f64, f64)> {
    (values.len() >= 2).then(|| (values.mean(), values.std_dev()))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

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
        assert_eq!(mean_and_sd(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).map(|(m, _)| m), Some(5.0));
        assert_eq!(mean_and_sd(&[1.0, 3.0]), Some((2.0, 2.0_f64.sqrt())));
        assert_eq!(mean_and_sd(&[1.0]), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_ordered_and_lie_among_the_values(values in prop::collection::vec(-1e9_f64..1e9, 1..80)) {
            let at: Vec<f64> = [0.0, 0.05, 0.5, 0.95, 0.99, 1.0].map(|tau| quantile(&values, tau)).to_vec();
            prop_assert!(at.is_sorted());
            let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
            prop_assert!(least <= at[0] && at[5] <= most);
        }

        #[test]
        fn spread_does_not_move_with_the_centre(values in prop::collection::vec(0_i32..10_000, 2..50), shift in 0_i32..10_000) {
            let plain: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
            let moved: Vec<f64> = plain.iter().map(|v| v + f64::from(shift)).collect();
            prop_assert_eq!(mad(&plain), mad(&moved));
            let (sd, other) = (mean_and_sd(&plain).expect("two").1, mean_and_sd(&moved).expect("two").1);
            prop_assert!((sd - other).abs() <= 1e-6 * (1.0 + sd));
        }

        #[test]
        fn one_far_value_is_a_severe_outlier(values in prop::collection::vec(90.0_f64..110.0, 8..60)) {
            let mut values = values;
            let (_, before) = outliers(&values);
            values.push(1e6);
            let (_, after) = outliers(&values);
            prop_assert!(after > before || before > 0);
        }
    }
}
