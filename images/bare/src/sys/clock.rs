//! Time and randomness.

use super::{Errno, Fd, call};

const REALTIME: i32 = 0;
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

/// Nanoseconds of `CLOCK_REALTIME`.
#[must_use]
pub fn realtime_ns() -> u64 {
    let mut time = [0_u64; 2];
    // With this clock and a good pointer the call can't fail.
    let _ = call!(228, REALTIME, &mut time);
    time[0].wrapping_mul(1_000_000_000).wrapping_add(time[1])
}

/// Sets `CLOCK_REALTIME`.
///
/// # Errors
/// As `clock_settime(2)`.
pub fn set_realtime_ns(to: u64) -> Result<(), Errno> {
    let time = [to / 1_000_000_000, to % 1_000_000_000];
    call!(227, REALTIME, &time).map(drop)
}

/// Random bytes for the kernel's generator (`struct rand_pool_info`).
#[derive(Debug)]
#[repr(C)]
struct Pool<const N: usize> {
    bits: i32,
    len: i32,
    bytes: [u8; N],
}

/// Mixes these bytes into the kernel's generator, counted as random, and has all it gives from now on depend on them.
///
/// # Errors
/// As the requests `RNDADDENTROPY` and `RNDRESEEDCRNG` on `device`.
pub fn reseed<const N: usize>(device: Fd, bytes: [u8; N]) -> Result<(), Errno> {
    const ADD: u32 = 0x4008_5203;
    const RESEED: u32 = 0x5207;
    let pool = Pool { bits: 8 * N as i32, len: N as i32, bytes };
    call!(16, device, ADD, &pool)?;
    call!(16, device, RESEED, 0_usize).map(drop)
}
