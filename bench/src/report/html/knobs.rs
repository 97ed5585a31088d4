//! What each knob costs: bars from zero to either side, one drawing for time and one for memory, and the same numbers.

use maud::{Markup, html};

use super::alone;
use super::chart::{Signed, legend, signed};
use crate::record::Record;
use crate::report::quantity::Shown;
use crate::report::vary::{Numbers, WEAKER, metrics, name, numbers, title};
use crate::report::words::{capital, printable};
use crate::summary::{Metric, Unit};
use crate::vary::Variation;

/// Meanings of the colours.
const LEGEND: [(&str, &str); 3] = [
    ("more", "more than the base"),
    ("less", "less than the base"),
    ("unfound", "no difference shown: the same, or not resolved"),
];

/// The section; nothing where no knob was varied, or where nothing may be set against another.
pub(super) fn section(record: &Record) -> Markup {
    let base = record.run.plan.arms.first().filter(|_| !record.vary.is_empty());
    let Some(base) = base.filter(|_| !record.comparability.forbids_statements()) else { return html! {} };
    let [time, clean, memory] = metrics(record);
    let entries = LEGEND.map(|(key, label)| (key.to_owned(), label.to_owned()));
    html! {
        section {
            h2 { "What each mechanism costs" }
            (alone(record))
            p class="caption" {
                "Each bar is the median of the differences, pair by pair, between an arm in which one mechanism alone is changed \
                 and the base arm " b { (printable(base)) } ", and the line across its end the 95 % interval; costs do not add up \
                 exactly, for each is taken from the whole alone."
            }
            @for metric in [time, memory] {
                @let what = heading(record, metric);
                @let bars = bars(record, metric);
                @if !bars.is_empty() {
                    figure {
                        h3 { (what) }
                        (signed(&format!("{what}, that each changed mechanism adds or saves, on one axis"), Shown::of(metric.unit, &record.host).name(), &bars))
                    }
                }
            }
            (legend(&entries, None))
            (table(record, [time, clean, memory]))
        }
    }
}

fn heading(record: &Record, metric: &Metric) -> String {
    let title = title(record, metric);
    if metric.unit == Unit::Ns { format!("Time {title}") } else { capital(&title) }
}

/// The bars of a metric, in the order of the record.
fn bars(record: &Record, metric: &Metric) -> Vec<Signed> {
    let shown = Shown::of(metric.unit, &record.host);
    let bar = |variation: &Variation| {
        let cost = variation.marginal.get(metric.name)?;
        let Numbers { cost: told, interval, unfound } = numbers(record, variation, metric)?;
        let weaker = if variation.change.weaker { format!(" ({WEAKER})") } else { String::new() };
        Some(Signed {
            name: format!("{}{weaker}", name(&variation.change, "\u{2192}")),
            told: [Some(told), interval].into_iter().flatten().collect::<Vec<_>>().join(" "),
            value: shown.scaled(cost.median),
            interval: cost.ci95.map(|ends| ends.map(|end| shown.scaled(end))),
            found: unfound.is_none(),
        })
    };
    record.vary.iter().filter_map(bar).collect()
}

fn table(record: &Record, metrics: [&Metric; 3]) -> Markup {
    html! {
        table class="cards compact" {
            thead { tr {
                th { "Changed mechanism" }
                @for metric in metrics { th { (title(record, metric)) } }
            } }
            tbody {
                @for variation in &record.vary {
                    tr {
                        th { span {
                            (name(&variation.change, "\u{2192}"))
                            @if variation.change.weaker { span class="weaker" { (WEAKER) } }
                        } }
                        @for metric in metrics {
                            td data-label=(title(record, metric)) { span {
                                @match numbers(record, variation, metric) {
                                    Some(Numbers { cost, interval, unfound }) => {
                                        (cost)
                                        @for told in [interval.as_deref(), unfound].into_iter().flatten() { span class="interval" { (told) } }
                                    }
                                    None => "\u{2013}",
                                }
                            } }
                        }
                    }
                }
            }
        }
    }
}
