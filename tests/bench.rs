//! Workload suites through the binary: every line holds to the schema, batches are the same everywhere, known answers.

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::{run, run_in};

/// The lines of a bench run, each judged by the schema.
fn lines(args: &[&str]) -> Vec<Value> {
    let result = run(&[&["bench", "--json", "-"], args].concat());
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    let schema = serde_json::from_str(include_str!("../bench/schema/bench.schema.json")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let lines: Vec<Value> =
        result.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    for line in &lines {
        let problems: Vec<String> = validator.iter_errors(line).map(|e| e.to_string()).collect();
        assert_eq!(problems, Vec::<String>::new(), "{line}");
    }
    lines
}

fn of_type<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|n| n.as_u64().expect("a whole number")).collect()
}

/// What holds for the samples of any bench run at these levels.
fn check(lines: &[Value], levels: &[&str], pairs: usize) {
    let tasks = lines[0]["plan"]["tasks"].as_array().expect("tasks").clone();
    let measured: Vec<&Value> =
        of_type(lines, "sample").into_iter().filter(|sample| sample["warmup"] == false).collect();
    assert_eq!(measured.len(), tasks.len() * levels.len() * pairs);
    let mut batches: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for sample in measured {
        assert_eq!(sample["ok"], true, "{sample}");
        let Some(work) = sample.get("work") else { continue };
        let name = sample["workload"].as_str().expect("a name").to_owned();
        let n = work["n"].as_u64().expect("a batch");
        assert_eq!((numbers(&work["ns"]).len(), numbers(&work["tsc"]).len()), (11, 11), "{sample}");
        if name.starts_with("fault") {
            // One fault for each page, but for a batch or two in which the program itself needed one more.
            let faults = numbers(&work["minor_faults"]);
            assert!(faults.iter().all(|f| (n..n + 4).contains(f)), "{sample}");
            assert!(faults.iter().filter(|f| **f == n).count() >= 9, "{sample}");
        }
        if name == "timer" {
            let late = numbers(&work["late_ns"]);
            // A sleep never ends early, so all of the batch is the sleeps and their lateness.
            assert!(numbers(&work["ns"]).iter().zip(&late).all(|(ns, late)| *ns >= n * 1_000_000 + late));
        }
        batches.entry(name).or_default().push(n);
    }
    for (name, n) in &batches {
        assert_eq!(n.len(), levels.len() * pairs);
        assert!(n.iter().all(|other| *other == n[0]), "batches of {name} differ: {n:?}");
    }
    for summary in of_type(lines, "summary") {
        assert_eq!(summary["comparisons"].as_array().map(Vec::len), Some(levels.len() - 1), "{summary}");
        for level in levels {
            let median = summary["arms"][level]["median"].as_f64().expect("a number");
            assert!(median > 0.0, "{summary}");
        }
    }
    assert_eq!(of_type(lines, "end").len(), 1);
}

fn median(lines: &[Value], workload: &str, metric: &str, level: &str) -> f64 {
    let found =
        of_type(lines, "summary").into_iter().find(|s| s["workload"] == workload && s["metric"] == metric);
    found.unwrap_or_else(|| panic!("no {workload}"))["arms"][level]["median"].as_f64().expect("a number")
}

/// 32 MiB touched are 32 to 32.75 MiB more than nothing touched; 32 MiB read are tables only.
fn check_memory(lines: &[Value], level: &str) {
    let mib = |workload| median(lines, workload, "memory.charge", level) / 1_048_576.0;
    let (more, tables) = (mib("touch 32") - mib("null"), mib("touch-read 32") - mib("null"));
    assert!((31.5..=33.5).contains(&more), "{level}: {more} MiB");
    assert!((-0.5..=1.0).contains(&tables), "{level}: {tables} MiB");
}

#[test]
fn every_suite_runs_on_the_host() {
    let levels = ["process", "container"];
    let lines =
        lines(&["--on", "host", "--levels", "process,container", "--pairs", "1", "--seed", "4", "all"]);
    check(&lines, &levels, 1);
    for level in levels {
        check_memory(&lines, level);
    }
}

#[test]
fn every_suite_runs_at_every_level_in_the_lab() {
    let levels = ["process", "container", "vm"];
    let suites = ["memory", "syscall", "fault", "switch", "timer", "console"];
    let lines = lines(&[&["--on", "lab", "--pairs", "1", "--seed", "4"], &suites[..]].concat());
    check(&lines, &levels, 1);
    assert_eq!(lines[0]["host"]["clock"], "instructions");
    check_memory(&lines, "container");
    // Memory that the host has not given yet costs a guest a second fault, below the first one; memory that it has, none.
    let times = |workload| {
        median(&lines, workload, "time_per_operation", "vm")
            / median(&lines, workload, "time_per_operation", "container")
    };
    assert!(times("fault anon") > 1.3 && times("fault anon-again") < 1.1, "{}", times("fault anon"));
    // The same loop takes the same number of instructions everywhere, but for timer interrupts.
    let chase = |level| median(&lines, "chase 32", "time_per_operation", level);
    for level in levels {
        assert!((chase(level) / chase("process") - 1.0).abs() < 0.05, "{level}: {}", chase(level));
    }
}

#[test]
fn the_table_names_the_suite_its_workloads_and_the_unit() {
    let result =
        run(&["bench", "--on", "host", "--levels", "process,container", "--pairs", "1", "syscall", "demo"]);
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    for words in ["sys null", "ns/op", "container vs process", "verdict"] {
        assert!(result.stdout.contains(words), "{words}: {}", result.stdout);
    }
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_reason() {
    let unknown = run(&["bench", "sycall", "demo"]);
    assert_eq!((unknown.status, unknown.stdout.as_str()), (Some(125), ""));
    assert!(unknown.stderr.starts_with("isolab: there is no suite \"sycall\"; the suites are startup, "));
    let interactive = run(&["bench", "-i", "cpu"]);
    assert_eq!(
        interactive.stderr,
        "isolab: bench gives its workloads no standard input; leave -i and -t out\n"
    );
    let home = tempfile::tempdir().expect("a directory");
    let tree = home.path().join("tree");
    std::fs::create_dir_all(tree.join("etc")).expect("created");
    let image = tree.to_str().expect("UTF-8");
    let empty = run_in(home.path(), &["bench", "--on", "host", "--levels", "process", "cpu", image]);
    assert_eq!(empty.status, Some(125), "{}", empty.stdout);
    assert!(empty.stderr.contains("holds no /isolab-work; the image demo does"), "{}", empty.stderr);
}
