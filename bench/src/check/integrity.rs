//! A record against itself.

use serde_json::Value;
use ulid::Ulid;

use super::Line;
use crate::comparability::{CheckLevel, CheckStatus, Comparability, Evidence, judge};
use crate::crosscheck::crosschecks;
use crate::plan::{MAX_PAIRS, Plan};
use crate::record::Record;
use crate::sample::{MemBytes, Sample};
use crate::summary::{Headline, summarise};

/// Apart by no more than this share, two numbers are the same: sums in another order differ in the last digits.
const TOLERANCE: f64 = 1e-9;

pub(super) fn lines(record: &Record) -> Vec<Line> {
    vec![
        identity(record),
        order(record),
        phases(record),
        between(record),
        stamps(record),
        accounts(record),
        instrument(record),
        summary(record),
        verdict(record),
    ]
}

fn identity(record: &Record) -> Line {
    let demand = "the run's id holds the time of its start";
    let Ok(id) = Ulid::from_string(&record.run.id) else { return Line::new(false, demand, "it is no ULID") };
    let apart = id.timestamp_ms().abs_diff(record.run.started_unix_ns / 1_000_000);
    Line::new(apart <= 1, demand, format!("{apart} ms apart"))
}

/// The order is a function of the seed: a sample that was left out or moved shows.
fn order(record: &Record) -> Line {
    let demand = "the runs follow the plan's seed";
    let plan = &record.run.plan;
    if plan.pairs > MAX_PAIRS || plan.warmup_pairs > MAX_PAIRS || plan.arms.is_empty() {
        return Line::new(false, demand, "the plan is none that isolab makes");
    }
    let slots = plan.order();
    let differs = |(slot, s): (&crate::plan::Slot, &Sample)| {
        (slot.seq, slot.pair, slot.pos, &slot.arm, slot.warmup) != (s.seq, s.pair, s.pos, &s.arm, s.warmup)
    };
    let wrong = slots.iter().zip(&record.samples).position(differs);
    let (planned, found) = (slots.len(), record.samples.len());
    match wrong {
        Some(at) => Line::new(false, demand, format!("run {at} is not the one that the plan has there")),
        None if found > planned => Line::new(false, demand, format!("{found} runs, {planned} planned")),
        None => Line::new(true, demand, format!("{found} of {planned} runs")),
    }
}

fn phases(record: &Record) -> Line {
    let wrong = |s: &&Sample| {
        let sum = s.phase_ns.values().try_fold(0_u64, |sum, ns| sum.checked_add(*ns));
        s.ok && s.t_ns.as_ref().is_none_or(|t| t.clean.is_none() || t.clean != sum)
    };
    let bad = record.samples.iter().filter(wrong).count();
    Line::new(bad == 0, "the phases of each run add up to its whole time", format!("{bad} runs where not"))
}

/// Each phase lies between two moments, which the record holds as well.
fn between(record: &Record) -> Line {
    let wrong = |s: &&Sample| {
        let arm = record.arms.get(&s.arm);
        let phases = s.t_ns.as_ref().zip(arm).map(|(t, arm)| t.phases(&arm.level));
        phases.is_some_and(|phases| phases != s.phase_ns)
    };
    let bad = record.samples.iter().filter(wrong).count();
    let demand = "each phase is the time between its two moments";
    Line::new(bad == 0, demand, format!("{bad} runs where not"))
}

/// The named parts of an account and its remainder are the charge; read while the workload goes on they may be more.
fn accounts(record: &Record) -> Line {
    let wrong = |m: &&MemBytes| {
        let (named, charge) = (m.named(), m.memcg_current);
        named.checked_add(m.remainder) != Some(charge.max(named))
    };
    let bad = record.samples.iter().filter_map(|s| s.mem_bytes.as_ref()).filter(wrong).count();
    let demand = "the parts of each memory account add up to the charge";
    Line::new(bad == 0, demand, format!("{bad} accounts where not"))
}

