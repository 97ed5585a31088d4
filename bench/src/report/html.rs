//! The report as one HTML file that loads nothing: no script, no font, no address but the raw record inside it.
//!
//! The policy in its head forbids everything else to the browser as well. Every text passes maud's escaping.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::comparability::Verdict;
use crate::record::{Record, RecordError};
use crate::report::text::check_line;
use crate::report::words;
use crate::summary::METHOD;

mod chart;
mod distribution;
mod memory;
mod plot;
mod tables;
mod timeline;

const STYLE: &str = include_str!("html/style.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page of one record.
///
/// # Errors
/// The record can't be written as JSON.
pub fn render(record: &Record) -> Result<String, RecordError> {
    page(std::slice::from_ref(record))
}

/// One page of all these records, one after the other.
///
/// # Errors
/// A record can't be written as JSON.
pub fn page(records: &[Record]) -> Result<String, RecordError> {
    let bodies = records.iter().map(body).collect::<Result<Vec<_>, _>>()?;
    let subjects: Vec<String> = records.iter().map(words::subject).collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "isolab: " (subjects.join("; ")) }
                style { (PreEscaped(STYLE)) }
            }
            body { @for body in &bodies { (body) } }
        }
    };
    Ok(page.into_string())
}

fn body(record: &Record) -> Result<Markup, RecordError> {
    let raw = STANDARD.encode(serde_json::to_vec(record).map_err(RecordError::Write)?);
    Ok(html! {
        main {
            (head(record))
            (findings(record))
            (tables::headline(record))
            (timeline::section(record))
            (memory::section(record))
            (distribution::section(record))
            (tables::environment(record))
            (tables::checks(record))
            (raw_data(record, &raw))
            footer { p { "Made by isolab " (words::printable(&record.run.tool.version)) ". This page loads nothing from anywhere." } }
        }
    })
}

fn head(record: &Record) -> Markup {
    let started = UNIX_EPOCH.checked_add(Duration::from_nanos(record.run.started_unix_ns));
    // The formatter knows the years up to 9999; nanoseconds in 64 bits end in 2554.
    let started = started.map(|t| humantime::format_rfc3339_seconds(t).to_string()).unwrap_or_default();
    let verdict = record.comparability.verdict;
    html! {
        @if let Some(mark) = record.comparability.watermark.as_deref() {
            div class="banner" role="alert" { (words::printable(mark)) }
        }
        p class="eyebrow" { "isolab compare \u{b7} " (started) " \u{b7} run " (words::printable(&record.run.id)) }
        h1 { code { (words::subject(record)) } }
        div class={ "verdict " (words::verdict_word(verdict)) } {
            span class="pill" { (words::verdict_word(verdict)) }
            p { b { "Where. " } (words::place(record)) }
            p { b { "What may be claimed. " } (words::claims(record)) }
            p { b { "Runs. " } (words::arrangement(record)) }
            @let doubts: Vec<_> = record.comparability.checks.iter().filter(|c| c.speaks()).collect();
            @if !doubts.is_empty() {
                ul { @for check in doubts { li { (check_line(check)) } } }
            }
        }
    }
}

fn findings(record: &Record) -> Markup {
    let statements = words::statements(record);
    let skipped = words::skipped(record);
    let refused = record.comparability.verdict == Verdict::Refused;
    html! {
        @if refused || !statements.is_empty() || !skipped.is_empty() {
            section {
                h2 { "Findings" }
                @if refused {
                    @let mark = record.comparability.watermark.as_deref().unwrap_or("NOT COMPARABLE");
                    p class="watermark" { (words::printable(mark)) ": this record supports no comparison of its levels." }
                }
                ul class="findings" {
                    @for sentence in statements.iter().chain(&skipped) { li { (sentence) } }
                }
            }
        }
    }
}

/// The watermark of a refused record, in each section that shows levels together.
fn alone(record: &Record) -> Markup {
    let forced = record.comparability.watermark.as_deref();
    html! {
        @if let Some(mark) = forced {
            p class="watermark" { (words::printable(mark)) ": shown by --allow-incomparable." }
        } @else if record.comparability.verdict == Verdict::Refused {
            p class="watermark" { "NOT COMPARABLE: each level stands alone." }
        }
    }
}

fn raw_data(record: &Record, base64: &str) -> Markup {
    let name = format!("isolab-{}.json", words::printable(&record.run.id));
    html! {
        section {
            h2 { "Raw record" }
            p class="caption" {
                "All " (record.samples.len()) " runs with every stamp, warm-up and failures included: each number of this \
                 page can be computed from it again."
            }
            p { a class="button" download=(name) href={ "data:application/json;base64," (base64) } { "Download the record (JSON)" } }
            p class="note" { "Method: " (METHOD) "." }
        }
    }
}
