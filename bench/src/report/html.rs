//! The report as one HTML file that loads nothing: no script, no font, no address but the raw record inside it.
//!
//! The policy in its head forbids everything else to the browser as well. Every text passes maud's escaping.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::comparability::{Check, Verdict};
use crate::probe::{ProbeRecord, ProbeRecordError};
use crate::record::{Record, RecordError, Tool};
use crate::recorded::{Recorded, RecordedError};
use crate::report::text::check_line;
use crate::report::words;
use crate::suite::lines::{LinesError, SuiteRecord};
use crate::summary::METHOD;

mod chart;
mod density;
mod distribution;
mod knobs;
mod memory;
mod plot;
mod probe;
mod suite;
mod tables;
mod timeline;

const STYLE: &str = include_str!("html/style.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page of one record.
///
/// # Errors
/// The record can't be written as JSON.
pub fn render(record: &Record) -> Result<String, RecordError> {
    Ok(whole(&[words::subject(record)], &[body(record)?]))
}

/// The page of one bench run.
///
/// # Errors
/// The record can't be written as JSON Lines.
pub fn render_bench(record: &SuiteRecord) -> Result<String, LinesError> {
    Ok(whole(&[super::suite::subject(record)], &[suite::body(record)?]))
}

/// The page of one probe run.
///
/// # Errors
/// The record can't be written as JSON.
pub fn render_probe(record: &ProbeRecord) -> Result<String, ProbeRecordError> {
    Ok(whole(&[super::probe::subject(record)], &[probe::body(record)?]))
}

/// One page of all these records, one after the other.
///
/// # Errors
/// A record can't be written as JSON.
pub fn page(records: &[Recorded]) -> Result<String, RecordedError> {
    let (mut subjects, mut bodies) = (Vec::new(), Vec::new());
    for record in records {
        let (subject, body) = match record {
            Recorded::Comparison(record) => (words::subject(record), body(record)?),
            Recorded::Bench(record) => (super::suite::subject(record), suite::body(record)?),
        };
        subjects.push(subject);
        bodies.push(body);
    }
    Ok(whole(&subjects, &bodies))
}

fn whole(subjects: &[String], bodies: &[Markup]) -> String {
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
            body { @for body in bodies { (body) } }
        }
    };
    page.into_string()
}

fn body(record: &Record) -> Result<Markup, RecordError> {
    let raw = Raw {
        content: serde_json::to_vec(record).map_err(RecordError::Write)?,
        media: "application/json",
        name: format!("isolab-{}.json", words::printable(&record.run.id)),
        form: "JSON",
        runs: record.samples.len(),
    };
    let order = &record.run.plan.arms;
    Ok(html! {
        main {
            (head(record))
            (findings(record))
            (tables::headline(record))
            (knobs::section(record))
            (timeline::section(record))
            (memory::section(record))
            (distribution::section(record))
            (tables::environment(&record.host, &record.run.tool, order, &record.arms))
            (tables::checks(&record.comparability.checks, &record.crosschecks))
            (raw.section(html! { p class="note" { "Method: " (METHOD) "." } }))
            (foot(&record.run.tool))
        }
    })
}

fn foot(tool: &Tool) -> Markup {
    html! {
        footer { p { "Made by isolab " (words::printable(&tool.version)) ". This page loads nothing from anywhere." } }
    }
}

/// Which command, when, which run.
fn eyebrow(command: &str, started_unix_ns: u64, id: &str) -> Markup {
    html! {
        p class="eyebrow" { "isolab " (command) " \u{b7} " (moment(started_unix_ns)) " \u{b7} run " (words::printable(id)) }
    }
}

/// The same of a run without an id.
fn eyebrow_at(command: &str, started_unix_ns: u64) -> Markup {
    html! { p class="eyebrow" { "isolab " (command) " \u{b7} " (moment(started_unix_ns)) } }
}

fn moment(started_unix_ns: u64) -> String {
    let started = UNIX_EPOCH.checked_add(Duration::from_nanos(started_unix_ns));
    // The formatter knows the years up to 9999; nanoseconds in 64 bits end in 2554.
    started.map(|t| humantime::format_rfc3339_seconds(t).to_string()).unwrap_or_default()
}

/// The verdict, these facts, and what the checks have to say.
fn verdict_box(verdict: Verdict, facts: &[(&str, String)], checks: &[Check]) -> Markup {
    html! {
        div class={ "verdict " (words::verdict_word(verdict)) } {
            span class="pill" { (words::verdict_word(verdict)) }
            @for (name, fact) in facts { p { b { (name) ". " } (fact) } }
            @let doubts: Vec<_> = checks.iter().filter(|c| c.speaks()).collect();
            @if !doubts.is_empty() {
                ul { @for check in doubts { li { (check_line(check)) } } }
            }
        }
    }
}

fn head(record: &Record) -> Markup {
    let facts = [
        ("Where", words::place(&record.host)),
        ("What may be claimed", words::claims(record)),
        ("Runs", words::arrangement(record)),
    ];
    html! {
        @if let Some(mark) = record.comparability.watermark.as_deref() {
            div class="banner" role="alert" { (words::printable(mark)) }
        }
        (eyebrow("compare", record.run.started_unix_ns, &record.run.id))
        h1 { code { (words::subject(record)) } }
        (verdict_box(record.comparability.verdict, &facts, &record.comparability.checks))
    }
}

fn findings(record: &Record) -> Markup {
    let statements = words::statements(record);
    let skipped = words::skipped(&record.skipped);
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
        } @else {
            (apart(record.comparability.verdict))
        }
    }
}

/// The same where nobody asked for the numbers all the same.
fn apart(verdict: Verdict) -> Markup {
    html! {
        @if verdict == Verdict::Refused {
            p class="watermark" { "NOT COMPARABLE: each level stands alone." }
        }
    }
}

/// The record inside of the page.
struct Raw {
    content: Vec<u8>,
    media: &'static str,
    /// Name of the file that the reader gets.
    name: String,
    form: &'static str,
    runs: usize,
}

impl Raw {
    fn section(&self, more: Markup) -> Markup {
        let address = format!("data:{};base64,{}", self.media, STANDARD.encode(&self.content));
        html! {
            section {
                h2 { "Raw record" }
                p class="caption" {
                    "All " (self.runs) " runs with every stamp, warm-up and failures included: each number of this page can be \
                     computed from it again."
                }
                p { a class="button" download=(self.name) href=(address) { "Download the record (" (self.form) ")" } }
                (more)
            }
        }
    }
}
