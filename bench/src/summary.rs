//! The summary: per metric each arm's estimates, and each arm against the first, pair by pair.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::comparison::{Comparison, METHOD};
use crate::comparison::{Series, compare};
use crate::paired::{NoiseFloor, resampling};
use crate::plan::Plan;
use crate::sample::{READY, Sample};
use crate::statistics::{
    self, IntervalMethod, MIN_FOR_P95, MIN_FOR_P99, RESAMPLES, lag1, mad, mean_and_sd, median_with_interval,
    outliers, quantile,
};

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds of the run's clock.
    Ns,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// Smallest share of a difference that is worth a word, and within which two arms are the same.
    #[must_use]
    pub const fn margin(self) -> f64 {
        match self {
            Self::Ns => 0.02,
            Self::Bytes => 0.01,
        }
    }
}

/// Something that a sample tells in one number.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its key in the record.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// How a sentence says that an arm has more of it: `NAME reaches ready`.
    pub verb: &'static str,
    of: fn(&Sample) -> Option<u64>,
}

/// Request to the first user instruction.
pub static FIRST_INSTRUCTION: Metric = Metric {
    name: "startup.request_to_first_user_insn",
    unit: Unit::Ns,
    verb: "reaches its first user instruction",
    of: |s| s.t_ns.as_ref()?.first_user_insn,
};
/// Request to the workload saying that it is ready.
pub static READINESS: Metric = Metric {
    name: "startup.request_to_ready",
    unit: Unit::Ns,
    verb: "is ready",
    of: |s| s.t_ns.as_ref()?.ready,
};
/// Request to the last resource freed, without the time in which isolab read the account of the waiting workload.
pub static CLEAN: Metric = Metric {
    name: "startup.request_to_clean",
    unit: Unit::Ns,
    verb: "is gone",
    of: |s| s.t_ns.as_ref()?.clean_without_reading(),
};
/// Request to the `execve` of the command.
pub static EXECVE: Metric = Metric {
    name: "startup.request_to_exec",
    unit: Unit::Ns,
    verb: "executes its command",
    of: |s| s.t_ns.as_ref()?.exec,
};
/// Memory charge when the workload was ready.
pub static CHARGE: Metric = Metric {
    name: "memory.charge",
    unit: Unit::Bytes,
    verb: "is charged",
    of: |s| Some(s.mem_bytes.as_ref().filter(|m| m.at == READY)?.memcg_current),
};
/// Highest memory charge.
pub static PEAK: Metric = Metric {
    name: "memory.peak",
    unit: Unit::Bytes,
    verb: "is charged at its peak",
    of: |s| Some(s.mem_bytes.as_ref()?.peak),
};

/// CPU time of the instance until the workload was ready.
pub static CPU: Metric = Metric {
    name: "cpu.instance",
    unit: Unit::Ns,
    verb: "has used CPU time when it is ready",
    of: |s| s.cpu_ns.get("instance").copied().filter(|_| s.t_ns.as_ref().is_some_and(|t| t.ready.is_some())),
};

/// Every metric, the headline ones first.
pub static METRICS: [&Metric; 7] = [&FIRST_INSTRUCTION, &READINESS, &CLEAN, &EXECVE, &CHARGE, &PEAK, &CPU];

impl Metric {
    /// The sample's number.
    #[must_use]
    pub fn of(&self, sample: &Sample) -> Option<u64> {
        (self.of)(sample)
    }
}

/// One metric over all arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Key of the [`Metric`].
    pub metric: String,
    /// What the numbers count.
    pub unit: Unit,
    /// Which direction is an advantage.
    pub better: String,
    /// Estimates of each arm that has the metric.
    pub arms: BTreeMap<String, ArmSummary>,
    /// The first arm against itself, where the plan has it run twice in each pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_floor: Option<NoiseFloor>,
    /// Every later arm against the first.
    pub comparisons: Vec<Comparison>,
}

/// One arm's estimates; a quantile that the number of samples can't carry is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    /// Samples.
    pub n: usize,
    /// The median.
    pub median: f64,
    /// Its interval; null for too few.
    pub ci95: Option<[f64; 2]>,
    /// How the interval was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<IntervalMethod>,
    /// Median absolute deviation.
    pub mad: f64,
    /// Mean: for other tools, no report leads with it. Null for one sample.
    #[serde(default)]
    pub mean: Option<f64>,
    /// Standard deviation. Null for one sample.
    #[serde(default)]
    pub sd: Option<f64>,
    /// 5th percentile; null for fewer than [`MIN_FOR_P95`].
    pub p5: Option<f64>,
    /// 95th percentile; null for fewer than [`MIN_FOR_P95`].
    pub p95: Option<f64>,
    /// 99th percentile; null for fewer than [`MIN_FOR_P99`].
    #[serde(default)]
    pub p99: Option<f64>,
    /// Least.
    pub min: f64,
    /// Most.
    pub max: f64,
    /// Tukey's outliers.
    pub outliers: Outliers,
    /// Correlation of each run with the arm's next one; null where there is none.
    #[serde(default)]
    pub lag1_autocorrelation: Option<f64>,
}

