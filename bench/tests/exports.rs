//! The exports, read by deserialisers written from the formats' own definitions: nothing unknown, nothing missing.

mod synthetic;

use std::collections::BTreeMap;

use isolab_bench::check::{Spec, check};
use isolab_bench::diff::{Question, diff};
use isolab_bench::environment::{ClockKind, HostClass};
use isolab_bench::export;
use isolab_bench::record::Record;
use isolab_bench::report::{html, markdown, text};
use isolab_bench::summary::CLEAN;
use serde::Deserialize;

const LEVELS: [&str; 3] = ["process", "container", "vm"];

fn host() -> Record {
    synthetic::record(&LEVELS, 6, HostClass::Hardware, ClockKind::Monotonic, 20)
}

fn lab() -> Record {
    synthetic::record(&LEVELS, 5, HostClass::EmulatedLab, ClockKind::Instructions, 20)
}

/// The integers of an arm's measured runs, from the record's JSON and nothing else.
fn raw(record: &Record, arm: &str, of: &[&str]) -> Vec<u64> {
    let json = serde_json::to_value(record).expect("plain data");
    let samples = json["samples"].as_array().expect("samples").clone();
    let own = samples.iter().filter(|s| s["arm"] == arm && s["ok"] == true && s["warmup"] == false);
    // The second run of the base in a pair is the control.
    let own = own.filter(|s| s["control"] != true);
    own.map(|s| of.iter().fold(s, |value, key| &value[key]).as_u64().expect("measured")).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hyperfine {
    results: Vec<HyperfineResult>,
}

/// `BenchmarkResult` of hyperfine 1.20; seconds. `user` and `system` are null where nothing counted them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HyperfineResult {
    command: String,
    mean: f64,
    stddev: Option<f64>,
    median: f64,
    user: Option<f64>,
    system: Option<f64>,
    min: f64,
    max: f64,
    times: Vec<f64>,
    memory_usage_byte: Option<Vec<u64>>,
    exit_codes: Vec<Option<i32>>,
    parameters: BTreeMap<String, String>,
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[test]
fn hyperfine_reads_its_own_fields_in_seconds() {
    let record = host();
    let json = export::hyperfine(std::slice::from_ref(&record), None).expect("plain data");
    let read: Hyperfine = serde_json::from_str(&json).expect("hyperfine's form");
    assert_eq!(read.results.len(), 3);
    for (result, arm) in read.results.iter().zip(LEVELS) {
        let ns = raw(&record, arm, &["t_ns", "ready"]);
        let seconds: Vec<f64> = ns.iter().map(|ns| *ns as f64 / 1e9).collect();
        assert!(result.times.iter().zip(&seconds).all(|(a, b)| close(*a, *b)) && result.times.len() == 6);
        let mean = seconds.iter().sum::<f64>() / 6.0;
        let deviation = (seconds.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / 5.0).sqrt();
        assert!(close(result.mean, mean) && close(result.stddev.expect("six runs"), deviation));
        let mut sorted = seconds.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(close(result.median, (sorted[2] + sorted[3]) / 2.0));
        assert!(close(result.min, sorted[0]) && close(result.max, sorted[5]));
        assert_eq!(result.exit_codes, [Some(0); 6]);
        assert_eq!(result.memory_usage_byte, Some(raw(&record, arm, &["mem_bytes", "peak"])));
        assert!(result.user.is_none() == result.system.is_none());
        assert_eq!(result.command, format!("{arm}: test-data -- /isolab-work null"));
        assert_eq!(result.parameters["metric"], "startup.request_to_ready");
        assert_eq!(result.parameters["clock"], "monotonic");
    }
    let clean = export::hyperfine(std::slice::from_ref(&record), Some(&CLEAN)).expect("plain data");
    let clean: Hyperfine = serde_json::from_str(&clean).expect("hyperfine's form");
    assert!(clean.results[0].median > read.results[0].median);
}

#[test]
fn one_run_has_no_deviation() {
    let record = synthetic::record(&["process"], 1, HostClass::None, ClockKind::Monotonic, 20);
    let json = export::hyperfine(&[record], None).expect("plain data");
    let read: Hyperfine = serde_json::from_str(&json).expect("hyperfine's form");
    assert_eq!(read.results[0].stddev, None);
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Firecracker {
    metrics: BTreeMap<String, FirecrackerSeries>,
    dimensions: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirecrackerSeries {
    unit: String,
    values: Vec<f64>,
}

#[test]
fn firecracker_reads_series_with_units_of_the_embedded_metric_format() {
    let record = host();
    let read: Firecracker =
        serde_json::from_str(&export::firecracker(&record).expect("plain data")).expect("Firecracker's form");
    let series = &read.metrics["vm.startup.request_to_ready"];
    assert_eq!(series.unit, "Microseconds");
    let expected: Vec<f64> =
        raw(&record, "vm", &["t_ns", "ready"]).into_iter().map(|ns| ns as f64 / 1000.0).collect();
    assert!(series.values.iter().zip(&expected).all(|(a, b)| close(*a, *b)) && series.values.len() == 6);
    let memory = &read.metrics["container.memory.charge"];
    assert_eq!(memory.unit, "Bytes");
    assert!(read.metrics.values().all(|s| s.values.len() == 6 && !s.unit.is_empty()));
    assert_eq!(read.dimensions["performance_test"], "isolab_compare");
}

#[test]
fn two_runs_of_one_experiment_have_the_same_dimensions() {
    let dimensions = |record: &Record| {
        let json = export::firecracker(record).expect("plain data");
        serde_json::from_str::<Firecracker>(&json).expect("Firecracker's form").dimensions
    };
    let (one, other) = (host(), host());
    assert_ne!(one.run.id, other.run.id);
    assert_eq!(dimensions(&one), dimensions(&other));
}

/// Name and values by unit of a line.
type BenchmarkLine = (String, BTreeMap<String, f64>);

/// A reader of the Go benchmark format: `key: value`, `Unit ...`, or `BenchmarkName N (value unit)+`.
fn benchfmt(text: &str) -> (BTreeMap<String, String>, Vec<BenchmarkLine>) {
    let (mut config, mut lines) = (BTreeMap::new(), Vec::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Benchmark") {
            let words: Vec<&str> = rest.split(' ').collect();
            assert!(words[0].starts_with(|c: char| c.is_uppercase()), "{line}");
            words[1].parse::<u64>().expect("iterations");
            assert!(words.len() >= 4 && words.len().is_multiple_of(2), "{line}");
            let pairs = words[2..].chunks(2).map(|p| (p[1].to_owned(), p[0].parse().expect("a number")));
            lines.push((words[0].to_owned(), pairs.collect()));
        } else if let Some(unit) = line.strip_prefix("Unit ") {
            assert!(unit.split(' ').nth(1).is_some_and(|setting| setting.contains('=')), "{line}");
        } else {
            let (key, value) = line.split_once(": ").expect("a configuration line");
            assert!(key.starts_with(|c: char| c.is_lowercase()), "{line}");
            assert!(!key.contains(|c: char| c.is_uppercase() || c.is_whitespace()), "{line}");
            config.insert(key.to_owned(), value.to_owned());
        }
    }
    (config, lines)
}

#[test]
fn benchstat_reads_one_line_per_run_and_a_unit_per_metric() {
    let record = host();
    let (config, lines) = benchfmt(&export::benchfmt(std::slice::from_ref(&record)));
    assert_eq!(lines.len(), 18);
    assert_eq!(config["clock"], "monotonic");
    let vm: Vec<_> = lines.iter().filter(|(name, _)| name == "Startup/arm=vm-1").collect();
    let ready: Vec<u64> = raw(&record, "vm", &["t_ns", "ready"]);
    let memory: Vec<u64> = raw(&record, "vm", &["mem_bytes", "memcg_current"]);
    assert_eq!(vm.len(), 6);
    for (i, (_, values)) in vm.iter().enumerate() {
        assert_eq!(values["ns/op"], ready[i] as f64);
        assert_eq!(values["mem-B"], memory[i] as f64);
        assert!(values["clean-ns"] > values["ns/op"]);
    }
}

#[test]
fn lab_exports_say_that_their_times_are_instructions() {
    let record = lab();
    let word = "instructions of an emulated CPU";
    let hyperfine = export::hyperfine(std::slice::from_ref(&record), None).expect("plain data");
    let read: Hyperfine = serde_json::from_str(&hyperfine).expect("hyperfine's form");
    assert!(read.results.iter().all(|r| r.parameters["clock"].starts_with(word)));
    assert!(read.results.iter().all(|r| r.parameters["host_class"] == "emulated-lab"));
    let firecracker: Firecracker =
        serde_json::from_str(&export::firecracker(&record).expect("plain data")).expect("Firecracker's form");
    assert!(firecracker.dimensions["clock"].starts_with(word));
    assert!(benchfmt(&export::benchfmt(&[record])).0["clock"].starts_with(word));
}

#[test]
fn failed_and_warm_up_runs_are_in_no_export() {
    let mut record = host();
    let at = record.samples.iter().position(|s| !s.warmup && s.arm == "vm").expect("measured");
    record.samples[at].ok = false;
    let json = export::hyperfine(std::slice::from_ref(&record), None).expect("plain data");
    let read: Hyperfine = serde_json::from_str(&json).expect("hyperfine's form");
    assert_eq!(read.results.iter().map(|r| r.times.len()).collect::<Vec<_>>(), [6, 6, 5]);
    assert_eq!(benchfmt(&export::benchfmt(&[record])).1.len(), 17);
}

/// Every report and export of a record.
fn everything(record: &Record) -> Vec<String> {
    let one = std::slice::from_ref(record);
    vec![
        text::render(record, text::TextStyle::default()),
        markdown::render(record),
        html::render(record).expect("plain data"),
        export::hyperfine(one, None).expect("plain data"),
        export::firecracker(record).expect("plain data"),
        export::benchfmt(one),
    ]
}

#[test]
fn the_same_record_gives_the_same_bytes() {
    for record in [host(), lab()] {
        let json = record.to_json().expect("plain data");
        let again = Record::from_json(json.as_bytes()).expect("our own record");
        assert_eq!(everything(&record), everything(&again));
    }
}

#[test]
fn text_of_outside_origin_breaks_no_export() {
    let mut record = host();
    let hostile = "x\ny: z\u{1b}[2J|\"`<b>";
    record.workload.image = hostile.to_owned();
    record.run.tool.version = hostile.to_owned();
    record.run.id = hostile.to_owned();
    record.host.cpu_model = Some(hostile.to_owned());
    for sample in &mut record.samples {
        if sample.arm == "vm" {
            sample.arm = hostile.to_owned();
        }
    }
    record.run.plan.arms[2] = hostile.to_owned();
    let (config, lines) = benchfmt(&export::benchfmt(std::slice::from_ref(&record)));
    assert!(
        !config.contains_key("y") && lines.iter().any(|(name, _)| name == "Startup/arm=x_y__z__2J____b_-1")
    );
    for report in everything(&record) {
        assert!(!report.contains('\u{1b}') && !report.contains("<b>\u{1b}"), "{report}");
    }
    let table = markdown::render(&record);
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    let rows: Vec<usize> = table.lines().filter(|l| l.starts_with('|')).map(columns).collect();
    assert!(rows.len() == 5 && rows.iter().all(|n| *n == rows[0]), "{table}");
}

#[test]
fn numbers_from_outside_never_panic() {
    use proptest::prelude::*;
    let json = serde_json::to_value(lab()).expect("plain data");
    let numbers = [0.0, -1.0, 1e300, 1.8446744073709552e19, 0.5, 4e-320];
    let integers = [0_u64, 1, 200, u64::from(u32::MAX), u64::MAX, 1 << 53];
    let read = std::cell::Cell::new(0);
    proptest!(ProptestConfig::with_cases(150), |(picks in prop::collection::vec((any::<prop::sample::Index>(), 0..10_usize), 1..40))| {
        let mut json = json.clone();
        for (index, which) in &picks {
            let mut places = Vec::new();
            collect(&mut json, &mut places);
            let at = index.index(places.len());
            // A number of another kind is no record at all.
            *places[at] = if places[at].is_f64() {
                numbers[which % numbers.len()].into()
            } else {
                integers[which % integers.len()].into()
            };
        }
        let text = json.to_string();
        if let Ok(record) = Record::from_json(text.as_bytes()) {
            everything(&record);
            let found = diff(&record, &record, Question::default());
            prop_assert!(!found.regression);
            prop_assert!(!check(&record, &Spec::default()).lines.is_empty());
            read.set(read.get() + 1);
        }
    });
    assert!(read.get() > 50, "{read:?} of the changed records were records");
}

fn collect<'a>(value: &'a mut serde_json::Value, places: &mut Vec<&'a mut serde_json::Value>) {
    match value {
        serde_json::Value::Number(_) => places.push(value),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| collect(item, places)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|item| collect(item, places)),
        _ => {}
    }
}
