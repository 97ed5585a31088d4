//! The report of a bench run as Markdown.

use std::fmt::Write;

use super::{escaped, head, line};
use crate::comparability::Verdict;
use crate::report::suite::{Cell, Row, arrangement, blocks, failed, interrupted, ratio_titles, subject};
use crate::report::text::check_line;
use crate::report::{density, words};
use crate::suite::lines::SuiteRecord;

pub(super) fn write(out: &mut String, record: &SuiteRecord) -> std::fmt::Result {
    writeln!(out, "## isolab bench {}\n", escaped(&subject(record)))?;
    writeln!(out, "* **Verdict:** {}", words::verdict_word(record.end.verdict))?;
    for check in record.end.checks.iter().filter(|c| c.speaks()) {
        writeln!(out, "    * {}", escaped(&check_line(check)))?;
    }
    writeln!(out, "* **Where:** {}", escaped(&words::place(&record.run.host)))?;
    let facts = [
        ("Runs", arrangement(record)),
        ("Failed", failed(record)),
        ("Ended", interrupted(record)),
        ("Record", Some(format!("run {}", words::printable(&record.run.id)))),
    ];
    for (name, fact) in facts {
        if let Some(fact) = fact {
            writeln!(out, "* **{name}:** {}", escaped(&fact))?;
        }
    }
    out.push('\n');
    if record.end.verdict == Verdict::Refused {
        writeln!(out, "**NOT COMPARABLE: each level stands alone.**\n")?;
    }
    for block in blocks(record) {
        writeln!(out, "### {}\n\n{}\n", escaped(&block.name), escaped(block.about))?;
        let mut titles = vec!["workload".to_owned(), "unit".to_owned()];
        titles.extend(record.run.plan.arms.iter().map(|arm| words::printable(arm)));
        titles.extend(ratio_titles(record));
        head(out, &titles)?;
        for row in &block.rows {
            line(out, &cells(row))?;
        }
        out.push('\n');
    }
    densities(out, record)?;
    for sentence in words::skipped(&record.run.skipped) {
        writeln!(out, "* {}", escaped(&sentence))?;
    }
    Ok(())
}

fn cells(row: &Row) -> Vec<String> {
    let doubts: String = row.doubts.iter().map(|doubt| format!("; doubt: {doubt}")).collect();
    let mut cells = vec![format!("{}{doubts}", row.title), row.unit.to_owned()];
    cells.extend(row.levels.iter().chain(&row.ratios).map(|cell| Cell::joined(cell.as_ref(), " ")));
    cells
}

fn densities(out: &mut String, record: &SuiteRecord) -> std::fmt::Result {
    if !record.densities.is_empty() {
        writeln!(out, "### density\n\n{}\n", escaped(density::ABOUT))?;
    }
    let host = &record.run.host;
    for curve in &record.densities {
        writeln!(out, "#### {}\n", escaped(&words::printable(&curve.level)))?;
        head(out, &density::titles(host).map(|title| title.trim().replace('\n', " ")))?;
        for point in &curve.points {
            line(out, &density::numbers(point, host))?;
        }
        out.push('\n');
        for sentence in density::sentences(curve) {
            writeln!(out, "* {}", escaped(&sentence))?;
        }
        out.push('\n');
    }
    Ok(())
}
