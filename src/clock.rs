//! The one clock of all stamps, and the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// Now, in nanoseconds since 1970.
///
/// # Errors
/// The clock says something else.
pub(crate) fn now_unix_ns() -> anyhow::Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
    u64::try_from(since.as_nanos()).context("read the clock")
}
