//! The report as Markdown, for an issue, a wiki or a lab book.

use std::fmt::Write;

use crate::comparability::Verdict;
use crate::record::Record;
use crate::report::quantity::{Shown, factor};
use crate::report::text::check_line;
use crate::report::words;
use crate::suite::lines::SuiteRecord;
use crate::summary::{Metric, PEAK};

mod suite;

/// The report, with its last newline.
#[must_use]
pub fn render(record: &Record) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write(&mut out, record);
    out
}

/// The report of a bench run, with its last newline.
#[must_use]
pub fn render_bench(record: &SuiteRecord) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = suite::write(&mut out, record);
    out
}

fn write(out: &mut String, record: &Record) -> std::fmt::Result {
    let verdict = record.comparability.verdict;
    writeln!(out, "## isolab compare {}\n", escaped(&words::subject(record)))?;
    writeln!(out, "* **Verdict:** {}", words::verdict_word(verdict))?;
    for check in record.comparability.checks.iter().filter(|c| c.speaks()) {
        writeln!(out, "    * {}", escaped(&check_line(check)))?;
    }
    writeln!(out, "* **Where:** {}", escaped(&words::place(&record.host)))?;
    writeln!(out, "* **What may be claimed:** {}", escaped(&words::claims(record)))?;
    writeln!(out, "* **Runs:** {}", escaped(&words::arrangement(record)))?;
    writeln!(out, "* **Record:** run {}\n", escaped(&words::printable(&record.run.id)))?;
    if let Some(mark) = record.comparability.watermark.as_deref() {
        writeln!(
            out,
            "**{}: numbers by --allow-incomparable, and no finding.**\n",
            escaped(&words::printable(mark))
        )?;
    } else if verdict == Verdict::Refused {
        writeln!(out, "**NOT COMPARABLE: each row stands alone, no row may be set against another.**\n")?;
    }
    table(out, record)?;
    for sentence in words::statements(record).into_iter().chain(words::skipped(&record.skipped)) {
        writeln!(out, "* {}", escaped(&sentence))?;
    }
    Ok(())
}

fn table(out: &mut String, record: &Record) -> std::fmt::Result {
    let arms = &record.run.plan.arms;
    let bases = words::bases(record);
    let lead = words::leading_metric(record);
    let wanted =
        |m: &&Metric| !words::memory_is_peak(record) || m.name == PEAK.name || !m.name.starts_with("memory.");
    let headline = crate::summary::METRICS.into_iter().filter(|m| record.summary_of(m.name).is_some());
    let columns: Vec<&Metric> = headline.filter(wanted).collect();
    let mut header = vec!["level".to_owned()];
    header.extend(columns.iter().map(|m| format!("{}, {}", m.name, Shown::of(m.unit, &record.host).name())));
    header.push("exit".to_owned());
    header.extend(
        bases.iter().map(|base| format!("{} vs {}", words::leading_word(record), words::printable(base))),
    );
    head(out, &header)?;
    for arm in arms {
        let mut row = vec![words::printable(arm)];
        row.extend(columns.iter().map(|metric| cell(record, metric, arm)));
        row.push(words::statuses(record, arm));
        row.extend(bases.iter().map(|base| ratio(record, lead, base, arm)));
        line(out, &row)?;
    }
    out.push('\n');
    Ok(())
}

/// A line of a table.
fn line(out: &mut String, cells: &[String]) -> std::fmt::Result {
    let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
    writeln!(out, "| {} |", cells.join(" | "))
}

/// The titles of a table, all columns but the first to the right.
fn head(out: &mut String, titles: &[String]) -> std::fmt::Result {
    line(out, titles)?;
    writeln!(out, "|---|{}", "---:|".repeat(titles.len().saturating_sub(1)))
}

fn cell(record: &Record, metric: &Metric, arm: &str) -> String {
    let shown = Shown::of(metric.unit, &record.host);
    let summary = record.summary_of(metric.name).and_then(|s| s.arms.get(arm));
    summary.map_or_else(
        || "-".to_owned(),
        |s| {
            let interval = s.ci95.map(|ends| format!(" {}", shown.interval(s.median, ends)));
            let value = shown.with_unit(s.median);
            format!("{}{}", value.split(' ').next().unwrap_or_default(), interval.unwrap_or_default())
        },
    )
}

fn ratio(record: &Record, metric: &Metric, base: &str, arm: &str) -> String {
    let median = |arm| record.summary_of(metric.name).and_then(|s| Some(s.arms.get(arm)?.median));
    match (median(base), median(arm)) {
        (Some(a), Some(b)) if a > 0.0 => factor(b / a),
        _ => "-".to_owned(),
    }
}

/// Text in which nothing is a mark of Markdown or of HTML.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '|' | '#' | '~' | '!' | '@' | '>' => {
                out.extend(['\\', c])
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_from_outside_are_text() {
        assert_eq!(escaped("a|b <c> `d`"), "a\\|b &lt;c\\> \\`d\\`");
    }
}
