//! Checks of how the runs were arranged, and of what they show together (T10, T11).

use std::collections::BTreeMap;

use super::{Evidence, Found};
use crate::environment::ClockKind;
use crate::plan::{PAIRS_ON_HOST, pairs_done};
use crate::sample::Sample;
use crate::statistics::{MIN_FOR_INTERVAL, count, is_autocorrelated, lag1};
use crate::summary::{STARTUP, number};

/// Share of the pairs that may be torn apart by an interruption.
const TORN: usize = 10;

/// Runs of a pair must follow one another: "all A, then all B" makes every drift a difference.
pub(super) fn interleaved(e: Evidence<'_>) -> Option<Found> {
    let mut pairs: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for sample in e.samples {
        pairs.entry(sample.pair).or_default().push(sample.seq);
    }
    let whole: Vec<&Vec<u32>> = pairs.values().filter(|seqs| seqs.len() > 1).collect();
    if e.plan.arms.len() < 2 || whole.is_empty() {
        return None;
    }
    let apart = |seqs: &&&Vec<u32>| {
        let (first, last) = (seqs.iter().min().copied(), seqs.iter().max().copied());
        first.zip(last).is_some_and(|(first, last)| (last - first) as usize >= 2 * seqs.len())
    };
    let torn = whole.iter().filter(apart).count();
    let detail = format!("the runs of {torn} of {} pairs lie apart: not interleaved", whole.len());
    Some(if torn * TORN > whole.len() { Found::fail(detail) } else { Found::pass("pairs in random order") })
}

pub(super) fn enough_pairs(e: Evidence<'_>) -> Option<Found> {
    let counted = e.host.clock == ClockKind::Instructions;
    let least = e.plan.least_pairs();
    Some(match pairs_done(e.plan, e.samples) {
        done if done < least => Found::fail(format!("ended after {done} of {least} pairs")),
        1 => Found::fail("1 pair: no interval and no finding"),
        pairs if (pairs as usize) < MIN_FOR_INTERVAL => {
            Found::fail(format!("{pairs} pairs: no interval and no finding below {MIN_FOR_INTERVAL}"))
        }
        _ if counted => Found::pass("enough pairs for counts of instructions"),
        pairs if pairs >= PAIRS_ON_HOST => Found::pass("enough pairs for intervals of a few percent"),
        pairs => Found::fail(format!("{pairs} pairs: intervals are rough below {PAIRS_ON_HOST}")),
    })
}

/// Whether each ratio is independent of the one before it, by the start-up metric that every run has.
pub(super) fn independent(e: Evidence<'_>) -> Option<Found> {
    let analysed = || e.samples.iter().filter(|s| s.analysed());
    let metric = STARTUP.into_iter().find(|metric| analysed().all(|s| metric.of(s).is_some()))?;
    let (base, others) = e.plan.arms.split_first()?;
    let values = |arm: &str| -> BTreeMap<u32, f64> {
        e.analysed(arm).filter_map(|s| Some((s.pair, number(metric.of(s)?)))).collect()
    };
    let of_base = values(base);
    let series = others.iter().filter_map(|arm| {
        let of_arm = values(arm);
        let logs = of_base
            .iter()
            .filter_map(|(pair, a)| Some((of_arm.get(pair)? / a).ln()))
            .filter(|v| v.is_finite());
        let logs: Vec<f64> = logs.collect();
        Some((arm, lag1(&logs)?, is_autocorrelated(&logs)))
    });
    let series: Vec<(&String, f64, bool)> = series.collect();
    if series.is_empty() {
        return None;
    }
    let list: Vec<String> = series
        .iter()
        .filter(|(.., dependent)| *dependent)
        .map(|(arm, r, _)| format!("{arm} {r:.2}"))
        .collect();
    Some(if list.is_empty() {
        Found::pass("pairs do not depend on the one before")
    } else {
        Found::fail(format!(
            "each pair depends on the one before (correlation: {}); intervals by blocks",
            list.join(", ")
        ))
    })
}

/// One arm against itself: what is found there is found by chance or by a fault of the instrument.
pub(super) fn noise_floor(e: Evidence<'_>) -> Option<Found> {
    let arm = e.plan.control.as_ref()?;
    let metric = STARTUP.into_iter().find(|metric| {
        e.samples.iter().filter(|s| s.analysed() || s.is_usable_control()).all(|s| metric.of(s).is_some())
    })?;
    let series = crate::comparison::Series::of(metric, e.plan, e.samples);
    let itself = series.paired(e.plan, None, crate::statistics::RESAMPLES)?;
    let [low, high] = itself.ratio?.ci95?;
    let margin = metric.unit.margin();
    let middle = itself.ratio?.median;
    let differs = (low > 1.0 || high < 1.0) && (middle - 1.0).abs() > margin;
    let seen = format!("{middle:.3}x [{low:.3}, {high:.3}]");
    Some(if differs {
        Found::fail(format!("{arm} differs from itself: {seen}"))
    } else {
        Found::pass(format!("{arm} against itself: {seen}"))
    })
}

/// Every run that was made is in the record, and nothing but what the plan says.
pub(super) fn all_runs_are_there(e: Evidence<'_>) -> Option<Found> {
    let order = e.plan.order();
    let matches = |(slot, s): &(&crate::plan::Slot, &Sample)| {
        (slot.seq, &slot.arm, slot.pair, slot.control) == (s.seq, &s.arm, s.pair, s.control)
    };
    let as_planned = order.iter().zip(e.samples).take_while(matches).count();
    (!e.samples.is_empty()).then(|| {
        let share = count(as_planned) / count(e.samples.len());
        let detail = format!(
            "runs are missing, or not in the order of the plan: {as_planned} of {} stand where it puts them ({:.0} %)",
            e.samples.len(),
            share * 100.0
        );
        if as_planned == e.samples.len() { Found::pass("every run is in the record") } else { Found::fail(detail) }
    })
}
