//! The sentences that text and HTML share: where it ran, what may be said, what was found.

use crate::comparability::{CheckStatus, Claim, Verdict};
use crate::conditions::CacheState;
use crate::environment::{ClockKind, Host, HostClass};
use crate::paired::Finding;
use crate::plan::pairs_done;
use crate::record::{Record, Skipped};
use crate::report::quantity::{Shown, digits, times};
use crate::statistics::MIN_FOR_INTERVAL;
use crate::stop::Ended;
use crate::summary::{CLEAN, Comparison, EXECVE, FIRST_INSTRUCTION, Metric, PEAK, Summary, metric};

/// Text of outside origin (images, commands, errors) with nothing that moves a cursor or turns the line around.
pub(crate) fn printable(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .flat_map(|c| {
            let (plain, escaped) = if odd(c) { (None, Some(c.escape_unicode())) } else { (Some(c), None) };
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// Image and command.
pub(crate) fn subject(record: &Record) -> String {
    let mut words = vec![printable(&record.workload.image)];
    if !record.workload.args.is_empty() {
        words.push("--".to_owned());
        words.extend(record.workload.args.iter().map(|arg| printable(arg)));
    }
    words.join(" ")
}

/// Where it ran, in one or two sentences.
pub(crate) fn place(host: &Host) -> String {
    let machine = [
        host.cpu_model.clone(),
        host.cpus_online.map(|n| format!("{n} CPU{}", if n == 1 { "" } else { "s" })),
        host.mem_total_bytes.map(|b| format!("{} MiB", b >> 20)),
        host.kernel.as_ref().map(|k| format!("Linux {k}")),
    ];
    let machine = printable(&machine.into_iter().flatten().collect::<Vec<_>>().join(", "));
    match (host.class, host.clock) {
        (HostClass::EmulatedLab, ClockKind::Instructions) => format!(
            "Emulated lab machine whose clock counts instructions: Mi is a million instructions, 2 ns of lab time \
             each ({machine})."
        ),
        (HostClass::EmulatedLab, ClockKind::Monotonic) => {
            format!("Emulated lab machine on the wall clock: ~ms is time of a software CPU ({machine}).")
        }
        (class, _) => format!("This host, KVM class {} ({machine}).", class_name(class)),
    }
}

pub(crate) const fn class_name(class: HostClass) -> &'static str {
    match class {
        HostClass::Hardware => "hardware",
        HostClass::Nested => "nested",
        HostClass::Shadow => "shadow",
        HostClass::Software => "software",
        HostClass::None => "none",
        HostClass::EmulatedLab => "emulated lab",
    }
}

/// What may be claimed and what may not.
pub(super) fn claims(record: &Record) -> String {
    let read = record.samples.iter().any(|sample| sample.mem_bytes.is_some());
    let names: Vec<&str> = record
        .comparability
        .claims_allowed
        .iter()
        .filter(|claim| read || **claim != Claim::Memory)
        .map(|claim| match claim {
            Claim::Absolute => "times of this machine",
            Claim::Ratio => "ratios of times on this machine",
            Claim::InstructionRatio => "ratios of instruction counts",
            Claim::Memory => "memory charged",
        })
        .collect();
    let allowed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!("{}. {}", capital(&allowed), not_included(&record.host))
}

/// What the numbers are not.
pub(super) fn not_included(host: &Host) -> String {
    let lab = host.class == HostClass::EmulatedLab;
    let lab = if lab {
        "Not in these numbers: time on real hardware, cache and TLB, memory bandwidth, the cost of a world switch, SMP \
         timing, device DMA, image import."
    } else {
        "Not in these numbers: image import and network set-up."
    };
    lab.to_owned()
}

pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

pub(crate) const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Comparable => "comparable",
        Verdict::Flagged => "flagged",
        Verdict::Refused => "refused",
    }
}

