//! Random numbers that a failed test can be repeated with.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A xorshift generator whose seed is printed; `ISOLAB_TEST_SEED` chooses it.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A new seed for each run, printed.
    pub(crate) fn seeded(test: &str) -> Self {
        let chosen = std::env::var("ISOLAB_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed: u64 = chosen.unwrap_or_else(|| RandomState::new().build_hasher().finish()).max(1);
        println!("{test}: ISOLAB_TEST_SEED={seed}");
        Self(seed)
    }

    /// The same numbers each time.
    pub(crate) const fn fixed(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end as u64)).expect("below the end")
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// `n` moments, one at random in each n-th part of this many microseconds.
    pub(crate) fn moments(&mut self, n: u64, span_us: u64) -> Vec<u64> {
        let part = (span_us / n).max(1);
        (0..n).map(|i| i * part + self.next() % part).collect()
    }
}
