//! Density curves: their words and numbers, and one table and two slopes for each level for a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use crate::density::{Density, Idle, LEAST_AVAILABLE_PERCENT, Point, SLOWER, Slope, StopRule, p95};
use crate::environment::Host;
use crate::report::quantity::{Shown, digits, raw};
use crate::report::text::fill;
use crate::report::words::printable;
use crate::statistics::median;
use crate::suite::lines::SuiteRecord;

/// What is measured, for any form of the report.
pub(super) const ABOUT: &str = "idle instances side by side in one launcher, the start without the launcher's own; the machine's \
                                memory is what can't be reclaimed, others' too";

/// All curves of a run; nothing where it has none.
pub(super) fn render(record: &SuiteRecord, columns: usize) -> String {
    let mut out = String::new();
    if !record.densities.is_empty() {
        out.push_str(&fill(ABOUT, "\ndensity: ", "  ", columns));
        out.push('\n');
    }
    for density in &record.densities {
        let level = printable(&density.level);
        out.push_str(&format!("\n{level}\n"));
        for line in table(density, &record.run.host).lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
        for sentence in sentences(density) {
            out.push_str(&fill(&sentence, "  ", "    ", columns));
            out.push('\n');
        }
    }
    out
}

/// Titles of the columns, the second line of each after its newline.
pub(super) fn titles(host: &Host) -> [String; 6] {
    [
        "instances".to_owned(),
        format!("start, {}\nmedian", Shown::time(host).name()),
        "\np95".to_owned(),
        "sum of\ncharges, MiB".to_owned(),
        "machine's\nmemory, MiB".to_owned(),
        "available\nMiB".to_owned(),
    ]
}

/// The numbers of a reading, one for each title.
pub(super) fn numbers(point: &Point, host: &Host) -> [String; 6] {
    let time = Shown::time(host);
    let starts: Vec<f64> = point.start_ns.iter().copied().map(raw).collect();
    let mib = |bytes: u64| digits(Shown::MiB.scaled(raw(bytes)));
    // A step that the first failure ended has no start at all.
    let start = |ns: f64| if starts.is_empty() { "-".to_owned() } else { digits(time.scaled(ns)) };
    [
        point.instances.to_string(),
        start(median(&starts)),
        start(p95(&point.start_ns)),
        point.charge_bytes.map_or_else(|| "-".to_owned(), mib),
        mib(point.system_bytes),
        mib(point.available_bytes),
    ]
}

fn table(density: &Density, host: &Host) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(titles(host));
    for point in &density.points {
        table.add_row(numbers(point, host));
    }
    table.column_iter_mut().for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
        column.set_padding((2, 0));
    });
    table.to_string()
}

/// Both slopes, and what ended the ramp.
pub(super) fn sentences(density: &Density) -> Vec<String> {
    let slopes = [("charge", density.charge), ("machine's memory", density.system)];
    let instances = density.points.iter().map(|point| point.instances);
    let span = instances.clone().max().unwrap_or(0) - instances.min().unwrap_or(0);
    let told = slopes.map(|(what, slope)| match slope {
        Some(slope) => told(what, slope, span),
        None => format!("{what}: no slope from so few points"),
    });
    let idle = density.idle.as_ref().map(idle);
    told.into_iter().chain(idle).chain([format!("ended: {}", end(density))]).collect()
}

fn idle(idle: &Idle) -> String {
    let seconds = raw(idle.window_ns) / 1e9;
    format!(
        "idle: {} % of a CPU for each of {} in {} s",
        digits(idle.share() * 100.0),
        idle.instances,
        digits(seconds)
    )
}

/// A slope over this many instances; none where the points lie further from the line than it rises.
fn told(what: &str, slope: Slope, span: u32) -> String {
    let mib = |bytes: f64| digits(Shown::MiB.scaled(bytes));
    if slope.residual_bytes > slope.bytes_per_instance.abs() * f64::from(span) {
        return format!(
            "{what}: not resolved, points are up to {} MiB from a line of {} MiB for each more instance",
            mib(slope.residual_bytes),
            mib(slope.bytes_per_instance)
        );
    }
    format!(
        "{what}: {} MiB for each more instance, {} MiB besides; no point is further than {} MiB from that line",
        mib(slope.bytes_per_instance),
        mib(slope.intercept_bytes),
        mib(slope.residual_bytes)
    )
}

fn end(density: &Density) -> String {
    let rule = match density.stopped_by {
        StopRule::MaxInstances => "as many as asked for".to_owned(),
        StopRule::SlowStarts => format!("p95 of the starts is over {SLOWER} times that of a single instance"),
        StopRule::LittleMemory => {
            format!("{LEAST_AVAILABLE_PERCENT} % of the machine's memory or less is available")
        }
        StopRule::StartFailed => "an instance did not start, or did not stay".to_owned(),
        StopRule::Interrupted => "interrupted".to_owned(),
    };
    match &density.reason {
        Some(reason) => format!("{rule}: {}", printable(reason)),
        None => rule,
    }
}
