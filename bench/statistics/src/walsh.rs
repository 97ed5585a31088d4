//! The Hodges-Lehmann shift: the median of all averages of two values (Walsh averages), with the interval that inverts the
//! signed-rank test. Against outliers nearly as firm as the median, and sharper where values are symmetric.

use statrs::distribution::{ContinuousCDF, Normal};

use super::{CONFIDENCE, Estimate, MIN_FOR_INTERVAL, count};

/// Values up to which the distribution of the signed-rank statistic is counted out.
const COUNTED_OUT: usize = 50;

/// The shift with its interval; nothing for nothing or for values that are not finite.
#[must_use]
pub fn hodges_lehmann(values: &[f64]) -> Option<Estimate> {
    if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let averages = sorted.len() * (sorted.len() + 1) / 2;
    let median = f64::midpoint(average(&sorted, averages.div_ceil(2)), average(&sorted, averages / 2 + 1));
    let ends = (sorted.len() >= MIN_FOR_INTERVAL).then(|| {
        let left_out = left_out_of_each_end(sorted.len());
        [average(&sorted, left_out), average(&sorted, averages + 1 - left_out)]
    });
    Some(Estimate { median, ci95: ends })
}

/// The k-th smallest Walsh average, from 1: bisection over all numbers, so that the averages need no memory.
fn average(sorted: &[f64], k: usize) -> f64 {
    let (mut low, mut high) = (key(sorted[0]), key(sorted[sorted.len() - 1]));
    while low < high {
        let middle = low + (high - low) / 2;
        if averages_up_to(sorted, number(middle)) >= k { high = middle } else { low = middle + 1 }
    }
    number(low)
}

/// Pairs (with repetition) whose average is at most `limit`, in one walk from both ends.
fn averages_up_to(sorted: &[f64], limit: f64) -> usize {
    let mut end = sorted.len();
    let mut found = 0;
    for (i, value) in sorted.iter().enumerate() {
        while end > i && f64::midpoint(*value, sorted[end - 1]) > limit {
            end -= 1;
        }
        if end <= i {
            break;
        }
        found += end - i;
    }
    found
}

/// Numbers as integers in the same order.
fn key(value: f64) -> u64 {
    let bits = value.to_bits();
    if value.is_sign_negative() { !bits } else { bits | 1 << 63 }
}

fn number(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key })
}

/// The rank of the interval's lower end among the averages: the 2.5 % quantile of the signed-rank statistic, at least 1.
fn left_out_of_each_end(n: usize) -> usize {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    if n <= COUNTED_OUT {
        return exact_quantile(n, tail).max(1);
    }
    let z = Normal::standard().inverse_cdf(1.0 - tail);
    let n = count(n);
    let below = n * (n + 1.0) / 4.0 - z * (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive from 6 values on, below n^2 / 4"
    )]
    let below = below.floor() as usize;
    below.max(1)
}

/// The least sum of ranks whose distribution function reaches `tail`.
fn exact_quantile(n: usize, tail: f64) -> usize {
    let most = n * (n + 1) / 2;
    let mut ways = vec![0.0_f64; most + 1];
    ways[0] = 1.0;
    for rank in 1..=n {
        for sum in (rank..=most).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    let all: f64 = ways.iter().sum();
    let mut seen = 0.0;
    ways.iter()
        .position(|way| {
            seen += way;
            seen >= tail * all
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::median;

    fn all_averages(values: &[f64]) -> Vec<f64> {
        let mut all: Vec<f64> = (0..values.len())
            .flat_map(|i| (i..values.len()).map(move |j| f64::midpoint(values[i], values[j])))
            .collect();
        all.sort_unstable_by(f64::total_cmp);
        all
    }

    #[test]
    fn known_answers() {
        // Averages of 1, 2, 9: 1, 1.5, 2, 5, 5.5, 9.
        assert_eq!(hodges_lehmann(&[1.0, 2.0, 9.0]), Some(Estimate { median: 3.5, ci95: None }));
        assert_eq!(hodges_lehmann(&[]), None);
        assert_eq!(hodges_lehmann(&[1.0, f64::NAN]), None);
        // R's qsignrank(0.025, n).
        for (n, quantile) in [(6, 1), (10, 9), (20, 53), (30, 138), (50, 435)] {
            assert_eq!(exact_quantile(n, 0.025), quantile, "{n}");
        }
        // The counted and the approximate rank meet.
        assert!(left_out_of_each_end(50).abs_diff(left_out_of_each_end(51)) < 25);
    }

    proptest! {
        #[test]
        fn it_is_the_median_of_all_averages(values in prop::collection::vec(-1000.0_f64..1000.0, 1..40)) {
            let found = hodges_lehmann(&values).expect("not empty");
            prop_assert!((found.median - median(&all_averages(&values))).abs() < 1e-9);
        }

        #[test]
        fn each_rank_is_found(values in prop::collection::vec(-50_i32..50, 1..15)) {
            let mut values: Vec<f64> = values.into_iter().map(f64::from).collect();
            values.sort_unstable_by(f64::total_cmp);
            for (k, expected) in all_averages(&values).into_iter().enumerate() {
                prop_assert_eq!(average(&values, k + 1), expected);
            }
        }

        #[test]
        fn a_shift_of_all_values_shifts_it(values in prop::collection::vec(0.0_f64..100.0, 6..60), by in -50.0_f64..50.0) {
            let one = hodges_lehmann(&values).expect("not empty").map(|v| v + by);
            let other = hodges_lehmann(&values.iter().map(|v| v + by).collect::<Vec<_>>()).expect("not empty");
            prop_assert!((one.median - other.median).abs() < 1e-9);
            let (one, other) = (one.ci95.expect("enough"), other.ci95.expect("enough"));
            prop_assert!((one[0] - other[0]).abs() < 1e-9 && (one[1] - other[1]).abs() < 1e-9);
            prop_assert!(one[0] <= one[1]);
        }
    }
}
