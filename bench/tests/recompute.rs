//! Each figure of a report, computed again from the raw samples of the record's JSON by code that shares nothing with the
//! library: no type, no estimator, no random generator.

mod synthetic;

use isolab_bench::environment::{ClockKind, HostClass};
use isolab_bench::record::Record;
use isolab_bench::report::{html, markdown};
use serde_json::Value;

/// Metrics and where a sample tells them.
const METRICS: [(&str, &[&str]); 6] = [
    ("startup.request_to_first_user_insn", &["t_ns", "first_user_insn"]),
    ("startup.request_to_ready", &["t_ns", "ready"]),
    ("startup.request_to_clean", &["t_ns", "clean"]),
    ("startup.request_to_exec", &["t_ns", "exec"]),
    ("memory.charge", &["mem_bytes", "memcg_current"]),
    ("memory.peak", &["mem_bytes", "peak"]),
];

const LEVELS: [&str; 3] = ["process", "container", "vm"];

fn records() -> [Record; 3] {
    [
        synthetic::record(&LEVELS, 60, HostClass::Hardware, ClockKind::Monotonic, 600),
        synthetic::record(&LEVELS, 6, HostClass::EmulatedLab, ClockKind::Instructions, 20),
        synthetic::record(&LEVELS, 30, HostClass::Nested, ClockKind::Monotonic, 3000),
    ]
}

/// Pair and value of every run that counts.
fn values(record: &Value, arm: &str, place: &[&str]) -> Vec<(u64, f64)> {
    let all = record["samples"].as_array().expect("samples");
    let counts =
        |s: &&Value| s["arm"] == arm && s["ok"] == true && s["warmup"] == false && s["control"] != true;
    let number = |s: &Value| {
        let value = place.iter().fold(s, |value, key| &value[key]).as_f64()?;
        // Time in which isolab read the account of the waiting workload is no time of the workload.
        let held = match (place[1], s["t_ns"]["released"].as_f64(), s["t_ns"]["ready"].as_f64()) {
            ("clean", Some(released), Some(ready)) => released - ready,
            _ => 0.0,
        };
        Some((s["pair"].as_u64()?, value - held))
    };
    all.iter().filter(counts).filter_map(number).collect()
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    values
}

fn median(values: &[f64]) -> f64 {
    let v = sorted(values.to_vec());
    if v.len() % 2 == 1 { v[v.len() / 2] } else { (v[v.len() / 2 - 1] + v[v.len() / 2]) / 2.0 }
}

/// Definition 8 of Hyndman and Fan: position (n + 1/3) p + 1/3, linear between neighbours, inside the values.
fn quantile(values: &[f64], p: f64) -> f64 {
    let v = sorted(values.to_vec());
    let position = ((v.len() as f64 + 1.0 / 3.0) * p + 1.0 / 3.0).clamp(1.0, v.len() as f64);
    let below = (1..=v.len()).rev().find(|i| *i as f64 <= position).expect("from 1 on");
    let above = (below + 1).min(v.len());
    v[below - 1] + (position - below as f64) * (v[above - 1] - v[below - 1])
}

fn deviation(values: &[f64]) -> f64 {
    let centre = median(values);
    median(&values.iter().map(|v| (v - centre).abs()).collect::<Vec<_>>())
}

fn outliers(values: &[f64]) -> (u64, u64) {
    let (low, high) = (quantile(values, 0.25), quantile(values, 0.75));
    let outside = |k: f64| {
        values.iter().filter(|v| **v < low - k * (high - low) || **v > high + k * (high - low)).count()
    };
    ((outside(1.5) - outside(3.0)) as u64, outside(3.0) as u64)
}

/// Bootstrap of the median by a generator of its own (xorshift), 4000 resamples.
fn interval(values: &[f64]) -> [f64; 2] {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("below a length")
    };
    let medians: Vec<f64> = (0..4000)
        .map(|_| median(&(0..values.len()).map(|_| values[next(values.len())]).collect::<Vec<_>>()))
        .collect();
    [quantile(&medians, 0.025), quantile(&medians, 0.975)]
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-300)
}

/// Ends of an interval by another method of resampling lie near, by the width of the wider one.
fn near(recorded: &Value, expected: [f64; 2], scale: f64) -> bool {
    let Some(recorded) = recorded.as_array() else { return false };
    let ends: Vec<f64> = recorded.iter().map(|end| end.as_f64().expect("a number")).collect();
    let width = (ends[1] - ends[0]).max(expected[1] - expected[0]).max(1e-9 * scale);
    ends[0] <= ends[1] && (0..2).all(|i| (ends[i] - expected[i]).abs() <= 0.5 * width)
}

fn plain(values: &[(u64, f64)]) -> Vec<f64> {
    values.iter().map(|(_, v)| *v).collect()
}

#[test]
fn the_summary_of_each_arm() {
    for record in records() {
        let json = serde_json::to_value(&record).expect("plain data");
        let mut seen = 0;
        for summary in json["summary"].as_array().expect("summaries") {
            let Some((_, place)) = METRICS.iter().find(|(name, _)| summary["metric"] == *name) else {
                continue;
            };
            for (arm, s) in summary["arms"].as_object().expect("arms") {
                let v = plain(&values(&json, arm, place));
                let number = |key: &str| s[key].as_f64().unwrap_or_else(|| panic!("{arm} {key}"));
                assert_eq!(s["n"].as_u64(), Some(v.len() as u64));
                assert!(close(number("median"), median(&v)), "{arm} {}", summary["metric"]);
                assert!(close(number("mad"), deviation(&v)));
                assert!(close(number("min"), sorted(v.clone())[0]));
                assert!(close(number("max"), sorted(v.clone())[v.len() - 1]));
                assert!(near(&s["ci95"], interval(&v), median(&v)), "{arm} {}: {s}", summary["metric"]);
                assert_eq!((s["outliers"]["mild"].as_u64(), s["outliers"]["severe"].as_u64()), {
                    let (mild, severe) = outliers(&v);
                    (Some(mild), Some(severe))
                });
                for (key, p) in [("p5", 0.05), ("p95", 0.95)] {
                    assert_eq!(s[key].is_null(), v.len() < 59, "{key}");
                    assert!(s[key].is_null() || close(number(key), quantile(&v, p)), "{key}");
                }
                seen += 1;
            }
        }
        assert_eq!(seen, 18);
    }
}

