//! A loop of fixed work: how fast the processor runs, where nothing else tells it.

use std::hint::black_box;

use crate::clock::now_ns;

/// Rounds of one run: about 3 ms.
const ROUNDS: u64 = 3_000_000;
/// Runs, of which the fastest counts: the least disturbed.
const RUNS: usize = 9;

/// Nanoseconds of the loop.
pub(super) fn time_ns() -> u64 {
    let run = || {
        let start = now_ns();
        let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
        for _ in 0..ROUNDS {
            // Each round needs the one before: nothing to do side by side.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        black_box(state);
        now_ns().saturating_sub(start)
    };
    (0..RUNS).map(|_| run()).min().unwrap_or(0)
}