/// How the runs were arranged.
pub(super) fn arrangement(record: &Record) -> String {
    let plan = &record.run.plan;
    let failed = record.samples.iter().filter(|s| !s.warmup && !s.ok).count();
    let failed = if failed == 0 { String::new() } else { format!(", {} failed", counted(failed, "run")) };
    let arms = plan.arms.iter().map(|arm| printable(arm)).collect::<Vec<_>>().join(", ");
    let (thing, order) = match plan.arms.len() {
        1 => ("run", ""),
        _ => ("pair", " in random order"),
    };
    let planned = counted(plan.pairs, thing);
    let runs = match (pairs_done(plan, &record.samples), record.run.ended) {
        (done, Some(Ended::Width | Ended::Time)) => counted(done, thing),
        (done, _) if done < plan.pairs => format!("{done} of {planned}"),
        _ => planned,
    };
    let control =
        plan.control.as_ref().map(|arm| format!(", {} twice in each", printable(arm))).unwrap_or_default();
    let cold = if plan.cache == Some(CacheState::Cold) { ", page cache cold" } else { "" };
    let ended = record.run.ended.and_then(|ended| ending(ended, &plan.stop_rule));
    format!(
        "{runs} of {arms}{order}{control}{cold}, seed {}, after {} warm-up{failed}.{}",
        plan.seed,
        plan.warmup_pairs,
        ended.unwrap_or_default()
    )
}

/// What ended the measuring, where it was not simply the number of pairs.
fn ending(ended: Ended, rule: &str) -> Option<String> {
    let why = match ended {
        Ended::Pairs | Ended::Stopped => return None,
        Ended::Width => "the intervals were narrow enough",
        Ended::Time => "the time limit was reached",
    };
    Some(format!(" Ended because {why} (the plan: {}).", printable(rule)))
}

/// A number of things.
pub(super) fn counted<N: std::fmt::Display + PartialEq + From<u8>>(n: N, thing: &str) -> String {
    let plural = if n == N::from(1) { "" } else { "s" };
    format!("{n} {thing}{plural}")
}

/// The start-up metric that the record leads with, and that ratios are made of.
pub(super) fn leading_metric(record: &Record) -> &'static Metric {
    record.headline().startup()
}

/// What the leading interval ends with, in one word for a title.
pub(super) fn leading_word(record: &Record) -> &'static str {
    match leading_metric(record).name {
        "startup.request_to_ready" => "ready",
        "startup.request_to_first_user_insn" => "start",
        "startup.request_to_exec" => "execve",
        _ => "clean",
    }
}

/// The arms whose numbers the others are divided by in a table: arms of knobs are all set against the first one only.
pub(super) fn bases(record: &Record) -> &[String] {
    let arms = &record.run.plan.arms;
    let most = if record.vary.is_empty() { 2 } else { 1 };
    let refused = record.comparability.forbids_statements();
    if refused { &[] } else { &arms[..arms.len().saturating_sub(1).min(most)] }
}

/// Whether memory is the peak, because not every level says when it is ready.
pub(super) fn memory_is_peak(record: &Record) -> bool {
    record.headline().memory().name == PEAK.name
}

/// The first of the two metrics of "its code runs" that the record has.
pub(super) fn entry_metric(record: &Record) -> &'static Metric {
    let executed = leading_metric(record).name == EXECVE.name;
    if record.summary_of(FIRST_INSTRUCTION.name).is_some() && !executed {
        &FIRST_INSTRUCTION
    } else {
        &EXECVE
    }
}

/// Why a ratio in a column and one in a sentence are two numbers.
pub(super) const TWO_RATIOS: &str = "Columns: medians of all runs, and their quotients. Sentences: medians of the differences and ratios within \
                                     pairs, which drifts of the machine do not move.";

/// One sentence per claim, for the leading metric and for memory.
pub(super) fn statements(record: &Record) -> Vec<String> {
    if record.comparability.forbids_statements() {
        return vec![];
    }
    let mut metrics = vec![leading_metric(record), record.headline().memory()];
    if memory_is_peak(record) && metrics[0].name != CLEAN.name {
        // What such a command does is not in its start.
        metrics.insert(1, &CLEAN);
    }
    let summaries = metrics.iter().filter_map(|m| Some((*m, record.summary_of(m.name)?)));
    let all: Vec<(&Metric, &Summary, &Comparison)> =
        summaries.flat_map(|(m, s)| s.comparisons.iter().map(move |c| (m, s, c))).collect();
    let few = all.iter().map(|(_, _, c)| c.pairs).filter(|pairs| *pairs < MIN_FOR_INTERVAL).min();
    let sayable = all.into_iter().filter_map(|(m, s, c)| statement(record, m, s, c));
    let mark = record.comparability.watermark.as_deref().map(|mark| format!("{}: ", printable(mark)));
    let sayable = sayable.map(|sentence| format!("{}{sentence}", mark.as_deref().unwrap_or_default()));
    failure(record)
        .into_iter()
        .chain(sayable)
        .chain(few.map(descriptive))
        .chain(noise_floor(record))
        .chain(peak(record))
        .collect()
}

