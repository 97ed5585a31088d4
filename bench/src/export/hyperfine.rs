//! hyperfine's `--export-json`: one result per arm, times in seconds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{facts, number, runs, values};
use crate::record::{Record, RecordError};
use crate::report::words::{printable, subject};
use crate::statistics::median;
use crate::summary::{Metric, PEAK};

#[derive(Serialize)]
struct Export {
    results: Vec<Outcome>,
}

/// Field names and meanings are hyperfine's.
#[derive(Serialize)]
struct Outcome {
    command: String,
    mean: f64,
    stddev: Option<f64>,
    median: f64,
    user: Option<f64>,
    system: Option<f64>,
    min: f64,
    max: f64,
    times: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_usage_byte: Option<Vec<u64>>,
    exit_codes: Vec<Option<i32>>,
    parameters: BTreeMap<&'static str, String>,
}

/// The export. `metric`: what counts as the time of a run, else what the record leads with; an arm that does not tell it
/// has no result.
///
/// # Errors
/// [`RecordError::Write`].
pub fn hyperfine(records: &[Record], metric: Option<&Metric>) -> Result<String, RecordError> {
    let outcomes = records.iter().flat_map(|record| {
        let metric = metric.unwrap_or_else(|| record.headline().startup());
        record.run.plan.arms.iter().filter_map(move |arm| outcome(record, arm, metric))
    });
    let export = Export { results: outcomes.collect() };
    let mut json = isolab_images::escape::json(&export).map_err(RecordError::Write)?;
    json.push('\n');
    Ok(json)
}

fn outcome(record: &Record, arm: &str, metric: &Metric) -> Option<Outcome> {
    let times: Vec<f64> = values(metric, runs(record, arm))?.into_iter().map(|ns| number(ns) / 1e9).collect();
    let n = number(u64::try_from(times.len()).ok()?);
    let mean = times.iter().sum::<f64>() / n;
    let squares: f64 = times.iter().map(|t| (t - mean).powi(2)).sum();
    let mut parameters: BTreeMap<_, _> = facts(record).into_iter().collect();
    parameters.insert("arm", printable(arm));
    parameters.insert("metric", metric.name.to_owned());
    Some(Outcome {
        command: format!("{}: {}", printable(arm), subject(record)),
        mean,
        stddev: (times.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
        median: median(&times),
        user: None,
        system: None,
        min: times.iter().copied().fold(f64::INFINITY, f64::min),
        max: times.iter().copied().fold(0.0, f64::max),
        times,
        memory_usage_byte: values(&PEAK, runs(record, arm)),
        exit_codes: runs(record, arm).map(|s| s.status.map(i32::from)).collect(),
        parameters,
    })
}
