//! Exports: the raw numbers of records in the formats of other tools, for their scripts and charts.
//!
//! Pure functions: the same records give the same bytes. Only analysed runs are exported (no warm-up, no failed one). No
//! format has a field for "this is not time of a machine": host class, clock and verdict go where it has room
//! (hyperfine's parameters, Firecracker's dimensions, configuration lines of the Go format).

use crate::environment::{ClockKind, Host, NS_PER_INSTRUCTION};
use crate::record::Record;
use crate::report::words::{class_name, printable, verdict_word};
use crate::sample::Sample;
use crate::summary::Metric;

mod benchfmt;
mod firecracker;
mod hyperfine;

pub use self::benchfmt::benchfmt;
pub use self::firecracker::firecracker;
pub use self::hyperfine::hyperfine;

/// The runs of an arm that the summary counts.
fn runs<'a>(record: &'a Record, arm: &'a str) -> impl Iterator<Item = &'a Sample> {
    record.samples.iter().filter(move |s| s.arm == arm && s.analysed())
}

/// A metric over these runs; nothing where one of them does not tell it, so that lists stay aligned.
fn values<'a>(metric: &Metric, runs: impl Iterator<Item = &'a Sample>) -> Option<Vec<u64>> {
    let values: Option<Vec<u64>> = runs.map(|s| metric.of(s)).collect();
    values.filter(|values| !values.is_empty())
}

/// What the stamps count, in words.
fn clock(host: &Host) -> String {
    match host.clock {
        ClockKind::Monotonic => "monotonic".to_owned(),
        ClockKind::Instructions => {
            format!("instructions of an emulated CPU, {NS_PER_INSTRUCTION} ns each: no time of a machine")
        }
    }
}

/// What every format says of a record where it has room, by key.
fn facts(record: &Record) -> Vec<(&'static str, String)> {
    let host = &record.host;
    let known = |text: &Option<String>| text.as_deref().map(printable);
    let facts = [
        ("host_class", Some(class_name(host.class).replace(' ', "-"))),
        ("clock", Some(clock(host))),
        ("verdict", Some(verdict_word(record.comparability.verdict).to_owned())),
        ("page_cache", record.run.plan.cache.map(|state| state.word().to_owned())),
        ("cpu_model", known(&host.cpu_model)),
        ("host_kernel", known(&host.kernel)),
    ];
    facts.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Exact below 2^53: 104 days in nanoseconds, 8 PiB in bytes.
#[expect(clippy::cast_precision_loss, reason = "see the sentence above")]
const fn number(value: u64) -> f64 {
    value as f64
}