/// Values outside the fences, counted and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outliers {
    /// Beyond 1.5 interquartile ranges.
    pub mild: usize,
    /// Beyond 3.
    pub severe: usize,
}

impl ArmSummary {
    /// The estimates of these values, in the order in which they were measured; nothing for none.
    #[must_use]
    pub fn new(values: &[f64], seed: u64) -> Option<Self> {
        let found = median_with_interval(values, resampling(values), seed, RESAMPLES)?;
        let tail = |tau, fewest| (values.len() >= fewest).then(|| quantile(values, tau));
        let (mild, severe) = outliers(values);
        let (mean, sd) = mean_and_sd(values).unzip();
        Some(Self {
            n: values.len(),
            median: found.estimate.median,
            ci95: found.estimate.ci95,
            interval: found.method,
            mad: mad(values),
            mean,
            sd,
            p5: tail(0.05, MIN_FOR_P95),
            p95: tail(0.95, MIN_FOR_P95),
            p99: tail(0.99, MIN_FOR_P99),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            outliers: Outliers { mild, severe },
            lag1_autocorrelation: lag1(values),
        })
    }
}

/// Keys of the metrics that tables, sentences and pictures of a record are about. The first is what ratios are made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headline {
    /// Start-up: `ready` where every arm says it, else the first user instruction, else the command's `execve`.
    pub startup: String,
    /// Memory: the charge at `ready` where every arm says it, else the peak. At the end of a command that says nothing,
    /// one level's processes are gone and another's are not.
    pub memory: String,
}

/// The start-up metrics, in the order in which a record leads with one.
pub(crate) static STARTUP: [&Metric; 4] = [&READINESS, &FIRST_INSTRUCTION, &EXECVE, &CLEAN];

impl Headline {
    /// Those of these summaries.
    #[must_use]
    pub fn of(summaries: &[Summary]) -> Self {
        let arms =
            |metric: &Metric| summaries.iter().find(|s| s.metric == metric.name).map_or(0, |s| s.arms.len());
        let best = |of: &[&Metric], otherwise: &Metric| {
            let most = of.iter().map(|metric| arms(metric)).max().unwrap_or(0);
            let first = of.iter().find(|metric| most > 0 && arms(metric) == most);
            first.map_or(otherwise, |metric| metric).name.to_owned()
        };
        Self { startup: best(&STARTUP, &CLEAN), memory: best(&[&CHARGE, &PEAK], &PEAK) }
    }

    /// The metric of the ratios.
    #[must_use]
    pub fn startup(&self) -> &'static Metric {
        metric(&self.startup).unwrap_or(&CLEAN)
    }

    /// The metric of memory.
    #[must_use]
    pub fn memory(&self) -> &'static Metric {
        metric(&self.memory).unwrap_or(&PEAK)
    }
}

/// The metric of a key.
#[must_use]
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.into_iter().find(|metric| metric.name == name)
}

/// The summaries of every metric that at least one analysed sample has.
#[must_use]
pub fn summarise(plan: &Plan, samples: &[Sample]) -> Vec<Summary> {
    let found = METRICS.iter().filter_map(|metric| {
        let series = Series::of(metric, plan, samples);
        let arm = |arm: &String| Some((arm.clone(), ArmSummary::new(&series.values(arm)?, plan.seed)?));
        let arms: BTreeMap<String, ArmSummary> = plan.arms.iter().filter_map(arm).collect();
        (!arms.is_empty()).then_some((*metric, arms, series))
    });
    let found: Vec<(&Metric, BTreeMap<String, ArmSummary>, Series)> = found.collect();
    let series: Vec<(&Metric, &Series)> = found.iter().map(|(metric, _, series)| (*metric, series)).collect();
    let compared = compare(plan, &series);
    let summaries = found.into_iter().zip(compared);
    summaries
        .map(|((metric, arms, _), (noise_floor, comparisons))| Summary {
            metric: metric.name.to_owned(),
            unit: metric.unit,
            better: "less".to_owned(),
            arms,
            noise_floor,
            comparisons,
        })
        .collect()
}

