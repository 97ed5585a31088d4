//! The page of a bench run: verdict and place, a table for each suite, the density curves, the machine, the checks.

use maud::{Markup, html};

use super::{Raw, apart, density, eyebrow, foot, tables, verdict_box};
use crate::report::suite::{
    Block, Cell, Row, arrangement, blocks, failed, interrupted, ratio_titles, subject,
};
use crate::report::words::{capital, not_included, place, printable, skipped};
use crate::suite::lines::{LinesError, SuiteRecord};

pub(super) fn body(record: &SuiteRecord) -> Result<Markup, LinesError> {
    let run = &record.run;
    let mut host = run.host.clone();
    host.noise = record.end.noise.clone();
    let raw = Raw {
        content: record.to_text()?.into_bytes(),
        media: "application/jsonl",
        name: format!("isolab-{}.jsonl", printable(&run.id)),
        form: "JSON Lines",
        runs: record.samples.len(),
    };
    let facts = [
        ("Where", Some(place(&host))),
        ("What the numbers are not", Some(not_included(&host))),
        ("Runs", arrangement(record).map(|runs| format!("{runs}."))),
        ("Failed", failed(record)),
        ("Ended", interrupted(record)),
    ];
    let facts: Vec<(&str, String)> =
        facts.into_iter().filter_map(|(name, fact)| Some((name, fact?))).collect();
    let skipped = skipped(&run.skipped);
    Ok(html! {
        main {
            (eyebrow("bench", run.started_unix_ns, &run.id))
            h1 { code { (subject(record)) } }
            (verdict_box(record.end.verdict, &facts, &record.end.checks))
            @if !skipped.is_empty() {
                section {
                    h2 { "Not run" }
                    ul class="findings" { @for sentence in &skipped { li { (sentence) } } }
                }
            }
            @for block in &blocks(record) { (table(record, block)) }
            (density::section(record))
            (tables::environment(&host, &run.tool, &run.plan.arms, &record.end.arms))
            (tables::checks(&record.end.checks, &[]))
            (raw.section(html! {}))
            (foot(&run.tool))
        }
    })
}

/// A suite: every workload at every level, and each level against the first.
fn table(record: &SuiteRecord, block: &Block) -> Markup {
    let arms: Vec<String> = record.run.plan.arms.iter().map(|arm| printable(arm)).collect();
    let ratios = ratio_titles(record);
    html! {
        section {
            h2 { (block.name) }
            p class="caption" {
                (capital(block.about)) ": medians with 95 % bootstrap intervals"
                @if !ratios.is_empty() { ", and the ratio of each level to the first, pair by pair" } "."
            }
            (apart(record.end.verdict))
            div class="scroll" { table class="cards" {
                thead { tr {
                    th { "Workload" }
                    @for (i, arm) in arms.iter().enumerate() { th { span class={ "swatch c-" (i % 5) } {} (arm) } }
                    @for ratio in &ratios { th { (ratio) } }
                } }
                tbody { @for row in &block.rows { (line(row, &arms, &ratios)) } }
            } }
        }
    }
}

fn line(row: &Row, arms: &[String], ratios: &[String]) -> Markup {
    html! {
        tr {
            th { span {
                (row.title)
                @for doubt in &row.doubts { span class="weaker" { "doubt: " (doubt) } }
            } }
            @for (arm, cell) in arms.iter().zip(&row.levels) { td data-label=(arm) { (number(cell.as_ref(), row.unit)) } }
            @for (ratio, cell) in ratios.iter().zip(&row.ratios) { td data-label=(ratio) { (number(cell.as_ref(), "")) } }
        }
    }
}

fn number(cell: Option<&Cell>, unit: &str) -> Markup {
    html! {
        @if let Some(cell) = cell {
            span {
                span class="big" { (cell.value) @if !unit.is_empty() { " " (unit) } }
                @if let Some(interval) = &cell.interval { span class="interval" { (interval) } }
            }
        } @else { "\u{2013}" }
    }
}
