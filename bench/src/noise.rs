//! Whether the machine held still while it was measured on: drift of the runs (T10) and noise of the host (T12).
//!
//! A check that can't be judged is absent: with few runs, on a clock that counts instructions, on a kernel that does
//! not say.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::comparability::{CheckLevel, CheckStatus, Evidence};
use crate::environment::{ClockKind, Noise};
use crate::statistics::{median, quantile};
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
const RESAMPLES: usize = 2000;

/// Every check of this module.
pub(crate) const NAMES: [&str; 4] = ["T10-drift", "T12-cpu-pressure", "T12-steal", "T12-swap"];

/// Name, meaning of a failure, result, what was seen.
pub(crate) type Found = (&'static str, CheckLevel, CheckStatus, String);

/// The checks that can be judged.
pub(crate) fn checks(e: Evidence<'_>) -> Vec<Found> {
    // There, nothing outside the lab moves the clock, and what waits inside are the runs themselves.
    let counted = e.host.clock == ClockKind::Instructions;
    let noise = if counted { vec![] } else { vec![pressure(e), steal(e), swap(e)] };
    [drift(e)].into_iter().chain(noise).flatten().collect()
}

fn judged(id: &'static str, level: CheckLevel, fails: bool, detail: String) -> Option<Found> {
    Some((id, level, if fails { CheckStatus::Fail } else { CheckStatus::Pass }, detail))
}

/// The last third of an arm's runs against its first: the whole interval lies beyond the limit.
fn drift(e: Evidence<'_>) -> Option<Found> {
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
    let still = || "first and last third of the runs agree".to_owned();
    let detail = if list.is_empty() { still() } else { format!("not stationary: {}", list.join(", ")) };
    judged(NAMES[0], CheckLevel::Flag, !list.is_empty(), detail)
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
    let mut rng = ChaCha8Rng::seed_from_u64(e.plan.seed);
    let mut drawn = |from: &[f64]| {
        let draw: Vec<f64> = from.iter().map(|_| from[rng.random_range(0..from.len())]).collect();
        median(&draw)
    };
    let ratios: Vec<f64> = (0..RESAMPLES).map(|_| drawn(last) / drawn(first)).collect();
    Some([quantile(&ratios, 0.025), median(last) / median(first), quantile(&ratios, 0.975)])
}

/// The kernel counts isolab's own processes as well, so that this flags and never refuses.
fn pressure(e: Evidence<'_>) -> Option<Found> {
    let Noise { psi_cpu_some_us, elapsed_us, .. } = e.host.noise;
    let share = share(psi_cpu_some_us?, elapsed_us?)?;
    let detail = format!("some task waited for a CPU in {:.0} % of the time", share * 100.0);
    judged(NAMES[1], CheckLevel::Flag, share > PRESSURE, detail)
}

fn steal(e: Evidence<'_>) -> Option<Found> {
    let Noise { steal_ticks, elapsed_us, .. } = e.host.noise;
    let (ticks, cpus) = (steal_ticks?, e.host.cpus_online?);
    let share = share(ticks, elapsed_us?)? * 1e6 / TICKS_PER_SECOND / f64::from(cpus);
    let level = if share > STEAL * REFUSES { CheckLevel::Refuse } else { CheckLevel::Flag };
    let detail = format!("the hypervisor gave {:.1} % of the CPU time to others", share * 100.0);
    judged(NAMES[2], level, share > STEAL && ticks >= MIN_STEAL_TICKS, detail)
}

fn swap(e: Evidence<'_>) -> Option<Found> {
    let pages = e.host.noise.swapped_in_pages?;
    judged(NAMES[3], CheckLevel::Flag, pages > 0, format!("{pages} pages were read from swap"))
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53: 285 years in microseconds")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
