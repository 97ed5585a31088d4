//! Time and randomness.

use super::{Errno, call};

const MONOTONIC: i32 = 1;

/// Nanoseconds of `CLOCK_MONOTONIC`, by a real system call.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = [0_u64; 2];
    // With this clock and a good pointer the call can't fail.
    let _ = call!(228, MONOTONIC, &mut time);
    time[0].wrapping_mul(1_000_000_000).wrapping_add(time[1])
}

/// Sleeps until this moment of `CLOCK_MONOTONIC`.
///
/// # Errors
/// A signal came.
pub fn sleep_until_ns(at: u64) -> Result<(), Errno> {
    const ABSOLUTE: i32 = 1;
    let time = [at / 1_000_000_000, at % 1_000_000_000];
    call!(230, MONOTONIC, ABSOLUTE, &time, 0_usize).map(drop)
}

/// Fills with random bytes; waits until the kernel has enough.
///
/// # Errors
/// As `getrandom(2)`.
pub fn random(into: &mut [u8]) -> Result<usize, Errno> {
    let len = into.len();
    call!(318, into, len, 0)
}
