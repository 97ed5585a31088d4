//! The start-up timeline: one real run per level, so that its phases add up.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::alone;
use super::chart::{Bar, Part, dwarfed, legend, stacked};
use crate::record::Record;
use crate::report::quantity::{Shown, digits, raw};
use crate::report::words::{leading_metric, printable};
use crate::sample::Sample;
use crate::subphase;
use crate::summary::median_run;
use crate::timeline::ALL_PHASES;

/// What a row of the table is about.
struct Row {
    key: String,
    label: String,
    swatch: bool,
    meaning: Option<String>,
}

pub(super) fn section(record: &Record) -> Markup {
    let runs: Vec<(&String, &Sample)> = record
        .run
        .plan
        .arms
        .iter()
        .filter_map(|arm| Some((arm, median_run(arm, leading_metric(record), &record.samples)?)))
        .collect();
    if runs.is_empty() {
        return html! {};
    }
    let shown = Shown::time(&record.host);
    let bars: Vec<Bar> = runs.iter().map(|(arm, sample)| bar(arm, sample, shown)).collect();
    let small = dwarfed(&bars);
    let used: Vec<(String, String)> = ALL_PHASES
        .iter()
        .filter(|kind| runs.iter().any(|(_, s)| s.phase_ns.contains_key(kind.name)))
        .map(|kind| (kind.name.to_owned(), label(kind.name)))
        .collect();
    html! {
        section {
            h2 { "Start-up timeline" }
            (alone(record))
            p class="caption" {
                "The run of each level that lies nearest to its median, from the request to the last resource freed; \
                 phases are contiguous and add up exactly."
                @if used.iter().any(|(name, _)| name == "reading") {
                    " One of them, in which isolab reads the account of the waiting workload, is drawn and counts in no result: \
                     \u{201c}to clean\u{201d} is the bar without it."
                }
                @if bars.iter().any(|bar| !bar.finer.is_empty()) {
                    " The strip below a bar shows the steps that its phases consist of; they add up to the same."
                }
            }
            figure { (stacked("Start-up timeline of every level, one linear scale", shown.name(), &bars)) }
            @if !small.is_empty() {
                figure {
                    h3 { "Enlarged: " (names(&small)) }
                    p class="caption" { "The same runs on a scale of their own, also linear and from zero." }
                    (stacked("Start-up timeline, enlarged", shown.name(), &small))
                }
            }
            (legend(&used, bars.iter().any(|bar| bar.mark.is_some()).then_some("ready")))
            (phases(record, &runs, &used, shown))
        }
    }
}

pub(super) fn names(bars: &[Bar]) -> String {
    bars.iter().map(|bar| bar.name.as_str()).collect::<Vec<_>>().join(" and ")
}

fn label(name: &str) -> String {
    match name {
        "exec_self" => "isolab starts".to_owned(),
        other => other.replace('_', " "),
    }
}

fn bar(arm: &str, sample: &Sample, shown: Shown) -> Bar {
    let parts = ALL_PHASES.iter().filter_map(|kind| {
        let ns = *sample.phase_ns.get(kind.name)?;
        Some(Part { key: kind.name.to_owned(), label: label(kind.name), value: shown.scaled(raw(ns)) })
    });
    let times = sample.t_ns.as_ref();
    Bar {
        name: printable(arm),
        total: times.and_then(|t| t.clean).map(|ns| shown.with_unit(raw(ns))).unwrap_or_default(),
        parts: parts.collect(),
        finer: steps(sample, shown),
        mark: times.and_then(|t| t.ready).map(|ns| (shown.scaled(raw(ns)), "ready")),
    }
}

/// The subphases in the order of a start, each in the colour of the phase that its middle lies in; none where they do
/// not reach as far as the phases.
fn steps(sample: &Sample, shown: Shown) -> Vec<Part> {
    let phases: Vec<(&str, u64)> =
        ALL_PHASES.iter().filter_map(|kind| Some((kind.name, *sample.phase_ns.get(kind.name)?))).collect();
    let in_phase = |middle: u64| {
        let mut end = 0_u64;
        let found = phases.iter().find(|(_, ns)| {
            end = end.saturating_add(*ns);
            middle < end
        });
        found.or_else(|| phases.last()).map_or("", |(name, _)| *name)
    };
    let (mut parts, mut begin) = (Vec::new(), 0_u64);
    for step in subphase::legend([&sample.subphase_ns].into_iter()) {
        let ns = sample.subphase_ns.get(&step.name).copied().unwrap_or(0);
        let key = in_phase(begin.saturating_add(ns / 2)).to_owned();
        parts.push(Part { key, label: label(&step.name), value: shown.scaled(raw(ns)) });
        begin = begin.saturating_add(ns);
    }
    let whole = phases.iter().fold(0_u64, |sum, (_, ns)| sum.saturating_add(*ns));
    if begin == whole { parts } else { vec![] }
}

fn phases(record: &Record, runs: &[(&String, &Sample)], used: &[(String, String)], shown: Shown) -> Markup {
    // One phase can mean something else at another level.
    let meaning = |name: &str| {
        let arms = record.run.plan.arms.iter().filter_map(|arm| record.arms.get(arm));
        let mut all: Vec<String> = arms
            .flat_map(|arm| arm.phases.iter().filter(|phase| phase.name == name))
            .map(|phase| printable(&phase.meaning))
            .collect();
        all.dedup();
        all.join(", or ")
    };
    let row = |(key, label): &(String, String)| Row {
        key: key.clone(),
        label: label.clone(),
        swatch: true,
        meaning: None,
    };
    let rows: Vec<Row> = used.iter().map(row).collect();
    let steps = subphase::legend(runs.iter().map(|(_, sample)| &sample.subphase_ns));
    let step = |step: subphase::SubphaseOf| Row {
        label: label(&step.name),
        key: step.name,
        swatch: false,
        meaning: Some(step.meaning),
    };
    let steps: Vec<Row> = steps.into_iter().map(step).collect();
    html! {
        (table("Phase", &rows, runs, |sample| &sample.phase_ns, shown))
        p class="note" {
            @for (i, (name, label)) in used.iter().enumerate() {
                @if i > 0 { "; " } b { (label) } ": " (meaning(name))
            }
            "."
        }
        @if !steps.is_empty() {
            details {
                summary { "The steps that the phases consist of" }
                (table("Step", &steps, runs, |sample| &sample.subphase_ns, shown))
            }
        }
    }
}

fn table(
    what: &str,
    rows: &[Row],
    runs: &[(&String, &Sample)],
    map: fn(&Sample) -> &BTreeMap<String, u64>,
    shown: Shown,
) -> Markup {
    let value = |sample: &Sample, key: &str| {
        map(sample).get(key).map_or_else(|| "\u{2013}".to_owned(), |ns| digits(shown.scaled(raw(*ns))))
    };
    html! {
        div class="scroll" { table class="compact" {
            thead { tr {
                th { (what) ", " (shown.name()) }
                @for (arm, _) in runs { th { (printable(arm)) } }
            } }
            tbody {
                @for row in rows {
                    tr {
                        th {
                            @if row.swatch { span class={ "swatch c-" (row.key) } {} }
                            (row.label)
                            @if let Some(meaning) = &row.meaning { span class="meaning" { (meaning) } }
                        }
                        @for (_, sample) in runs { td { (value(sample, &row.key)) } }
                    }
                }
            }
        } }
    }
}
