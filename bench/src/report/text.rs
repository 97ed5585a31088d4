//! The report for a terminal: verdict first, one row per level, one sentence per claim.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use crate::comparability::{Check, CheckStatus, Verdict};
use crate::record::Record;
use crate::report::quantity::{Shown, digits, factor};
use crate::report::words;
use crate::summary::{ArmSummary, CHARGE, CLEAN, FIRST_INSTRUCTION, Metric, PEAK, READINESS};

/// How it is printed; the caller knows the terminal and `NO_COLOR`.
#[derive(Clone, Copy, Debug)]
pub struct TextStyle {
    /// Emphasis by ANSI sequences.
    pub colour: bool,
    /// Columns; the table itself needs about 96.
    pub columns: usize,
}

impl Default for TextStyle {
    fn default() -> Self {
        Self { colour: false, columns: 100 }
    }
}

/// The report, with its last newline.
#[must_use]
pub fn render(record: &Record, style: TextStyle) -> String {
    let mut out = String::new();
    let paint = |text: &str, code: &str| {
        if style.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    let verdict = record.comparability.verdict;
    let tone = match verdict {
        Verdict::Comparable => "1;32",
        Verdict::Flagged => "1;33",
        Verdict::Refused => "1;31",
    };
    let head = [
        ("where", words::place(&record.host)),
        ("claims", words::claims(record)),
        ("subject", words::subject(record)),
        ("runs", words::arrangement(record)),
        ("verdict", words::verdict_word(verdict).to_owned()),
    ];
    for (key, value) in head {
        let lines = fill(&value, &format!("{key:<9}"), "         ", style.columns);
        out.push_str(&if key == "verdict" { paint(&lines, tone) } else { lines });
        out.push('\n');
    }
    for check in record.comparability.checks.iter().filter(|c| c.speaks()) {
        out.push_str(&fill(&check_line(check), "         ", "           ", style.columns));
        out.push('\n');
    }
    for line in words::failed_crosschecks(record) {
        out.push_str(&fill(&line, "         ", "           ", style.columns));
        out.push('\n');
    }
    out.push('\n');
    if verdict == Verdict::Refused {
        let alone = "NOT COMPARABLE: each row stands alone, no row may be set against another.";
        let mark = record.comparability.watermark.as_deref().map_or_else(
            || alone.to_owned(),
            |mark| format!("{}: numbers by --allow-incomparable, and no finding.", words::printable(mark)),
        );
        out.push_str(&paint(&fill(&mark, "", "  ", style.columns), tone));
        out.push_str("\n\n");
    }
    for line in table(record).lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push('\n');
    if !record.comparability.forbids_statements() {
        out.push_str(&super::vary::render(record));
    }
    if !words::bases(record).is_empty() {
        out.push_str(&fill(words::TWO_RATIOS, "", "  ", style.columns));
        out.push('\n');
    }
    for statement in words::statements(record).into_iter().chain(words::skipped(&record.skipped)) {
        out.push_str(&fill(&statement, "", "  ", style.columns));
        out.push('\n');
    }
    out
}

pub(super) fn fill(text: &str, first: &str, later: &str, columns: usize) -> String {
    textwrap::fill(text, textwrap::Options::new(columns).initial_indent(first).subsequent_indent(later))
}

pub(super) fn check_line(check: &Check) -> String {
    let unknown = if check.status == CheckStatus::Unknown { "not known, " } else { "" };
    let refuses = if check.refuses() { " (refuses)" } else { "" };
    format!("{}{refuses}: {unknown}{}", words::printable(&check.id), words::printable(&check.detail))
}

fn table(record: &Record) -> String {
    let arms = &record.run.plan.arms;
    let bases = words::bases(record);
    let unit = Shown::time(&record.host).name();
    let entry = words::entry_metric(record);
    let entry_title = if entry.name == FIRST_INSTRUCTION.name {
        "first user\ninstruction"
    } else {
        "to execve\nof command"
    };
    let mut header = vec![
        "level".to_owned(),
        format!("{entry_title}, {unit}"),
        format!("to ready\n{unit}"),
        format!("to clean\n{unit}"),
        if words::memory_is_peak(record) { "peak of\nmemory, MiB" } else { "memory\nMiB (peak)" }.to_owned(),
        "exit".to_owned(),
    ];
    header.extend(
        bases.iter().map(|base| format!("{} vs\n{}", words::leading_word(record), words::printable(base))),
    );
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for arm in arms {
        let mut row = vec![words::printable(arm)];
        for metric in [entry, &READINESS, &CLEAN] {
            row.push(cell(record, metric, arm));
        }
        row.push(memory_cell(record, arm));
        row.push(words::statuses(record, arm).replace(", ", "\n"));
        row.extend(bases.iter().map(|base| ratio(record, base, arm)));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.column_iter_mut().for_each(|c| {
        c.set_padding((0, 2));
    });
    table.to_string()
}

fn arm_summary<'a>(record: &'a Record, metric: &Metric, arm: &str) -> Option<&'a ArmSummary> {
    record.summary_of(metric.name)?.arms.get(arm)
}

fn cell(record: &Record, metric: &Metric, arm: &str) -> String {
    let shown = Shown::time(&record.host);
    arm_summary(record, metric, arm).map_or_else(
        || "-".to_owned(),
        |s| {
            let interval = s.ci95.map(|ends| format!("\n{}", shown.interval(s.median, ends)));
            format!("{}{}", digits(shown.scaled(s.median)), interval.unwrap_or_default())
        },
    )
}

fn memory_cell(record: &Record, arm: &str) -> String {
    let of = |metric: &Metric| arm_summary(record, metric, arm).map(|s| digits(Shown::MiB.scaled(s.median)));
    let charge = of(&CHARGE).filter(|_| !words::memory_is_peak(record));
    match (charge, of(&PEAK)) {
        (Some(charge), Some(peak)) => format!("{charge}\n({peak})"),
        (None, Some(peak)) => peak,
        _ => "-".to_owned(),
    }
}

/// Ratio of medians of the leading metric: the paired one, with its interval, stands in the sentences.
fn ratio(record: &Record, base: &str, arm: &str) -> String {
    let metric = words::leading_metric(record);
    let median = |arm| arm_summary(record, metric, arm).map(|s| s.median);
    match (median(base), median(arm)) {
        (Some(a), Some(b)) if a > 0.0 => factor(b / a),
        _ => "-".to_owned(),
    }
}
