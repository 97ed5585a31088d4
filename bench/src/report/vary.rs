//! What each knob costs: its words and numbers, and the block for a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use crate::paired::Finding;
use crate::record::Record;
use crate::report::quantity::{Shown, digits};
use crate::report::words::{leading_metric, printable};
use crate::summary::{CHARGE, CLEAN, Metric, PEAK};
use crate::vary::{Change, Variation};

/// The block of knobs; nothing where none was varied.
pub(super) fn render(record: &Record) -> String {
    let Some(base) = record.run.plan.arms.first().filter(|_| !record.vary.is_empty()) else {
        return String::new();
    };
    let metrics = metrics(record);
    let mut header = vec!["knob".to_owned()];
    header.extend(metrics.iter().map(|metric| title(record, metric)));
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for variation in &record.vary {
        let weaker = if variation.change.weaker { format!("\n  {WEAKER}") } else { String::new() };
        let mut row = vec![format!("{}{weaker}", name(&variation.change, "->"))];
        row.extend(metrics.iter().map(|metric| cell(record, variation, metric)));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    let mut out = format!("One knob at a time, more (+) or less (-) than {}:\n", printable(base));
    for line in table.to_string().lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push('\n');
    out
}

/// Mark of a value that is a weaker isolation than isolab gives outside of measuring.
pub(super) const WEAKER: &str = "weaker isolation";

/// Two times and the memory that a record of knobs tells of.
pub(super) fn metrics(record: &Record) -> [&'static Metric; 3] {
    let memory = if record.headline().memory == PEAK.name { &PEAK } else { &CHARGE };
    [leading_metric(record), &CLEAN, memory]
}

/// The knob and its two values.
pub(super) fn name(change: &Change, arrow: &str) -> String {
    let (knob, from, to) = (printable(&change.knob), printable(&change.from), printable(&change.to));
    format!("{knob}: {from} {arrow} {to}")
}

pub(super) fn title(record: &Record, metric: &Metric) -> String {
    let unit = Shown::of(metric.unit, &record.host).name();
    let what = match metric.name {
        "startup.request_to_ready" => "to ready",
        "startup.request_to_first_user_insn" => "to first instruction",
        "startup.request_to_exec" => "to execve",
        "startup.request_to_clean" => "to clean",
        "memory.peak" => "peak of memory",
        _ => "memory",
    };
    format!("{what}, {unit}")
}

fn cell(record: &Record, variation: &Variation, metric: &Metric) -> String {
    numbers(record, variation, metric).map_or_else(
        || "-".to_owned(),
        |Numbers { cost, interval, unfound }| {
            let below = [interval.as_deref(), unfound].into_iter().flatten().map(|line| format!("\n{line}"));
            cost + &below.collect::<String>()
        },
    )
}

/// What is told of a cost.
pub(super) struct Numbers {
    /// With its sign.
    pub(super) cost: String,
    /// Its interval.
    pub(super) interval: Option<String>,
    /// Where no difference may be claimed, what else.
    pub(super) unfound: Option<&'static str>,
}

/// The cost of a change in a metric.
pub(super) fn numbers(record: &Record, variation: &Variation, metric: &Metric) -> Option<Numbers> {
    let cost = variation.marginal.get(metric.name)?;
    let shown = Shown::of(metric.unit, &record.host);
    let sign = if cost.median > 0.0 { "+" } else { "" };
    Some(Numbers {
        cost: format!("{sign}{}", digits(shown.scaled(cost.median))),
        interval: cost.ci95.map(|ends| shown.interval(cost.median, ends)),
        unfound: match finding(record, variation, metric) {
            Some(finding) if finding.is_difference() => None,
            Some(Finding::Same) => Some("the same"),
            _ => Some("not resolved"),
        },
    })
}

/// What may be said of an arm beside the base.
fn finding(record: &Record, variation: &Variation, metric: &Metric) -> Option<Finding> {
    let summary = record.summary_of(metric.name)?;
    let compared = summary.comparisons.iter().find(|c| c.b == variation.change.arm)?;
    Some(compared.finding(summary.unit))
}
