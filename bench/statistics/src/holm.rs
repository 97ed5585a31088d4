//! Many tests at once: Holm's step-down correction keeps the chance of any false finding at that of one test.

use super::count;

/// The corrected p-values, in the order of the given ones.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut corrected = vec![1.0; p_values.len()];
    let mut least = 0.0_f64;
    for (place, which) in order.into_iter().enumerate() {
        least = least.max((p_values[which] * count(p_values.len() - place)).min(1.0));
        corrected[which] = least;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;

    #[test]
    fn known_answers() {
        // R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (one, other) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((one - other).abs() < 1e-12, "{corrected:?}");
        }
        assert_eq!((holm(&[]), holm(&[0.2])), (vec![], vec![0.2]));
    }

    proptest! {
        #[test]
        fn none_gets_smaller_and_their_order_stays(p_values in prop::collection::vec(0.0_f64..=1.0, 0..20)) {
            let corrected = holm(&p_values);
            for (i, p) in p_values.iter().enumerate() {
                prop_assert!(corrected[i] >= *p && corrected[i] <= 1.0);
                for (j, q) in p_values.iter().enumerate() {
                    prop_assert!(p > q || corrected[i] <= corrected[j]);
                }
            }
        }
    }
}
