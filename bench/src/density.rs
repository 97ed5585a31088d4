//! Density: what one more idle instance costs, as the slope of memory against the number of instances.
//!
//! Instances are started one after the other and stay; at each [`steps`] number the sum of their charges and the
//! memory of the machine that can't be reclaimed are read. The slope is Theil and Sen's median of the slopes of all
//! pairs of points, which no single bad reading moves; the first instance pays for what all share, so intercept and slope
//! are told apart, and the largest distance of a point from the line is told as well.

mod meminfo;

use serde::{Deserialize, Serialize};

pub use meminfo::SystemMemory;

use crate::statistics::{median, quantile};

/// Most instances when the user names no number.
pub const MOST_ON_HOST: u32 = 16;
/// Most virtual machines in the lab, each of which starts for seconds there.
pub const MOST_VMS_IN_LAB: u32 = 4;
/// Single starts that the starts of later steps are held against; one before them is not counted.
pub const SINGLES: usize = 5;
/// Starts of a step from which on it is judged: the 95th percentile of fewer is the word of one.
pub const FEWEST_JUDGED: usize = 4;
/// Readings of the machine's memory whose median counts: it also moves by what others do.
pub const LOOKS: usize = 5;
/// How long idle instances are watched, in seconds: a kernel's slowest regular work comes about once a second.
pub const IDLE_SECONDS: u64 = 5;
/// A start may take this many times the 95th percentile of the first step's.
pub const SLOWER: f64 = 2.0;
/// Least share of the machine's memory that must stay available, in percent.
pub const LEAST_AVAILABLE_PERCENT: u64 = 10;

/// One level's curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Density {
    /// The level.
    pub level: String,
    /// What ended the ramp.
    pub stopped_by: StopRule,
    /// What went wrong, where something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The readings.
    pub points: Vec<Point>,
    /// Line through the sums of charges; absent for fewer than two points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Slope>,
    /// Line through the machine's own memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Slope>,
    /// What the instances of the last point cost while they do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
}

/// CPU time of idle instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// How many.
    pub instances: u32,
    /// How long was looked.
    pub window_ns: u64,
    /// What all their processes took in that time.
    pub cpu_ns: u64,
}

impl Idle {
    /// Share of one CPU that one instance takes.
    #[must_use]
    pub fn share(&self) -> f64 {
        use crate::suite::exact;
        exact(self.cpu_ns) / exact(self.window_ns) / f64::from(self.instances)
    }
}

/// What ended a ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopRule {
    /// As many instances as were asked for.
    MaxInstances,
    /// The 95th percentile of the starts of a step is over twice that of single starts.
    SlowStarts,
    /// A tenth of the machine's memory or less is available.
    LittleMemory,
    /// An instance could not be started.
    StartFailed,
    /// A signal.
    Interrupted,
}

/// A reading with so many instances running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Instances.
    pub instances: u32,
    /// From request to ready of each that was started for this step; for the first one instance, of each of [`SINGLES`]
    /// that were there alone, one after the other. The launcher is there already.
    pub start_ns: Vec<u64>,
    /// Sum of the charges of their cgroups; null where they have none.
    pub charge_bytes: Option<u64>,
    /// Memory of the machine that can't be reclaimed.
    pub system_bytes: u64,
    /// What the machine has left.
    pub available_bytes: u64,
}

/// A line through points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// Bytes for one more instance.
    pub bytes_per_instance: f64,
    /// Bytes of none.
    pub intercept_bytes: f64,
    /// Largest distance of a point from the line.
    pub residual_bytes: f64,
}

/// The numbers of instances at which is read: 1, 2, 4 and so on, and the most.
pub fn steps(most: u32) -> impl Iterator<Item = u32> {
    let powers = std::iter::successors(Some(1_u32), |n| n.checked_mul(2));
    powers.take_while(move |n| *n < most).chain(std::iter::once(most))
}

impl Slope {
    /// Theil and Sen's line; nothing for fewer than two different numbers of instances.
    #[must_use]
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let slopes: Vec<f64> = points
            .iter()
            .enumerate()
            .flat_map(|(i, a)| points[i + 1..].iter().map(move |b| (b.0 - a.0, b.1 - a.1)))
            .filter(|(x, _)| *x != 0.0)
            .map(|(x, y)| y / x)
            .collect();
        if slopes.is_empty() {
            return None;
        }
        let slope = median(&slopes);
        let intercept = median(&points.iter().map(|(x, y)| y - slope * x).collect::<Vec<_>>());
        let distance = points.iter().map(|(x, y)| (y - slope * x - intercept).abs());
        Some(Self {
            bytes_per_instance: slope,
            intercept_bytes: intercept,
            residual_bytes: distance.fold(0.0, f64::max),
        })
    }
}

