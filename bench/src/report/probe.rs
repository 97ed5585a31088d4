//! The report of a probe run for a terminal: findings first, then what is shared by design, then the matrix, then the evidence
//! where it is wanted.

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

use crate::probe::{BASELINE, Cell, ItemRecord, Outcome, ProbeRecord, Verdict};
use crate::report::text::{TextStyle, fill};
use crate::report::words::{self, printable};

/// Most names of items in one cell of the matrix.
const MOST_NAMES: usize = 2;
/// Longest piece of what was seen that the text shows.
const MOST_SEEN: usize = 160;

/// What was probed.
pub(crate) fn subject(record: &ProbeRecord) -> String {
    format!("what {} isolates: {}", levels(record), printable(&record.image))
}

fn levels(record: &ProbeRecord) -> String {
    record.levels.iter().map(|run| printable(&run.level)).collect::<Vec<_>>().join(", ")
}

/// The machine that "the host" means.
pub(crate) fn place(record: &ProbeRecord) -> String {
    let place = words::place(&record.host);
    let in_lab = record.host.class == crate::environment::HostClass::EmulatedLab;
    if in_lab { format!("{place} The lab is the host of all levels here.") } else { place }
}

/// Whether everything is as published, in one sentence.
pub(crate) fn verdict(record: &ProbeRecord) -> String {
    let (findings, unknown) = (record.with(Verdict::Finding).count(), record.with(Verdict::Unknown).count());
    let cells = record.cells.len();
    match (findings, unknown) {
        (0, 0) => format!("all {cells} cells are as published (docs/probe.md){}", with_nothing(record)),
        _ => format!("{findings} of {cells} cells are not as published, {unknown} show nothing"),
    }
}

/// Which cells show nothing, since this machine has nothing of what they ask about.
fn with_nothing(record: &ProbeRecord) -> String {
    let nothing = |cell: &&Cell| {
        cell.outcome == Outcome::NotApplicable && cell.expected.is_some_and(|outcome| outcome != cell.outcome)
    };
    let cells: Vec<String> = record
        .cells
        .iter()
        .filter(nothing)
        .map(|cell| format!("{} at {}", printable(&cell.probe), printable(&cell.level)))
        .collect();
    if cells.is_empty() {
        return String::new();
    }
    format!(
        "; of these {} show nothing, for there is nothing of the kind here: {}",
        cells.len(),
        cells.join(", ")
    )
}

/// One sentence for each cell that is not as published.
pub(crate) fn findings(record: &ProbeRecord) -> Vec<String> {
    let wrong = record.cells.iter().filter(|cell| cell.verdict != Verdict::Ok);
    wrong
        .map(|cell| {
            let what = if cell.verdict == Verdict::Finding { "finding" } else { "unknown" };
            let note = cell.note.as_deref().unwrap_or_default();
            format!("{what}: {} at {}: {}", title(&cell.probe), printable(&cell.level), printable(note))
        })
        .collect()
}

/// What the levels with isolation share with the host, as published: facts, not failures.
pub(crate) fn shared(record: &ProbeRecord) -> Vec<String> {
    let host = record.cells.iter().filter(|cell| {
        cell.level != BASELINE
            && !cell.own_kernel
            && cell.outcome == Outcome::Reached
            && cell.verdict == Verdict::Ok
    });
    host.map(|cell| {
        let names = cell.reached().map(printable).collect::<Vec<_>>().join(", ");
        format!(
            "{} reaches {} ({}): {}",
            printable(&cell.level),
            title(&cell.probe),
            names,
            printable(&cell.means)
        )
    })
    .collect()
}

/// Cells of the baseline that show less than is published: what the others show by them is less.
pub(crate) fn notes(record: &ProbeRecord) -> Vec<String> {
    let noted = record.cells.iter().filter(|cell| cell.verdict == Verdict::Ok);
    noted
        .filter_map(|cell| {
            let note = cell.note.as_deref()?;
            Some(format!("{} at {}: {}", title(&cell.probe), printable(&cell.level), printable(note)))
        })
        .collect()
}

fn title(id: &str) -> String {
    crate::probe::table::row(id).map_or_else(|| printable(id), |row| format!("{} {}", row.id, row.title))
}

/// A cell in a few words.
pub(crate) fn word(cell: &Cell) -> String {
    match cell.outcome {
        Outcome::NotApplicable => "-".to_owned(),
        Outcome::Reached | Outcome::Blocked if cell.expected.is_none() => "reported".to_owned(),
        Outcome::Unknown => "unknown".to_owned(),
        Outcome::Blocked => format!("blocked: {}", printable(&cell.layers().join(", "))),
        Outcome::Reached if cell.own_kernel => "reached (own kernel)".to_owned(),
        Outcome::Reached if cell.level == BASELINE => "reached".to_owned(),
        Outcome::Reached => {
            let names: Vec<String> = cell.reached().map(printable).collect();
            let tried = cell.items.iter().filter(|item| item.outcome != Outcome::NotApplicable).count();
            if names.len() == tried {
                "reached".to_owned()
            } else if names.len() <= MOST_NAMES {
                format!("reached: {}", names.join(", "))
            } else {
                format!("reached: {} of {tried}", names.len())
            }
        }
    }
}

