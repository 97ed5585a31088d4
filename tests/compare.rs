//! `isolab compare`: its record, its claims, its page.

mod support;

use serde_json::Value;
use support::run;

fn record(args: &[&str]) -> Value {
    let result = run(&[&["compare", "--json", "-"], args].concat());
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    serde_json::from_str(&result.stdout).expect("one JSON document")
}

/// Checks what holds for each sample of each record.
fn check_samples(record: &Value, levels: &[&str]) {
    let samples = record["samples"].as_array().expect("samples");
    for level in levels {
        let of_level: Vec<&Value> = samples.iter().filter(|s| s["arm"] == **level).collect();
        assert!(of_level.len() >= 2, "{level}");
        for sample in of_level {
            assert_eq!(sample["ok"], true, "{sample}");
            let phases = sample["phase_ns"].as_object().expect("phases");
            let sum: u64 = phases.values().filter_map(Value::as_u64).sum();
            assert_eq!(Some(sum), sample["t_ns"]["clean"].as_u64(), "phases add up");
            assert_eq!(sample["detail"]["lower_fs"], "erofs");
        }
    }
    let digests: std::collections::BTreeSet<&str> =
        samples.iter().filter_map(|s| s["detail"]["image_digest"].as_str()).collect();
    assert_eq!(digests.len(), 1, "one image file serves all levels");
}

#[test]
fn process_and_container_are_measured_on_the_host() {
    let record =
        record(&["--on", "host", "--levels", "process,container", "--pairs", "2", "--seed", "1", "demo"]);
    check_samples(&record, &["process", "container"]);
}

#[test]
fn all_levels_are_measured_in_the_lab() {
    let record = record(&["--on", "lab", "--pairs", "1", "--seed", "1", "demo"]);
    check_samples(&record, &["process", "container", "vm"]);
    assert_eq!(record["host"]["class"], "emulated-lab");
    assert_eq!(record["host"]["clock"], "instructions");
    let ready = |level: &str| {
        let samples = record["samples"].as_array().expect("samples");
        samples.iter().find(|s| s["arm"] == level).and_then(|s| s["t_ns"]["ready"].as_u64()).expect("ready")
    };
    assert!(ready("process") < ready("container") && ready("container") < ready("vm"));
}