impl Density {
    /// The curve of these points.
    #[must_use]
    pub fn new(level: &str, points: Vec<Point>, stopped_by: StopRule, reason: Option<String>) -> Self {
        let against = |of: fn(&Point) -> Option<u64>| {
            let known: Vec<(f64, f64)> = points
                .iter()
                .filter_map(|p| Some((f64::from(p.instances), crate::suite::exact(of(p)?))))
                .collect();
            Slope::through(&known)
        };
        Self {
            level: level.to_owned(),
            stopped_by,
            reason,
            charge: against(|p| p.charge_bytes),
            system: against(|p| Some(p.system_bytes)),
            points,
            idle: None,
        }
    }

    /// With what they cost while they do nothing.
    #[must_use]
    pub fn with_idle(mut self, idle: Option<Idle>) -> Self {
        self.idle = idle;
        self
    }
}

impl Point {
    /// Whether the starts of this step are slower than the rule allows, held against those of single instances.
    #[must_use]
    pub fn is_slow(&self, single: &Self) -> bool {
        self.start_ns.len() >= FEWEST_JUDGED && p95(&self.start_ns) > SLOWER * p95(&single.start_ns)
    }
}

/// The 95th percentile of these starts; for few it lies near the slowest.
#[must_use]
pub fn p95(starts: &[u64]) -> f64 {
    quantile(&starts.iter().copied().map(crate::suite::exact).collect::<Vec<_>>(), 0.95)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_up_to_the_most() {
        assert_eq!(steps(20).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 20]);
        assert_eq!(steps(1).collect::<Vec<_>>(), [1]);
        assert_eq!(steps(8).collect::<Vec<_>>(), [1, 2, 4, 8]);
    }

    #[test]
    fn one_bad_reading_does_not_move_the_line() {
        let mut points: Vec<(f64, f64)> =
            (1..=8).map(|n| (f64::from(n), 100.0 + 10.0 * f64::from(n))).collect();
        points[5].1 = 9000.0;
        let line = Slope::through(&points).expect("eight points");
        assert!((line.bytes_per_instance - 10.0).abs() < 1e-9, "{line:?}");
        assert!((line.intercept_bytes - 100.0).abs() < 1e-9);
        assert!((line.residual_bytes - (9000.0 - 160.0)).abs() < 1e-9);
    }

    #[test]
    fn a_single_point_is_no_line() {
        assert_eq!(Slope::through(&[(1.0, 5.0)]), None);
        assert_eq!(Slope::through(&[(2.0, 5.0), (2.0, 9.0)]), None);
    }

    fn starts(start_ns: &[u64]) -> Point {
        Point {
            instances: 1,
            start_ns: start_ns.to_vec(),
            charge_bytes: None,
            system_bytes: 0,
            available_bytes: 0,
        }
    }

    #[test]
    fn the_share_of_a_cpu_is_that_of_one_instance() {
        let idle = Idle { instances: 4, window_ns: 1_000_000_000, cpu_ns: 8_000_000 };
        assert!((idle.share() - 0.002).abs() < 1e-12);
    }

    #[test]
    fn only_a_step_of_several_starts_that_are_over_twice_as_slow_is_slow() {
        let single = starts(&[10; SINGLES]);
        assert!(!starts(&[100; FEWEST_JUDGED - 1]).is_slow(&single));
        assert!(!starts(&[20; 8]).is_slow(&single));
        assert!(starts(&[21; 8]).is_slow(&single));
    }

    proptest! {
        #[test]
        fn every_line_is_found_exactly(slope in -1e6_f64..1e6, at in -1e6_f64..1e6, n in 2_u32..20) {
            let points: Vec<(f64, f64)> = steps(n).map(|x| (f64::from(x), at + slope * f64::from(x))).collect();
            let line = Slope::through(&points).expect("two different numbers");
            prop_assert!((line.bytes_per_instance - slope).abs() <= 1e-6 * (1.0 + slope.abs() + at.abs()));
            prop_assert!(line.residual_bytes <= 1e-5 * (1.0 + slope.abs() + at.abs()) * f64::from(n));
        }
    }
}
