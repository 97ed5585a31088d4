//! The permutation test of paired values: if the arms were the same, each pair's difference could as well have the other sign.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{RESAMPLES, count};

/// Values up to which all sign patterns are tried.
const ALL_PATTERNS: usize = 13;

/// Two-sided p-value of the sum of the differences under random signs: all 2^n patterns where these are few, else 10 000 random
/// ones, with the observed pattern counted among them. 1 for nothing.
#[must_use]
pub fn sign_flip_p(differences: &[f64], seed: u64) -> f64 {
    let size: f64 = differences.iter().map(|d| d.abs()).sum();
    // Sums of the same terms in another order are ties.
    let observed = differences.iter().sum::<f64>().abs() - 1e-9 * size;
    if differences.len() <= ALL_PATTERNS {
        let patterns = 1_u64 << differences.len();
        let extreme = (0..patterns)
            .filter(|signs| flipped(differences, [*signs].into_iter()).abs() >= observed)
            .count();
        return count(extreme) / count(1 << differences.len());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let extreme = (0..RESAMPLES)
        .filter(|_| flipped(differences, std::iter::repeat_with(|| rng.random())).abs() >= observed)
        .count();
    count(extreme + 1) / count(RESAMPLES + 1)
}

/// The sum with a sign from each bit of the words.
fn flipped(differences: &[f64], mut words: impl Iterator<Item = u64>) -> f64 {
    let mut sum = 0.0;
    for chunk in differences.chunks(64) {
        let mut signs = words.next().unwrap_or(0);
        for d in chunk {
            sum += if signs & 1 == 1 { -d } else { *d };
            signs >>= 1;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(sign_flip_p(&[], 1), 1.0);
        // Of 64 patterns only all plus and all minus reach the sum.
        assert_eq!(sign_flip_p(&[1.0; 6], 1), 2.0 / 64.0);
        // 3 - 1: reached by +3+1, +3-1 and their opposites, that is by all four.
        assert_eq!(sign_flip_p(&[3.0, -1.0], 1), 1.0);
        assert_eq!(sign_flip_p(&[0.0; 40], 1), 1.0);
        assert_eq!(sign_flip_p(&[1.0; 40], 1), 1.0 / 10_001.0);
    }

    proptest! {
        #[test]
        fn it_is_a_probability_that_knows_no_unit_and_no_side(
            values in prop::collection::vec(-100.0_f64..100.0, 0..40), seed: u64,
        ) {
            let p = sign_flip_p(&values, seed);
            prop_assert!(p > 0.0 && p <= 1.0);
            let other: Vec<f64> = values.iter().map(|v| v * -8.0).collect();
            prop_assert_eq!(p, sign_flip_p(&other, seed));
        }
    }
}