/// A command that fails everywhere alike is compared, and hardly what was meant.
fn failure(record: &Record) -> Option<String> {
    let mut statuses = record.samples.iter().filter(|s| s.analysed()).map(|s| s.status);
    let first = statuses.next()?.filter(|status| *status != 0)?;
    statuses.all(|status| status == Some(first)).then(|| {
        format!("The command ended with status {first} in every run: what is compared is how it fails.")
    })
}

/// Checks of the instrument by itself that failed.
pub(crate) fn failed_crosschecks(record: &Record) -> Vec<String> {
    let failed = record.crosschecks.iter().filter(|check| check.status == CheckStatus::Fail);
    failed
        .map(|check| {
            format!(
                "instrument, {}: {} (expected: {})",
                printable(&check.id),
                printable(&check.observed),
                printable(&check.expect)
            )
        })
        .collect()
}

/// Too few pairs for any finding.
fn descriptive(pairs: usize) -> String {
    format!(
        "{} can only be described: no interval and no finding below {MIN_FOR_INTERVAL} (`isolab explain T10`).",
        counted(u32::try_from(pairs).unwrap_or(u32::MAX), "pair")
    )
}

/// Which reading of memory the numbers are.
fn peak(record: &Record) -> Option<String> {
    let shown = memory_is_peak(record) && record.summary_of(PEAK.name).is_some();
    shown.then(|| {
        "Memory is the peak charge of each run: the command does not say when it is ready.".to_owned()
    })
}

/// For each comparison of each metric (by their places) the sentence that stands alone; none of a refused record.
pub(crate) fn quotable(record: &Record) -> Vec<(usize, usize, String)> {
    if record.comparability.forbids_statements() {
        return vec![];
    }
    let context = context(record);
    let doubts: Vec<&str> =
        record.comparability.checks.iter().filter(|c| c.speaks()).map(|c| c.id.as_str()).collect();
    let doubts = if doubts.is_empty() { String::new() } else { format!(" Flags: {}.", doubts.join(", ")) };
    let all = record
        .summary
        .iter()
        .enumerate()
        .flat_map(|(i, s)| s.comparisons.iter().enumerate().map(move |(j, c)| (i, j, s, c)));
    all.filter_map(|(i, j, s, c)| {
        let found = statement(record, metric(&s.metric)?, s, c)?;
        Some((i, j, format!("{context}: {found}{doubts}")))
    })
    .collect()
}

/// Where and under what conditions, in a few words.
fn context(record: &Record) -> String {
    let host = match record.host.class {
        HostClass::EmulatedLab => "an emulated lab machine".to_owned(),
        class => format!("a host of KVM class {}", class_name(class)),
    };
    let cache = record.run.plan.cache.map(|state| format!(", {} cache", state.word())).unwrap_or_default();
    let limits = record.arms.values().find_map(|arm| arm.cpus.zip(arm.mem_limit_bytes));
    let limits = limits.map(|(cpus, bytes)| format!(", {cpus} CPU/{} MiB", bytes >> 20)).unwrap_or_default();
    format!("On {host}{cache}{limits}, {}", subject(record))
}

