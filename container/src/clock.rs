//! Host time: `CLOCK_MONOTONIC`, and stamps of the time stamp counter put on it.

use rustix::time::{ClockId, clock_gettime};

use crate::sys;

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (s, ns) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    s * 1_000_000_000 + ns
}

/// The two clocks read at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockPair {
    /// Time stamp counter.
    pub tsc: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub ns: u64,
}

impl ClockPair {
    /// Reads both; of three tries the one that was disturbed least.
    #[must_use]
    pub fn read() -> Self {
        let mut best = (u64::MAX, Self { tsc: 0, ns: 0 });
        for _ in 0..3 {
            let before = sys::tsc();
            let ns = now_ns();
            let width = sys::tsc().wrapping_sub(before);
            if width < best.0 {
                best = (width, Self { tsc: before.wrapping_add(width / 2), ns });
            }
        }
        best.1
    }

    /// A counter value between two readings, on the line through them. Values outside are put on the nearer end: a
    /// stamp that claims to be earlier than the start or later than its arrival is wrong.
    #[must_use]
    pub fn between(start: Self, end: Self, tsc: u64) -> u64 {
        let ticks = u128::from(end.tsc.saturating_sub(start.tsc));
        let ns = u128::from(end.ns.saturating_sub(start.ns));
        let at = u128::from(tsc.saturating_sub(start.tsc)).min(ticks);
        if ticks == 0 {
            return start.ns;
        }
        start.ns + u64::try_from(at * ns / ticks).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_a_counter_value_on_the_line_between_two_readings() {
        let start = ClockPair { tsc: 1_000, ns: 50 };
        let end = ClockPair { tsc: 4_000, ns: 1_050 };
        let at = |tsc| ClockPair::between(start, end, tsc);
        assert_eq!([at(1_000), at(2_500), at(4_000)], [50, 550, 1_050]);
        assert_eq!([at(0), at(9_000)], [50, 1_050], "outside is put on the nearer end");
        assert_eq!(ClockPair::between(start, start, 7), 50);
    }
}