/// The instrument's checks of itself are those that its samples give.
fn instrument(record: &Record) -> Line {
    let again = crosschecks(&record.samples, record.host.cpus_online);
    let bad = again.iter().filter(|check| !record.crosschecks.contains(check)).count();
    let demand = "the instrument's checks of itself follow from the samples";
    Line::new(bad == 0, demand, format!("{bad} of {} differ", again.len()))
}

fn stamps(record: &Record) -> Line {
    let disordered = |s: &&Sample| {
        s.t_ns.as_ref().is_some_and(|t| {
            let stamps = [
                t.main,
                t.run_begin,
                t.guest_kernel_done,
                t.resumed,
                t.init,
                t.exec,
                t.first_user_insn,
                t.ready,
                t.exit,
                t.clean,
            ];
            let given: Vec<u64> = stamps.into_iter().flatten().collect();
            t.request != 0 || !given.is_sorted()
        })
    };
    let bad = record.samples.iter().filter(disordered).count();
    Line::new(bad == 0, "the moments of each run follow each other", format!("{bad} runs where not"))
}

fn summary(record: &Record) -> Line {
    let demand = "each number of the summary follows from the raw samples";
    if !bounded(&record.run.plan) {
        return Line::new(false, demand, "the plan is none that isolab makes");
    }
    if record.headline != Some(Headline::of(&record.summary)) {
        return Line::new(false, demand, "what it leads with does not");
    }
    let mut again = Record { summary: summarise(&record.run.plan, &record.samples), ..record.clone() };
    again.quote();
    let (Ok(again), Ok(recorded)) =
        (serde_json::to_value(&again.summary), serde_json::to_value(&record.summary))
    else {
        return Line::new(false, demand, "it holds a number that is none");
    };
    let mut count = 0;
    match unlike(&recorded, &again, "summary", &mut count) {
        Some(place) => Line::new(false, demand, format!("{place} does not")),
        None => Line::new(count > 0, demand, format!("{count} values computed again")),
    }
}

fn verdict(record: &Record) -> Line {
    let demand = "the verdict follows from the record's evidence";
    let arms = &record.arms;
    if record.run.plan.arms.iter().any(|arm| !arms.contains_key(arm)) || !bounded(&record.run.plan) {
        return Line::new(false, demand, "an arm of the plan is not described");
    }
    // What was varied on purpose speaks against nothing.
    let again = if record.vary.is_empty() {
        judge(Evidence {
            plan: &record.run.plan,
            host: &record.host,
            arms,
            workload: &record.workload,
            samples: &record.samples,
        })
    } else {
        let changes = record.vary.iter().map(|variation| variation.change.clone()).collect();
        record.clone().with_changes(changes).comparability
    };
    let recorded = &record.comparability;
    let found = format!("recorded {:?}, judged again {:?}", recorded.verdict, again.verdict).to_lowercase();
    let results = |of: &Comparability| -> Vec<(String, CheckLevel, CheckStatus)> {
        of.checks.iter().map(|check| (check.id.clone(), check.level, check.status)).collect()
    };
    Line::new(again.verdict == recorded.verdict && results(&again) == results(recorded), demand, found)
}

const fn bounded(plan: &Plan) -> bool {
    plan.pairs <= MAX_PAIRS && plan.warmup_pairs <= MAX_PAIRS
}

/// The first place where the two differ; what only one of them has does.
fn unlike(a: &Value, b: &Value, place: &str, count: &mut usize) -> Option<String> {
    *count += 1;
    let same = match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let missing = b.keys().find(|key| !a.contains_key(*key)).map(|key| format!("{place}.{key}"));
            return missing.or_else(|| {
                a.iter().find_map(|(key, value)| {
                    let place = format!("{place}.{key}");
                    unlike(value, b.get(key).unwrap_or(&Value::Null), &place, count)
                })
            });
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            return pairs.find_map(|(i, (a, b))| unlike(a, b, &format!("{}[{i}]", named(a, place)), count));
        }
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()),
            _ => a == b,
        },
        (a, b) => a == b,
    };
    (!same).then(|| place.to_owned())
}

/// The place with the metric's name where there is one.
fn named(value: &Value, place: &str) -> String {
    value["metric"].as_str().map_or_else(|| place.to_owned(), |metric| format!("{place} {metric} "))
}
