//! Whether numbers that were read inside follow the load that the planted process makes.

use std::fmt;

use isolab_images::probe::{LOAD_SHAPE, LOAD_THREADS};

/// Fewer samples show nothing.
const LEAST_SAMPLES: usize = 40;
/// More than the program takes.
const MOST_SAMPLES: usize = 400;
/// Samples from then on are not read, in milliseconds.
const LATEST_MS: u64 = 600_000;
/// Of a series that follows; with any it is less.
const LEAST_CORRELATION: f64 = 0.5;
/// Parts of a step in which the beginning of the shape is looked for: the clocks inside and outside may differ.
const SHIFTS: u64 = 8;

/// How load is made and looked for on a host.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// Milliseconds of a step.
    pub(super) step_ms: u32,
    /// How often it is looked for, at most, until it is seen.
    pub(super) looks: u32,
}

/// A host with other tasks, which may hide it: long steps, and looked for again.
const AMONG_OTHERS: Plan = Plan { step_ms: 200, looks: 3 };
/// Where the clock counts instructions, nothing else runs, and all of the load is instructions.
const ALONE: Plan = Plan { step_ms: 40, looks: 1 };

/// What this host needs.
pub(super) const fn plan(counted: bool) -> Plan {
    if counted { ALONE } else { AMONG_OTHERS }
}

/// Whether series were read and one of them does not follow the load.
pub(super) fn is_hidden<'a>(mut series: impl Iterator<Item = &'a str>, step_ms: u32) -> bool {
    series.any(|text| follows(text, step_ms).is_some_and(|follows| !follows.is_visible()))
}

/// How a series follows the load at the shift where it does so best.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Follows {
    /// Pearson's correlation.
    correlation: f64,
    /// The mean while there is load, less the mean while there is none.
    difference: f64,
}

impl Follows {
    /// It does: in shape, and by half of the threads at least.
    pub(super) fn is_visible(self) -> bool {
        self.correlation >= LEAST_CORRELATION && self.difference >= f64::from(LOAD_THREADS) / 2.0
    }
}

impl fmt::Display for Follows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "correlation {:.2}, {:.1} more tasks under load", self.correlation, self.difference)
    }
}

/// The load, in words.
pub(super) fn made(step_ms: u32) -> String {
    format!("{LOAD_THREADS} threads on and off, in {} steps of {step_ms} ms", LOAD_SHAPE.len())
}

/// Reads `MILLISECONDS:NUMBER` words and compares them with the load's shape; nothing where there are too few of them.
pub(super) fn follows(series: &str, step_ms: u32) -> Option<Follows> {
    let sample = |word: &str| {
        let (ms, value) = word.split_once(':')?;
        let (ms, value) = (ms.parse::<u64>().ok()?, value.parse::<u32>().ok()?);
        (ms < LATEST_MS).then_some((ms, f64::from(value)))
    };
    let samples: Vec<(u64, f64)> = series.split(' ').filter_map(sample).take(MOST_SAMPLES).collect();
    if samples.len() < LEAST_SAMPLES {
        return None;
    }
    let step_ms = u64::from(step_ms.max(1));
    let shifts = LOAD_SHAPE.len() as u64 * SHIFTS;
    let best = (0..shifts).map(|shift| at_shift(&samples, step_ms, shift * step_ms / SHIFTS));
    best.max_by(|a, b| a.correlation.total_cmp(&b.correlation))
}

fn at_shift(samples: &[(u64, f64)], step_ms: u64, shift: u64) -> Follows {
    let is_on = |ms: u64| {
        let step = (ms + shift) / step_ms % LOAD_SHAPE.len() as u64;
        usize::try_from(step).is_ok_and(|step| LOAD_SHAPE[step])
    };
    let (on, off): (Vec<_>, Vec<_>) = samples.iter().partition(|(ms, _)| is_on(*ms));
    let count = |part: &[(u64, f64)]| part.iter().fold(0.0, |n, _| n + 1.0);
    let mean = |part: &[(u64, f64)]| part.iter().map(|(_, value)| value).sum::<f64>() / count(part);
    let (all, on_share) = (mean(samples), count(&on) / count(samples));
    let difference = mean(&on) - mean(&off);
    let variance = samples.iter().map(|(_, value)| (value - all).powi(2)).sum::<f64>() / count(samples);
    let correlation = difference * (on_share * (1.0 - on_share)).sqrt() / variance.sqrt();
    // Of a series that never changes there is none.
    if correlation.is_finite() { Follows { correlation, difference } } else { Follows::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_MS: u32 = AMONG_OTHERS.step_ms;

    fn follows(series: &str) -> Option<Follows> {
        super::follows(series, STEP_MS)
    }

    /// Four samples in each step of so many milliseconds over two periods, of a load that began `late` milliseconds before.
    fn series(step_ms: u32, late: u64, value: impl Fn(bool, u64) -> u64) -> String {
        let step_ms = u64::from(step_ms);
        let sample = |n: u64| {
            let ms = n * step_ms / 4;
            let on = LOAD_SHAPE[usize::try_from((ms + late) / step_ms).expect("small") % LOAD_SHAPE.len()];
            format!("{ms}:{} ", value(on, n))
        };
        (0..56).map(sample).collect()
    }

    #[test]
    fn a_load_is_found_whenever_it_began_and_among_others() {
        for (step_ms, late) in [AMONG_OTHERS, ALONE]
            .into_iter()
            .map(|plan| plan.step_ms)
            .flat_map(|ms| [0, 130, 700, 1399].map(|late| (ms, late)))
        {
            // Up to eight more tasks, in no relation to it.
            let value = |on, n| u64::from(on) * u64::from(LOAD_THREADS) + n * 7 % 9;
            let follows = super::follows(&series(step_ms, late, value), step_ms).expect("enough");
            assert!(follows.is_visible() && follows.correlation > 0.8, "{follows}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_none() {
        for (name, text) in [
            ("never changes", series(STEP_MS, 0, |_, _| 1)),
            ("follows by too little", series(STEP_MS, 0, |on, _| 1 + u64::from(on))),
            ("changes by itself", series(STEP_MS, 0, |_, n| n * n % 41)),
            ("the other way round", series(STEP_MS, 0, |on, n| if on { n % 3 } else { 6 })),
        ] {
            assert!(
                !follows(&text).expect("enough").is_visible(),
                "{name}: {}",
                follows(&text).expect("enough")
            );
        }
    }

    #[test]
    fn a_load_that_one_of_two_series_does_not_show_is_looked_for_again() {
        let load = series(STEP_MS, 0, |on, _| u64::from(on) * u64::from(LOAD_THREADS));
        let none = series(STEP_MS, 0, |_, _| 1);
        let hidden = |all: &[&str]| is_hidden(all.iter().copied(), STEP_MS);
        assert!(hidden(&[&load, &none]) && !hidden(&[&load, &load]));
        // What can't be read shows nothing the next time, either.
        assert!(!hidden(&["", &load]) && !hidden(&[]));
    }

    #[test]
    fn nonsense_and_too_little_are_none() {
        for text in [
            "",
            "1:2",
            "a:b c",
            &"1:2 ".repeat(39),
            &"99999999999:1 ".repeat(99),
            &"5:99999999999 ".repeat(99),
        ] {
            assert_eq!(follows(text), None, "{text}");
        }
        // All at one moment.
        assert!(!follows(&"5:7 ".repeat(999)).expect("enough").is_visible());
    }
}
