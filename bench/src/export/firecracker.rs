//! Firecracker's `metrics.json`: series by name with their unit, and the dimensions that two files must share to be
//! compared by its A/B script. So nothing that differs from run to run is a dimension.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{facts, number, runs, values};
use crate::record::{Record, RecordError};
use crate::report::words::{printable, subject};
use crate::summary::{METRICS, Unit};

#[derive(Serialize)]
struct Export {
    metrics: BTreeMap<String, Series>,
    dimensions: BTreeMap<&'static str, String>,
}

/// Units are those of the embedded metric format.
#[derive(Serialize)]
struct Series {
    unit: &'static str,
    values: Vec<f64>,
}

/// The export of one record: a file has one set of dimensions. Metrics are named `ARM.METRIC`.
///
/// # Errors
/// [`RecordError::Write`].
pub fn firecracker(record: &Record) -> Result<String, RecordError> {
    let mut metrics = BTreeMap::new();
    for arm in &record.run.plan.arms {
        for metric in METRICS {
            let Some(values) = values(metric, runs(record, arm)) else { continue };
            let (unit, divisor) = match metric.unit {
                Unit::Ns => ("Microseconds", 1e3),
                Unit::Bytes => ("Bytes", 1.0),
            };
            let values = values.into_iter().map(|value| number(value) / divisor).collect();
            metrics.insert(format!("{}.{}", printable(arm), metric.name), Series { unit, values });
        }
    }
    let mut dimensions: BTreeMap<_, _> = facts(record).into_iter().collect();
    dimensions.remove("verdict");
    dimensions.insert("performance_test", "isolab_compare".to_owned());
    dimensions.insert("workload", subject(record));
    let mut json =
        isolab_images::escape::json(&Export { metrics, dimensions }).map_err(RecordError::Write)?;
    json.push('\n');
    Ok(json)
}
