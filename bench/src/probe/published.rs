//! The published table as Markdown: what `docs/probe.md` holds between its two marks.

use std::fmt::Write;

use super::table::{Expect, Expected, ROWS};

/// The tables of the document.
#[must_use]
pub fn markdown() -> String {
    let mut out = "| probe | process | container | vm |\n|---|---|---|---|\n".to_owned();
    for row in ROWS {
        let [process, container, vm] = &row.levels;
        let cells = [cell(process, false), cell(container, false), cell(vm, true)];
        // Writing to a string does not fail.
        let _ = writeln!(out, "| {} {} | {} |", row.id, row.title, cells.join(" | "));
    }
    out.push_str("\n| probe | asks | how it finds out |\n|---|---|---|\n");
    for row in ROWS {
        let _ = writeln!(out, "| {} | {} | {} |", row.id, row.question, row.method);
    }
    out
}

fn cell(expect: &Expect, guest: bool) -> String {
    let outcome = match expect.outcome {
        Expected::Reached if guest && expect.is_of_the_kernel() => "reached (own kernel)",
        Expected::Reached => "reached",
        Expected::Blocked => "blocked",
        Expected::NotApplicable => "not applicable",
        Expected::Any => "reported",
    };
    match expect.items {
        Some(items) if expect.outcome == Expected::Blocked => {
            format!("{outcome}: {} (but for: {})", expect.means, items.join(", "))
        }
        Some(items) if !guest => format!("{outcome}: {} (only: {})", expect.means, items.join(", ")),
        _ => format!("{outcome}: {}", expect.means),
    }
}
