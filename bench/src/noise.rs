//! Whether the machine held still while it was measured on: drift of the runs (T10) and noise of the host (T12).
//!
//! A check that can't be judged is absent: with few runs, on a clock that counts instructions, on a kernel that does
//! not say.

use crate::comparability::{CheckLevel, Evidence, Found};
use crate::environment::{ClockKind, Noise};
use crate::statistics::{median, ratio_interval};
use crate::summary::{Metric, STARTUP};

/// Fewest runs of an arm whose first and last third are compared.
pub const MIN_FOR_DRIFT: usize = 15;
/// Drift below this share is nothing to speak of.
const DRIFT: f64 = 0.02;
/// Share of the time in which some task may wait for a CPU.
const PRESSURE: f64 = 0.05;
/// Share of all CPU time that a hypervisor may give to others.
const STEAL: f64 = 0.005;
/// So many times its limit, stolen time refuses.
const REFUSES: f64 = 3.0;
/// Stolen time is counted in ticks of 10 ms: fewer than these say nothing about a short measuring.
const MIN_STEAL_TICKS: u64 = 5;
const TICKS_PER_SECOND: f64 = 100.0;
/// Share by which a fixed loop may change its speed.
const FREQUENCY: f64 = 0.02;
const RESAMPLES: usize = 2000;

/// There, nothing outside the lab moves the clock, and what waits inside are the runs themselves.
fn noise<'a>(e: &Evidence<'a>) -> Option<&'a Noise> {
    (e.host.clock != ClockKind::Instructions).then_some(&e.host.noise)
}

/// The last third of an arm's runs against its first: the whole interval lies beyond the limit.
pub(crate) fn drift(e: Evidence<'_>) -> Option<Found> {
    let all = |m: &&Metric| e.samples.iter().filter(|s| s.analysed()).all(|s| m.of(s).is_some());
    let metric = STARTUP.into_iter().find(all)?;
    let moved = e.plan.arms.iter().filter_map(|arm| Some((arm, ratio_of_thirds(e, arm, metric)?)));
    let moved: Vec<(&String, [f64; 3])> = moved.collect();
    if moved.is_empty() {
        return None;
    }
    let drifts = |ends: &[f64; 3]| ends[0] > 1.0 + DRIFT || ends[2] < 1.0 / (1.0 + DRIFT);
    let list = moved.iter().filter(|(_, ends)| drifts(ends)).map(|(arm, [low, middle, high])| {
        format!("{arm}: last third {middle:.2}x [{low:.2}, {high:.2}] the first")
    });
    let list: Vec<String> = list.collect();
    Some(if list.is_empty() {
        Found::pass("first and last third of the runs agree")
    } else {
        Found::fail(format!("not stationary: {}", list.join(", ")))
    })
}

fn ratio_of_thirds(e: Evidence<'_>, arm: &str, metric: &Metric) -> Option<[f64; 3]> {
    let own = e.samples.iter().filter(|s| s.arm == arm && s.analysed());
    #[expect(clippy::cast_precision_loss, reason = "below 2^53: 104 days")]
    let values: Vec<f64> = own.filter_map(|s| metric.of(s)).map(|n| n as f64).collect();
    if values.len() < MIN_FOR_DRIFT || values.contains(&0.0) {
        return None;
    }
    let third = values.len() / 3;
    let (first, last) = (&values[..third], &values[values.len() - third..]);
    let [low, high] = ratio_interval(first, last, 0.025, e.plan.seed, RESAMPLES)?;
    Some([low, median(last) / median(first), high])
}

/// The kernel counts isolab's own processes as well, so that this flags and never refuses.
pub(crate) fn pressure(e: Evidence<'_>) -> Option<Found> {
    let noise = noise(&e)?;
    // The kernel's counter runs ahead of the clock by what it has not yet shared out.
    let share = share(noise.psi_cpu_some_us?, noise.elapsed_us?)?.min(1.0);
    let detail = format!("some task waited for a CPU in {:.0} % of the time", share * 100.0);
    Some(Found::fails_if(share > PRESSURE, detail))
}

pub(crate) fn steal(e: Evidence<'_>) -> Option<Found> {
    let noise = noise(&e)?;
    let (ticks, cpus) = (noise.steal_ticks?, e.host.cpus_online?);
    let share = share(ticks, noise.elapsed_us?)? * 1e6 / TICKS_PER_SECOND / f64::from(cpus);
    let detail = format!("the hypervisor gave {:.1} % of the CPU time to others", share * 100.0);
    let found = Found::fails_if(share > STEAL && ticks >= MIN_STEAL_TICKS, detail);
    Some(if share > STEAL * REFUSES { found.at(CheckLevel::Refuse) } else { found })
}

pub(crate) fn swap(e: Evidence<'_>) -> Option<Found> {
    let pages = noise(&e)?.swapped_in_pages?;
    Some(Found::fails_if(pages > 0, format!("{pages} pages were read from swap")))
}

/// A fixed loop of the processor before and after all runs.
pub(crate) fn frequency(e: Evidence<'_>) -> Option<Found> {
    let [before, after] = noise(&e)?.fixed_loop_ns?;
    let moved = share(after, before)? - 1.0;
    let word = if moved < 0.0 { "less" } else { "more" };
    let detail =
        format!("a fixed loop took {:.1} % {word} time after the runs than before", moved.abs() * 100.0);
    Some(Found::fails_if(moved.abs() > FREQUENCY, detail))
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53: 285 years in microseconds")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