/// The report, with its last newline. `evidence`: every item of every cell.
#[must_use]
pub fn render(record: &ProbeRecord, style: TextStyle, evidence: bool) -> String {
    let mut out = String::new();
    let paint = |text: &str, code: &str| {
        if style.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    let mut line = |key: &str, value: &str, code: &str| {
        let lines = fill(value, &format!("{key:<9}"), "         ", style.columns);
        out.push_str(&if code.is_empty() { lines } else { paint(&lines, code) });
        out.push('\n');
    };
    line("where", &place(record), "");
    line("image", &format!("{} {}", printable(&record.image), printable(&record.image_digest)), "");
    line(
        "program",
        &format!("isolab-probe sha256:{}, the same at every level", printable(&record.program.sha256)),
        "",
    );
    line("verdict", &verdict(record), if record.as_published() { "1;32" } else { "1;31" });
    let findings = findings(record);
    for finding in &findings {
        line("", finding, "1;31");
    }
    let sections = [
        ("Shared with the host, as published (facts, not failures):", shared(record)),
        ("Notes:", notes(record)),
    ];
    for (head, sentences) in sections {
        if !sentences.is_empty() {
            out.push('\n');
            out.push_str(&paint(head, "1"));
            out.push('\n');
            for sentence in sentences {
                out.push_str(&fill(&sentence, "  ", "    ", style.columns));
                out.push('\n');
            }
        }
    }
    out.push('\n');
    out.push_str(&matrix(record, style));
    if evidence {
        for cell in &record.cells {
            out.push('\n');
            out.push_str(&cell_evidence(cell, style));
        }
    } else {
        out.push_str("\nThe evidence of each cell: --evidence, --json, --html, or --only ID.\n");
    }
    out
}

fn matrix(record: &ProbeRecord, style: TextStyle) -> String {
    let levels: Vec<&str> = record.levels.iter().map(|run| run.level.as_str()).collect();
    let mut table = Table::new();
    let width = u16::try_from(style.columns).unwrap_or(u16::MAX);
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(
        ["probe"].into_iter().map(str::to_owned).chain(levels.iter().map(|level| printable(level))),
    );
    for row in record.rows() {
        let cells = levels.iter().map(|level| {
            record.cell(row.id, level).map_or_else(String::new, |cell| {
                let mark = match cell.verdict {
                    Verdict::Ok => "",
                    Verdict::Finding => "! ",
                    Verdict::Unknown => "? ",
                };
                format!("{mark}{}", word(cell))
            })
        });
        table.add_row(std::iter::once(format!("{} {}", row.id, row.title)).chain(cells).collect::<Vec<_>>());
    }
    table.column_iter_mut().for_each(|c| {
        c.set_padding((0, 2));
    });
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn cell_evidence(cell: &Cell, style: TextStyle) -> String {
    let expected = cell.expected.map_or("reported", Outcome::word);
    let head = format!(
        "{} at {}: {} (published: {expected}; {})",
        title(&cell.probe),
        printable(&cell.level),
        cell.outcome.word(),
        printable(&cell.means)
    );
    let mut out = fill(&head, "", "  ", style.columns) + "\n";
    for item in &cell.items {
        out.push_str(&fill(&item_line(item), "  ", "      ", style.columns));
        out.push('\n');
    }
    out
}

fn item_line(item: &ItemRecord) -> String {
    let mut line = format!("{}: {}", printable(&item.item), item.outcome.word());
    if let Some(reason) = &item.reason {
        line.push_str(&format!(" by {}", refusal(reason)));
    }
    if let Some(seen) = item.seen.as_deref().filter(|seen| !seen.is_empty()) {
        line.push_str(&format!("; seen: {}", cut(seen)));
    }
    if let Some(host) = &item.host_truth {
        line.push_str(&format!("; host: {}", cut(host)));
    }
    line
}

/// Who refused, with error or signal.
pub(crate) fn refusal(reason: &crate::probe::Reason) -> String {
    let error = match (&reason.error, reason.errno, reason.signal) {
        (Some(name), ..) => format!(" ({})", printable(name)),
        (None, Some(errno), _) => format!(" (error {errno})"),
        (None, None, Some(signal)) => format!(" (signal {signal})"),
        _ => String::new(),
    };
    format!("{}{error}", printable(&reason.layer))
}

/// The beginning, with control characters escaped.
pub(crate) fn cut(text: &str) -> String {
    let text = printable(text);
    if text.chars().count() <= MOST_SEEN {
        return text;
    }
    text.chars().take(MOST_SEEN).collect::<String>() + "..."
}
