//! The rate of the host's time stamp counter, for who has to tell it to a machine that can't find it out on a busy host.

use std::time::{Duration, Instant};

use crate::sys;

/// Ticks of the host's time stamp counter in a millisecond, counted over 20 of them by the host's clock.
///
/// Its error is that of the two readings at either end: a microsecond in 20 milliseconds, or 0.005 %.
#[must_use]
pub fn host_tsc_khz() -> u64 {
    const LONG_ENOUGH: Duration = Duration::from_millis(20);
    let (from, begin) = pair();
    loop {
        let (to, end) = pair();
        let took = end.duration_since(begin);
        if took >= LONG_ENOUGH {
            let ticks = u128::from(to.wrapping_sub(from)) * 1_000_000 / took.as_nanos();
            return u64::try_from(ticks).unwrap_or(u64::MAX);
        }
        std::thread::sleep(LONG_ENOUGH.saturating_sub(took));
    }
}

/// Counter and clock at one moment: of some readings those between which the least time passed.
fn pair() -> (u64, Instant) {
    const READINGS: usize = 16;
    let read = || {
        let (before, clock, after) = (sys::host_tsc(), Instant::now(), sys::host_tsc());
        let apart = after.wrapping_sub(before);
        (apart, before.wrapping_add(apart / 2), clock)
    };
    let mut best = read();
    for _ in 1..READINGS {
        let next = read();
        if next.0 < best.0 {
            best = next;
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_counts_agree() {
        let [one, two] = [host_tsc_khz(), host_tsc_khz()];
        assert!(one > 100_000, "{one}");
        assert!(one.abs_diff(two) * 1000 < one, "{one} and {two}");
    }
}
