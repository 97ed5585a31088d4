//! The same start for each run, where the clock counts instructions.
//!
//! Each run leaves the kernel's allocators in a state of its own, which the next one pays for. So each run comes after the same
//! one, the built-in image's null workload as a bare process, which is no part of any result.
//!
//! The kernel frees network namespaces, superblocks and cgroups of an instance after the instance is gone, in threads of its
//! own. Without a wait the next run pays for it, by up to a fifth of a container's start in the lab. The kernel tells
//! nobody when it is done; but a machine on which nothing is switched to has done it.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use rustix::thread::{
    ClockId, NanosleepRelativeResult, Timespec, clock_nanosleep_absolute, clock_nanosleep_relative,
};

use crate::clock::now_ns;

/// How long the machine is looked at.
const LOOK_NS: i64 = 20_000_000;
/// Switches in that time that are nothing: our own nap, the timer's.
const QUIET: u64 = 12;
/// Looks in a row that must be quiet.
const LOOKS: u32 = 2;
/// Looks after which a run starts all the same.
const MAX_LOOKS: u32 = 50;
/// Where the clock counts instructions, a run begins at a multiple of this: the timer then ticks at the same places in
/// each run.
const GRID_NS: u64 = 100_000_000;
/// The first one at a multiple of this since the machine's start.
const FIRST_NS: u64 = 20_000_000_000;

/// Makes runs begin alike.
#[derive(Debug)]
pub(crate) struct Settle {
    /// No run was made yet.
    first: bool,
}

impl Settle {
    /// Before the first run.
    pub(crate) const fn new() -> Self {
        Self { first: true }
    }

    /// Leaves the kernel as a bare process leaves it.
    ///
    /// # Errors
    /// isolab can't be started, or its run failed.
    pub(super) fn rinse() -> io::Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["run", "--on", "host", "--level", "process", "demo", "--", "/isolab-work", "null"]);
        let ended = command.stdin(Stdio::null()).output()?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let why = said.lines().last().unwrap_or_default().trim_start_matches("isolab: ");
        Err(io::Error::other(format!("run of demo before the measured one: {}: {why}", ended.status)))
    }

    /// Waits for the kernel and for a point of the clock from which a run may begin.
    pub(super) fn wait(&mut self) {
        quiet();
        align(std::mem::take(&mut self.first));
    }
}

/// Waits until the machine is quiet, for as long as can be expected.
fn quiet() {
    let mut quiet = 0;
    for _ in 0..MAX_LOOKS {
        let Some(before) = switches() else { return };
        let nap = Timespec { tv_sec: 0, tv_nsec: LOOK_NS };
        // Interrupted by a signal, it was a shorter look.
        let whole = matches!(clock_nanosleep_relative(ClockId::Monotonic, &nap), NanosleepRelativeResult::Ok);
        let Some(after) = switches() else { return };
        quiet = if whole && after.saturating_sub(before) <= QUIET { quiet + 1 } else { 0 };
        if quiet == LOOKS {
            return;
        }
    }
}

/// Waits for the next point of the grid; the first run waits for a point that is far apart from others, so that the kernel's
/// slower clocks stand at the same places, too. In an idle machine that counts instructions the time passes at once.
fn align(first: bool) {
    let grid = if first { FIRST_NS } else { GRID_NS };
    let next = (now_ns() / grid + 1) * grid;
    let second = 1_000_000_000;
    let (Ok(tv_sec), Ok(tv_nsec)) = (i64::try_from(next / second), i64::try_from(next % second)) else {
        return;
    };
    // A signal ends it early, and ends the comparison.
    let _ = clock_nanosleep_absolute(ClockId::Monotonic, &Timespec { tv_sec, tv_nsec });
}

/// Context switches of the machine since it started.
fn switches() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("ctxt ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_switches() {
        let before = switches().expect("Linux counts them");
        std::thread::yield_now();
        std::thread::spawn(|| ()).join().expect("a thread");
        assert!(switches().expect("Linux counts them") > before);
    }

    #[test]
    fn a_point_of_the_grid_lies_ahead_and_near() {
        let before = now_ns();
        align(false);
        assert!((before + 1..before + 10 * GRID_NS).contains(&now_ns()));
    }
}