/// The analysed sample of an arm that lies nearest to the arm's median: a real run, so its phases add up.
#[must_use]
pub fn median_run<'a>(arm: &str, metric: &Metric, samples: &'a [Sample]) -> Option<&'a Sample> {
    let own: Vec<(&Sample, f64)> = samples
        .iter()
        .filter(|s| s.arm == arm && s.analysed())
        .filter_map(|s| Some((s, number(metric.of(s)?))))
        .collect();
    let middle = statistics::median(&own.iter().map(|(_, v)| *v).collect::<Vec<_>>());
    own.into_iter()
        .min_by(|(_, a), (_, b)| (a - middle).abs().total_cmp(&(b - middle).abs()))
        .map(|(sample, _)| sample)
}

/// Exact below 2^53: 104 days in nanoseconds, 8 PiB in bytes.
#[expect(clippy::cast_precision_loss, reason = "see the sentence above")]
pub(crate) const fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Slot;
    use crate::timeline::Times;

    fn sample(arm: &str, pair: u32, ready: u64) -> Sample {
        let slot = Slot { seq: 0, pair, pos: 0, arm: arm.to_owned(), warmup: pair == 0, control: false };
        let t_ns = Some(Times { ready: Some(ready), clean: Some(ready * 2), ..Times::default() });
        Sample { ok: true, t_ns, ..Sample::failed(&slot, String::new()) }
    }

    fn plan() -> Plan {
        Plan::new(vec!["container".to_owned(), "vm".to_owned()], 6, 1, 3).expect("two arms")
    }

    fn samples() -> Vec<Sample> {
        // Drift: each pair slower than the last, the vm always 100 after and 3 times the container.
        (0..7).flat_map(|p| [sample("container", p, 50), sample("vm", p, 150 + u64::from(p))]).collect()
    }

    #[test]
    fn leaves_warm_up_and_failed_runs_out() {
        let mut samples = samples();
        samples[3].ok = false;
        let ready = &summarise(&plan(), &samples)[0];
        assert_eq!(ready.metric, "startup.request_to_ready");
        assert_eq!((ready.arms["container"].n, ready.arms["vm"].n, ready.comparisons[0].pairs), (6, 5, 5));
    }

    #[test]
    fn compares_pair_by_pair_with_known_answers() {
        let summaries = summarise(&plan(), &samples());
        let compare = &summaries[0].comparisons[0];
        assert_eq!((compare.difference.median, compare.resolved), (103.5, true));
        let ratio = compare.ratio_b_over_a.expect("no zero").median;
        assert!((ratio - (153.0_f64 * 154.0).sqrt() / 50.0).abs() < 1e-12);
        assert_eq!(summaries[0].arms["vm"].p95, None);
        assert_eq!((summaries[0].arms["vm"].min, summaries[0].arms["vm"].max), (151.0, 156.0));
    }

    #[test]
    fn an_arm_against_itself_is_not_resolved() {
        let samples: Vec<Sample> = (1..13)
            .flat_map(|p| {
                [sample("container", p, 50 + u64::from(p % 3)), sample("vm", p, 50 + u64::from(p % 2))]
            })
            .collect();
        assert!(!summarise(&plan(), &samples)[0].comparisons[0].resolved);
    }

    #[test]
    fn fewer_than_six_pairs_resolve_nothing() {
        let summaries = summarise(&plan(), &samples()[..6]);
        let compare = &summaries[0].comparisons[0];
        assert_eq!((compare.pairs, compare.resolved, compare.difference.ci95), (2, false, None));
        assert!(compare.ratio_b_over_a.is_some_and(|r| r.ci95.is_none()));
        assert_eq!(summaries[0].arms["vm"].ci95, None);
    }

    #[test]
    fn the_headline_is_what_every_arm_says() {
        let all = summarise(&plan(), &samples());
        assert_eq!(Headline::of(&all).startup, "startup.request_to_ready");
        let mut silent = samples();
        for sample in silent.iter_mut().filter(|s| s.arm == "container") {
            sample.t_ns = Some(Times { exec: Some(20), clean: Some(90), ..Times::default() });
        }
        for sample in silent.iter_mut().filter(|s| s.arm == "vm") {
            sample.t_ns.as_mut().expect("times").exec = Some(80);
        }
        assert_eq!(Headline::of(&summarise(&plan(), &silent)).startup, "startup.request_to_exec");
        assert_eq!(Headline::of(&[]).memory, "memory.peak");
    }

    #[test]
    fn the_median_run_is_a_run_that_happened() {
        let samples = samples();
        let run = median_run("vm", &READINESS, &samples).expect("five runs");
        assert_eq!((run.pair, run.t_ns.as_ref().and_then(|t| t.ready)), (3, Some(153)));
    }
}