fn statement(record: &Record, metric: &Metric, summary: &Summary, c: &Comparison) -> Option<String> {
    let shown = Shown::of(summary.unit, &record.host);
    let (a, b, verb) = (printable(&c.a), printable(&c.b), metric.verb);
    let [low, high] = c.difference.ci95?;
    let more = c.difference.median > 0.0;
    let finding = c.finding(summary.unit);
    if !finding.is_difference() {
        let seen = format!(
            "difference {} {} {}",
            digits(shown.scaled(c.difference.median)),
            shown.name(),
            shown.interval(c.difference.median, [low, high])
        );
        let ratio = c
            .ratio_b_over_a
            .and_then(|r| Some(format!(", {}", times(r.median, r.ci95?))))
            .unwrap_or_default();
        if finding == Finding::Same {
            let margin = c.margin.map(|m| format!(" within {:.0} %", m * 100.0)).unwrap_or_default();
            return Some(format!("The same{margin}: {b} {verb} like {a} ({seen}{ratio})."));
        }
        let needed = c.pairs_needed.map_or_else(
            || ", and more would hardly help".to_owned(),
            |needed| format!(", would need about {}", rounded(needed)),
        );
        return Some(format!(
            "Not resolved whether {b} {verb} like {a} ({seen}{ratio}; n = {}{needed}).",
            c.pairs
        ));
    }
    let amount = digits(shown.scaled(c.difference.median).abs());
    let ends = if more { [low, high] } else { [-high, -low] };
    let ends = shown.interval(c.difference.median, ends);
    let ratio = c.ratio_b_over_a.and_then(|r| Some(times(r.median, r.ci95?)));
    Some(match shown {
        Shown::Mi => {
            let ratio = ratio.map(|r| format!(": {r} the instructions")).unwrap_or_default();
            let word = if more { "more" } else { "less" };
            format!("{b} needs {amount} Mi {ends} {word} than {a} until it {verb}{ratio}.")
        }
        Shown::MiB => {
            let ratio = ratio.map(|r| format!(" ({r})")).unwrap_or_default();
            let word = if more { "more" } else { "less" };
            format!("{b} {verb} {amount} MiB {ends} {word} than {a}{ratio}.")
        }
        Shown::Ms | Shown::LabMs => {
            let ratio = ratio.map(|r| format!(" ({r})")).unwrap_or_default();
            let word = if more { "later" } else { "earlier" };
            format!("{b} {verb} {amount} {} {ends} {word} than {a}{ratio}.", shown.name())
        }
    })
}

/// A number of two digits: it is an estimate.
fn rounded(n: u32) -> u32 {
    let step = 10_u32.pow(n.max(1).ilog10().saturating_sub(1));
    n.div_ceil(step).saturating_mul(step)
}

/// What the instrument finds between an arm and itself.
fn noise_floor(record: &Record) -> Option<String> {
    let part = |metric: &Metric| {
        let summary = record.summary_of(metric.name)?;
        let floor = summary.noise_floor.as_ref()?;
        let [low, high] = floor.difference.ci95?;
        let shown = Shown::of(summary.unit, &record.host);
        let difference = shown.interval(high.abs().max(low.abs()), [low, high]);
        let ratio = floor.ratio.and_then(|r| r.ci95).map(|[low, high]| format!(", [{low:.3}, {high:.3}]x"));
        Some(format!("{difference} {}{}", shown.name(), ratio.unwrap_or_default()))
    };
    let metrics = [leading_metric(record), record.headline().memory()];
    let parts: Vec<String> = metrics.into_iter().filter_map(part).collect();
    let arm = printable(record.run.plan.control.as_deref()?);
    (!parts.is_empty()).then(|| {
        format!(
            "Noise floor, {arm} against itself: {}. No claim is smaller, in either direction.",
            parts.join("; ")
        )
    })
}

/// Levels that could not run, each with reason and remedy.
pub(super) fn skipped(skipped: &[Skipped]) -> Vec<String> {
    let line = |s: &Skipped| {
        format!("{} was not run: {}; {}", printable(&s.level), printable(&s.reason), printable(&s.remedy))
    };
    skipped.iter().map(line).collect()
}

/// Exit statuses of the measured runs of an arm.
pub(super) fn statuses(record: &Record, arm: &str) -> String {
    let own = record.samples.iter().filter(|s| s.arm == arm && !s.warmup);
    let mut seen: Vec<String> =
        own.map(|s| s.status.map_or_else(|| "none".to_owned(), |status| status.to_string())).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_moves_no_cursor_and_turns_no_line() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}");
        assert_eq!(printable("grün 日本"), "grün 日本");
    }
}
