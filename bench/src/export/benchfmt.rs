//! The Go benchmark format, as `benchstat` reads it: configuration lines, then one line per run.

use std::fmt::Write;

use super::{facts, runs};
use crate::record::Record;
use crate::report::words::{printable, subject};
use crate::summary::{METRICS, Metric, Unit};

/// The export; records follow each other, and the configuration lines of each hold until the next.
#[must_use]
pub fn benchfmt(records: &[Record]) -> String {
    let mut out = String::new();
    for record in records {
        // Writing to a string can't fail.
        let _ = one(&mut out, record);
    }
    out
}

fn one(out: &mut String, record: &Record) -> std::fmt::Result {
    let lead = record.headline().startup();
    writeln!(out, "workload: {}", subject(record))?;
    writeln!(out, "metric: {}", lead.name)?;
    writeln!(out, "isolab: {}", printable(&record.run.tool.version))?;
    writeln!(out, "run: {}", printable(&record.run.id))?;
    for (key, value) in facts(record) {
        writeln!(out, "{}: {value}", key.replace('_', "-"))?;
    }
    for metric in METRICS.iter().filter(|metric| metric.name != lead.name) {
        writeln!(out, "Unit {} better=lower", unit(metric))?;
    }
    for arm in &record.run.plan.arms {
        for sample in runs(record, arm) {
            let Some(time) = lead.of(sample) else { continue };
            write!(out, "BenchmarkStartup/arm={}-1 1 {time} ns/op", name(arm))?;
            for metric in METRICS.iter().filter(|metric| metric.name != lead.name) {
                if let Some(value) = metric.of(sample) {
                    write!(out, " {value} {}", unit(metric))?;
                }
            }
            out.push('\n');
        }
    }
    Ok(())
}

/// A unit of its own for each metric: the format knows metrics by their units.
fn unit(metric: &Metric) -> String {
    let name = metric.name.rsplit('.').next().unwrap_or(metric.name);
    let name = name.strip_prefix("request_to_").unwrap_or(name).replace('_', "-");
    match metric.unit {
        Unit::Ns => format!("{name}-ns"),
        Unit::Bytes if name == "charge" => "mem-B".to_owned(),
        Unit::Bytes => format!("{name}-B"),
    }
}

/// A name is one word, and what follows its last `-` a number of processors.
fn name(arm: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._=,+".contains(c) { c } else { '_' };
    arm.chars().map(plain).collect()
}
