//! The page of a probe run: findings, the matrix, and the evidence of every cell below it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use super::{eyebrow_at, foot};
use crate::probe::{BASELINE, Cell, Outcome, ProbeRecord, ProbeRecordError, Verdict};
use crate::report::probe::{cut, findings, notes, place, refusal, shared, subject, verdict, word};
use crate::report::words::printable;

pub(super) fn body(record: &ProbeRecord) -> Result<Markup, ProbeRecordError> {
    let address = format!("data:application/json;base64,{}", STANDARD.encode(record.to_json()?));
    let tone = if record.as_published() { "comparable" } else { "refused" };
    Ok(html! {
        main {
            (eyebrow_at("probe", record.started_unix_ns))
            h1 { (subject(record)) }
            div class={ "verdict " (tone) } {
                span class="pill" { @if record.as_published() { "as published" } @else { "not as published" } }
                p { b { "Result. " } (verdict(record)) "." }
                p { b { "Where. " } (place(record)) }
                p { b { "Program. " } "One static program at every level, handed in by descriptor and part of no image: sha256:" code { (printable(&record.program.sha256)) } "." }
            }
            (list("Findings", "Cells that are not as published, and probes that show nothing.", &findings(record)))
            (matrix(record))
            (list("Shared with the host", "As published: facts of a shared kernel or processor, not failures.", &shared(record)))
            (list("Notes", "Where this machine has less to show.", &notes(record)))
            (planted(record))
            (evidence(record))
            section {
                h2 { "Raw record" }
                p class="caption" { "All cells with every item: this page can be made from it again." }
                p { a class="button" download="isolab-probe.json" href=(address) { "Download the record (JSON)" } }
            }
            (foot(&record.tool))
        }
    })
}

fn list(head: &str, caption: &str, sentences: &[String]) -> Markup {
    html! {
        @if !sentences.is_empty() {
            section {
                h2 { (head) }
                p class="caption" { (caption) }
                ul class="findings small" { @for sentence in sentences { li { (sentence) } } }
            }
        }
    }
}

/// The class that colours a cell.
const fn tone(cell: &Cell) -> &'static str {
    match (cell.verdict, cell.outcome) {
        (Verdict::Finding, _) => "finding",
        (Verdict::Unknown, _) | (_, Outcome::Unknown) => "doubt",
        (Verdict::Ok, Outcome::Blocked) => "blocked",
        (Verdict::Ok, Outcome::Reached) if cell.own_kernel => "own",
        (Verdict::Ok, Outcome::Reached) => "shared",
        (Verdict::Ok, Outcome::NotApplicable) => "none",
    }
}

fn matrix(record: &ProbeRecord) -> Markup {
    html! {
        section {
            h2 { "The matrix" }
            p class="caption" { "What of the host is visible, reachable or allowed at each level. Each cell leads to its evidence." }
            div class="scroll" {
                table class="cards matrix" {
                    thead { tr { th { "Probe" } @for run in &record.levels { th { (printable(&run.level)) } } } }
                    tbody {
                        @for row in record.rows() {
                            tr {
                                th { (row.id) " " (row.title) span class="meaning" { (row.question) } }
                                @for run in &record.levels {
                                    @if let Some(cell) = record.cell(row.id, &run.level) {
                                        td class={ "cell " (tone(cell)) } data-label=(printable(&run.level)) {
                                            a href={ "#" (row.id) "-" (printable(&run.level)) } { (word(cell)) }
                                        }
                                    } @else { td {} }
                                }
                            }
                        }
                    }
                }
            }
            ul class="legend" {
                li { span class="swatch k-blocked" {} "blocked" }
                li { span class="swatch k-own" {} "reached, of a kernel of its own" }
                li { span class="swatch k-shared" {} "reached, of the host" }
                li { span class="swatch k-finding" {} "not as published" }
            }
        }
    }
}

fn planted(record: &ProbeRecord) -> Markup {
    html! {
        section {
            h2 { "What was planted on the host" }
            p class="caption" { "Random in each run, and gone after it. A level that finds one of them has reached the host." }
            dl { @for fact in &record.planted { dt { (printable(&fact.what)) } dd { (printable(&fact.value)) } } }
        }
    }
}

fn evidence(record: &ProbeRecord) -> Markup {
    html! {
        section {
            h2 { "Evidence" }
            p class="caption" { "Every attempt: what was seen inside, what the host knows, and who refused. Re-run one with isolab probe --only ID --level LEVEL." }
            @for row in record.rows() {
                h3 class="probe" { (row.id) " " (row.title) }
                p class="note" { (row.question) " Method: " (row.method) "." }
                @for run in &record.levels {
                    @if let Some(cell) = record.cell(row.id, &run.level) { (one(cell)) }
                }
            }
        }
    }
}

fn one(cell: &Cell) -> Markup {
    let expected = cell.expected.map_or("reported", Outcome::word);
    html! {
        details id={ (printable(&cell.probe)) "-" (printable(&cell.level)) } open[cell.verdict != Verdict::Ok] {
            summary {
                (printable(&cell.level)) ": " (cell.outcome.word())
                span class="note" { " (published: " (expected) "; " (printable(&cell.means)) @if cell.level == BASELINE { "; the baseline" } ")" }
            }
            @if let Some(note) = &cell.note { p class="note" { (printable(note)) } }
            div class="scroll" {
                table class="compact words" {
                    thead { tr { th { "Tried" } th { "Outcome" } th { "Refused by" } th { "Seen inside" } th { "Host" } } }
                    tbody {
                        @for item in &cell.items {
                            tr {
                                td { (printable(&item.item)) }
                                td { (item.outcome.word()) }
                                td { @if let Some(reason) = &item.reason { (refusal(reason)) } }
                                td { (cut(item.seen.as_deref().unwrap_or_default())) }
                                td { (cut(item.host_truth.as_deref().unwrap_or_default())) }
                            }
                        }
                    }
                }
            }
        }
    }
}
