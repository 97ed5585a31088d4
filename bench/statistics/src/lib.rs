//! Statistics: pure functions of numbers. A seed makes the intervals the same on every machine.
//!
//! What each of them is for, and why this one, is in `docs/method.md`.
#![forbid(unsafe_code)]

mod autocorrelation;
mod bootstrap;
mod describe;
mod holm;
mod sign_flip;
mod unpaired;
mod walsh;

pub use autocorrelation::{is_autocorrelated, lag1};
pub use bootstrap::{Interval, IntervalMethod, Resampling, median_with_interval};
pub use describe::{mad, mean_and_sd, median, outliers, quantile};
pub use holm::holm;
pub use sign_flip::sign_flip_p;
pub use unpaired::ratio_interval;
pub use walsh::hodges_lehmann;

use serde::{Deserialize, Serialize};

/// Resamples of a bootstrap interval, and random sign flips of a permutation test.
pub const RESAMPLES: usize = 10_000;
/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;
/// Values below which no interval is given: the median of five lies outside of all of them in 6 % of the cases, so that
/// not even least to most is a 95 % interval.
pub const MIN_FOR_INTERVAL: usize = 6;
/// Samples from which on the largest is a 95 % upper bound of the 95th percentile (0.95^59 < 0.05).
pub const MIN_FOR_P95: usize = 59;
/// Samples from which on the largest is a 95 % upper bound of the 99th percentile (0.99^299 < 0.05).
pub const MIN_FOR_P99: usize = 299;

/// A number with the ends of its 95 % interval; null for fewer than [`MIN_FOR_INTERVAL`] values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number.
    pub median: f64,
    /// Its interval.
    pub ci95: Option<[f64; 2]>,
}

impl Estimate {
    /// The same through a function that keeps the order, such as `exp`.
    #[must_use]
    pub fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { median: f(self.median), ci95: self.ci95.map(|ends| ends.map(f)) }
    }
}

/// A count as a number: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see above")]
#[must_use]
pub const fn count(n: usize) -> f64 {
    n as f64
}
