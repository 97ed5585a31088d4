//! The start-up timeline: one real run per level, so that its phases add up.

use maud::{Markup, html};

use super::alone;
use super::chart::{Bar, Part, dwarfed, legend, stacked};
use crate::record::Record;
use crate::report::quantity::{Shown, digits, raw};
use crate::report::words::{leading_metric, printable};
use crate::sample::Sample;
use crate::summary::median_run;
use crate::timeline::ALL_PHASES;

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
        mark: times.and_then(|t| t.ready).map(|ns| (shown.scaled(raw(ns)), "ready")),
    }
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
    let value = |sample: &Sample, name: &str| {
        sample.phase_ns.get(name).map_or_else(|| "\u{2013}".to_owned(), |ns| digits(shown.scaled(raw(*ns))))
    };
    html! {
        div class="scroll" { table class="compact" {
            thead { tr {
                th { "Phase, " (shown.name()) }
                @for (arm, _) in runs { th { (printable(arm)) } }
            } }
            tbody {
                @for (name, label) in used {
                    tr {
                        th { span class={ "swatch c-" (name) } {} (label) }
                        @for (_, sample) in runs {
                            td { (value(sample, name)) }
                        }
                    }
                }
            }
        }
        }
        p class="note" {
            @for (i, (name, label)) in used.iter().enumerate() {
                @if i > 0 { "; " } b { (label) } ": " (meaning(name))
            }
            "."
        }
    }
}
