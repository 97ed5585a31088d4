//! The diff for a terminal.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use super::{Diff, Judgement, Line};
use crate::environment::Host;
use crate::report::quantity::{Shown, digits};
use crate::report::words::printable;

/// The table and the answer, with its last newline; times are shown as this machine's clock demands.
#[must_use]
pub fn render(diff: &Diff, host: &Host) -> String {
    let mut out = format!("A  run {}\nB  run {}\n", printable(&diff.a), printable(&diff.b));
    for line in &diff.differs {
        out.push_str(&format!("   {}\n", printable(line)));
    }
    out.push('\n');
    let mut table = Table::new();
    let header = ["arm", "metric", "A", "B", "unit", "B / A", "interval", "margin", "judgement"];
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for line in &diff.lines {
        table.add_row(row(line, host));
    }
    for column in table.column_iter_mut().skip(2).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push_str(&format!("\n{}\n", answer(diff)));
    out
}

fn row(line: &Line, host: &Host) -> Vec<String> {
    let shown = Shown::of(line.unit, host);
    let [a, b] = line.median.map(|median| digits(shown.scaled(median)));
    let dash = || "-".to_owned();
    vec![
        printable(&line.arm),
        line.metric.to_owned(),
        a,
        b,
        shown.name().to_owned(),
        line.ratio.map_or_else(dash, |ratio| format!("{ratio:.4}")),
        line.interval.map_or_else(dash, |[low, high]| format!("[{low:.4}, {high:.4}]")),
        format!("{} %", line.margin_percent),
        match line.judgement {
            Judgement::Regression => "REGRESSION",
            Judgement::Improvement => "improvement",
            Judgement::Same => "same",
            Judgement::NotResolved => "not resolved",
        }
        .to_owned(),
    ]
}

fn answer(diff: &Diff) -> String {
    let count = |judgement| diff.lines.iter().filter(|line| line.judgement == judgement).count();
    let (worse, open) = (count(Judgement::Regression), count(Judgement::NotResolved));
    let open = if open == 0 { String::new() } else { format!(", {open} not resolved") };
    if diff.regression {
        format!("Regression: {worse} of {} lines{open}.", diff.lines.len())
    } else {
        format!("No regression shown in {} lines{open}.", diff.lines.len())
    }
}
