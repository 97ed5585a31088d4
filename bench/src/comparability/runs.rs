//! Checks of the runs: boundaries, waits, counters, the harness, clocks, failures, the work (T04, T07, T09, T13, T16, T17).

use std::collections::BTreeSet;

use super::{Evidence, Found, over_samples};
use crate::environment::ClockKind;
use crate::sample::Sample;
use crate::statistics::median;
use crate::summary::{EXECVE, FIRST_INSTRUCTION, Metric, READINESS, STARTUP, number};
use crate::timeline::Times;

/// A wait of a start-up that is no work: keyboards and consoles that are probed with time-outs take longer.
const FIXED_WAIT_NS: u64 = 20_000_000;
/// The harness may be this share of an arm's number where the floor is measured beside it.
const HARNESS_BESIDE_FLOOR: f64 = 0.5;
/// And this share where it is not.
const HARNESS_ALONE: f64 = 0.1;

/// A headline interval that some arms have and others have not.
pub(super) fn boundaries(e: Evidence<'_>) -> Option<Found> {
    let has = |metric: &Metric, arm: &str| e.analysed(arm).any(|s| metric.of(s).is_some());
    let ran: Vec<&String> = e.plan.arms.iter().filter(|arm| e.analysed(arm).next().is_some()).collect();
    let uneven = [&READINESS, &FIRST_INSTRUCTION, &EXECVE].into_iter().find_map(|metric| {
        let without: Vec<&str> = ran.iter().filter(|arm| !has(metric, arm)).map(|arm| arm.as_str()).collect();
        (!without.is_empty() && without.len() < ran.len())
            .then(|| format!("{} is missing in {}", metric.name, without.join(", ")))
    });
    (!ran.is_empty()).then(|| match uneven {
        Some(detail) => Found::fail(format!("an interval has no end in each arm: {detail}")),
        None => Found::pass("the same moments bound the intervals of each arm"),
    })
}

/// A long time in which an instance does nothing before it is ready: time-outs of probing, not work.
pub(super) fn fixed_wait(e: Evidence<'_>) -> Option<Found> {
    let waits = e
        .samples
        .iter()
        .filter(|s| s.analysed())
        .filter_map(|s| Some((s.conditions.longest_idle_ns?, &s.arm)));
    let (longest, arm) = waits.max()?;
    let detail =
        format!("{arm} did nothing for {} ms before it was ready: a time-out, not work", longest / 1_000_000);
    Some(if longest > FIXED_WAIT_NS {
        Found::fail(detail)
    } else {
        Found::pass("no long waits within the starts")
    })
}

pub(super) fn counter(e: Evidence<'_>) -> Option<Found> {
    let source = |s: &Sample| Some(s.mem_bytes.as_ref()?.source.clone());
    let sources: BTreeSet<String> = e.samples.iter().filter_map(source).collect();
    Some(match sources.len() {
        0 => Found::unsure("no memory was read"),
        1 => Found::pass("one counter for all arms"),
        _ => Found::fail(format!(
            "memory by different counters: {}",
            sources.into_iter().collect::<Vec<_>>().join(", ")
        )),
    })
}

/// The start of isolab itself is in each number alike. The bare process is the floor: all of its number is harness.
pub(super) fn harness(e: Evidence<'_>) -> Option<Found> {
    let metric =
        STARTUP.into_iter().find(|m| e.samples.iter().filter(|s| s.analysed()).all(|s| m.of(s).is_some()))?;
    let floor = e.arms().any(|(_, arm)| arm.kind == "process");
    let limit = if floor { HARNESS_BESIDE_FLOOR } else { HARNESS_ALONE };
    let share = |arm: &str| {
        let shares = e.analysed(arm).filter_map(|s| {
            let main = s.t_ns.as_ref()?.main?;
            Some(number(main) / number(metric.of(s)?.max(1)))
        });
        let shares: Vec<f64> = shares.collect();
        (!shares.is_empty()).then(|| median(&shares))
    };
    let shares: Vec<(&str, f64)> = e.isolated().filter_map(|(name, _)| Some((name, share(name)?))).collect();
    if shares.is_empty() {
        return None;
    }
    let list: Vec<String> = shares.iter().map(|(name, s)| format!("{name} {:.0} %", s * 100.0)).collect();
    let beside =
        if floor { "the process level is the floor" } else { "no process level is beside it as a floor" };
    let detail = format!("isolab's own start is part of each number ({}); {beside}", list.join(", "));
    Some(Found::fails_if(shares.iter().any(|(_, s)| *s > limit), detail))
}

/// All stamps are of one clock: each moment lies where the one before and the one after allow, also one told by a clock inside.
pub(super) fn one_clock(e: Evidence<'_>) -> Option<Found> {
    let timed: Vec<(&Sample, &Times)> =
        e.samples.iter().filter(|s| s.analysed()).filter_map(|s| Some((s, s.t_ns.as_ref()?))).collect();
    let unordered = |(s, t): &&(&Sample, &Times)| {
        let moments = [t.main, t.run_begin, t.init, t.exec, t.first_user_insn, t.ready, t.exit, t.clean];
        let outside = s.conditions.clock.is_some_and(|c| c.inside_ns > c.outside_ns);
        !moments.into_iter().flatten().is_sorted() || outside
    };
    let wrong: Vec<_> = timed.iter().filter(unordered).collect();
    (!timed.is_empty()).then(|| match wrong.first() {
        Some((s, _)) => Found::fail(format!(
            "{} of {} runs hold moments that one clock can't have given ({} in pair {})",
            wrong.len(),
            timed.len(),
            s.arm,
            s.pair
        )),
        None if e.host.clock == ClockKind::Instructions => {
            Found::pass("one clock of the lab, which counts instructions")
        }
        None => Found::pass("one clock of the host"),
    })
}

pub(super) fn no_failed_runs(e: Evidence<'_>) -> Option<Found> {
    // Where the warm-up already failed, nothing else was run.
    let none = e.samples.iter().all(|s| s.warmup);
    let counted = || e.samples.iter().filter(|s| none || !s.warmup);
    let measured = counted().count();
    let failed: Vec<&Sample> = counted().filter(|s| !s.ok).collect();
    let first = failed.first().map(|s| {
        let why = s.error.as_deref().or_else(|| s.flags.first().map(String::as_str));
        format!("{}: {}", s.arm, why.unwrap_or("did not end by itself"))
    });
    Some(match (failed.len(), first) {
        (0, _) if measured > 0 => Found::pass("every run ended by itself"),
        // Up to 1 % is kept, named and lived with.
        (n, Some(first)) if n * 100 <= measured => {
            Found::unsure(format!("{n} of {measured} runs failed ({first})"))
        }
        (n, first) => Found::fail(format!("{n} of {measured} runs failed ({})", first.unwrap_or_default())),
    })
}

pub(super) fn image(e: Evidence<'_>) -> Option<Found> {
    over_samples(e, "image digests", |s| s.detail.image_digest.clone())
}

pub(super) fn status(e: Evidence<'_>) -> Option<Found> {
    over_samples(e, "exit statuses", |s| s.status.map(|status| status.to_string()))
}

pub(super) fn output(e: Evidence<'_>) -> Option<Found> {
    over_samples(e, "digests of standard output", |s| {
        s.stdout_sha256.as_ref().map(|digest| digest.chars().take(12).collect())
    })
}
