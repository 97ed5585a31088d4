//! Numbers for a reader. The unit of time follows the clock: lab figures never look like milliseconds of a machine.

use crate::environment::{ClockKind, Host, HostClass, NS_PER_INSTRUCTION};
use crate::summary::Unit;

/// In what a report shows numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Milliseconds.
    Ms,
    /// Milliseconds of the lab's clock.
    LabMs,
    /// Million instructions.
    Mi,
    /// Mebibytes.
    MiB,
}

impl Shown {
    /// How times of this machine are shown.
    pub(crate) const fn time(host: &Host) -> Self {
        match (host.clock, host.class) {
            (ClockKind::Instructions, _) => Self::Mi,
            (ClockKind::Monotonic, HostClass::EmulatedLab) => Self::LabMs,
            (ClockKind::Monotonic, _) => Self::Ms,
        }
    }

    /// How a metric's unit is shown on this machine.
    pub(crate) const fn of(unit: Unit, host: &Host) -> Self {
        match unit {
            Unit::Ns => Self::time(host),
            Unit::Bytes => Self::MiB,
        }
    }

    /// The unit's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ms => "ms",
            Self::LabMs => "~ms",
            Self::Mi => "Mi",
            Self::MiB => "MiB",
        }
    }

    /// A raw value in this unit.
    pub(crate) fn scaled(self, raw: f64) -> f64 {
        raw / match self {
            Self::Ms | Self::LabMs => 1e6,
            Self::Mi => 1e6 * f64::from(NS_PER_INSTRUCTION),
            Self::MiB => 1_048_576.0,
        }
    }

    /// Value and unit.
    pub(crate) fn with_unit(self, raw: f64) -> String {
        format!("{} {}", digits(self.scaled(raw)), self.name())
    }

    /// The interval with as many decimals as its middle.
    pub(crate) fn interval(self, middle: f64, ends: [f64; 2]) -> String {
        let places = places(self.scaled(middle));
        let [low, high] = ends.map(|end| self.scaled(end));
        format!("[{low:.places$}, {high:.places$}]")
    }
}

/// About four significant digits, at most three decimals.
pub(crate) fn digits(value: f64) -> String {
    let places = places(value);
    format!("{value:.places$}")
}

/// A ratio with its interval, for a sentence.
pub(crate) fn times(ratio: f64, ends: [f64; 2]) -> String {
    let places = places(ratio).min(2);
    let [low, high] = ends;
    format!("{ratio:.places$}x [{low:.places$}, {high:.places$}]")
}

/// A ratio alone.
pub(crate) fn factor(ratio: f64) -> String {
    let places = places(ratio).min(2);
    format!("{ratio:.places$}x")
}

fn places(value: f64) -> usize {
    match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    }
}

/// An integer of a sample as a number: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
pub(crate) const fn raw(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits_and_the_unit_of_the_clock() {
        assert_eq!(Shown::Ms.with_unit(1_400_000.0), "1.400 ms");
        assert_eq!(Shown::Mi.with_unit(44_500_000.0), "22.25 Mi");
        assert_eq!(Shown::LabMs.with_unit(2.0e9), "2000 ~ms");
        assert_eq!(Shown::MiB.with_unit(794_624.0), "0.758 MiB");
        assert_eq!(Shown::Ms.interval(93_650_000.0, [93e6, 94.5e6]), "[93.00, 94.50]");
        assert_eq!(times(67.9, [66.5, 69.2]), "67.90x [66.50, 69.20]");
        assert_eq!(factor(2000.0), "2000x");
    }
}