#[test]
fn each_comparison_pair_by_pair() {
    for record in records() {
        let json = serde_json::to_value(&record).expect("plain data");
        let mut seen = 0;
        for summary in json["summary"].as_array().expect("summaries") {
            let Some((_, place)) = METRICS.iter().find(|(name, _)| summary["metric"] == *name) else {
                continue;
            };
            for c in summary["comparisons"].as_array().expect("comparisons") {
                let arm = |key: &str| values(&json, c[key].as_str().expect("an arm"), place);
                let (a, b) = (arm("a"), arm("b"));
                let pairs: Vec<(f64, f64)> = a
                    .iter()
                    .filter_map(|(pair, a)| Some((*a, b.iter().find(|(other, _)| other == pair)?.1)))
                    .collect();
                let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
                let logs: Vec<f64> = pairs.iter().map(|(a, b)| (b / a).ln()).collect();
                assert_eq!(c["pairs"].as_u64(), Some(pairs.len() as u64));
                assert!(close(c["difference"]["median"].as_f64().expect("a number"), median(&differences)));
                let ratio = c["ratio_b_over_a"]["median"].as_f64().expect("a number");
                assert!(close(ratio, median(&logs).exp()), "{ratio}");
                assert!(near(&c["difference"]["ci95"], interval(&differences), median(&differences)), "{c}");
                let [low, high] = interval(&logs);
                assert!(near(&c["ratio_b_over_a"]["ci95"], [low.exp(), high.exp()], ratio), "{c}");
                seen += 1;
            }
        }
        assert_eq!(seen, 12);
    }
}

/// A value as the reports show it: in the unit of the clock, about four significant digits.
fn shown(value: f64, place: &[&str], record: &Record) -> String {
    let scaled = match (place[0], record.host.clock) {
        ("mem_bytes", _) => value / 1024.0 / 1024.0,
        (_, ClockKind::Instructions) => value / 2.0 / 1e6,
        (_, ClockKind::Monotonic) => value / 1e6,
    };
    let places = [1000.0, 100.0, 10.0].iter().position(|limit| scaled >= *limit).unwrap_or(3);
    format!("{scaled:.places$}")
}

#[test]
fn each_cell_of_the_table() {
    for record in records() {
        let json = serde_json::to_value(&record).expect("plain data");
        let table = markdown::render(&record).replace('\\', "");
        let rows: Vec<Vec<&str>> = table
            .lines()
            .filter(|line| line.starts_with("| "))
            .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
            .collect();
        let (header, rows) = rows.split_first().expect("a table");
        assert_eq!(rows.len(), 3, "{table}");
        for row in rows {
            let mut seen = 0;
            for (title, cell) in header.iter().zip(row) {
                let Some((_, place)) = METRICS.iter().find(|(name, _)| title.starts_with(name)) else {
                    continue;
                };
                let expected = shown(median(&plain(&values(&json, row[0], place))), place, &record);
                assert_eq!(cell.split(' ').next(), Some(expected.as_str()), "{title} of {}", row[0]);
                seen += 1;
            }
            assert_eq!(seen, 6, "{table}");
            let lead: &[&str] = &["t_ns", "ready"];
            let middle = |arm: &str| median(&plain(&values(&json, arm, lead)));
            for (base, cell) in ["process", "container"].iter().zip(&row[row.len() - 2..]) {
                let ratio: f64 = cell.trim_end_matches('x').parse().expect("a ratio");
                let expected = middle(row[0]) / middle(base);
                assert!((ratio - expected).abs() <= 0.051 * expected.max(0.1), "{cell}, not {expected}");
            }
        }
    }
}

#[test]
fn the_bars_of_the_page_are_runs_that_add_up() {
    for record in records() {
        let json = serde_json::to_value(&record).expect("plain data");
        let page = html::render(&record).expect("plain data");
        for arm in LEVELS {
            let runs = values(&json, arm, &["t_ns", "ready"]);
            let middle = median(&plain(&runs));
            let (pair, _) = runs
                .iter()
                .min_by(|(_, a), (_, b)| (a - middle).abs().total_cmp(&(b - middle).abs()))
                .expect("runs");
            let all = json["samples"].as_array().expect("samples");
            let wanted =
                |s: &&Value| s["arm"] == arm && s["pair"].as_u64() == Some(*pair) && s["control"] != true;
            let run = all.iter().find(wanted).expect("the run");
            let phases = run["phase_ns"].as_object().expect("phases");
            let sum: u64 = phases.values().map(|ns| ns.as_u64().expect("ns")).sum();
            assert_eq!(Some(sum), run["t_ns"]["clean"].as_u64());
            for ns in phases.values() {
                let text = shown(ns.as_f64().expect("ns"), &["t_ns"], &record);
                assert!(page.contains(&format!("<td>{text}</td>")), "{arm}: {text}");
            }
        }
    }
}
