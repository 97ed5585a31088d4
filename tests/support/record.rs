//! Records of `isolab compare`.

use serde_json::Value;

use super::{measured, run};

/// What `isolab compare --json - ARGS` wrote.
pub(crate) fn record(args: &[&str]) -> Value {
    let result = run(&[&["compare", "--json", "-"], args].concat());
    assert!(measured(&result), "{}", result.stderr);
    serde_json::from_str(&result.stdout).expect("one JSON document")
}

/// Checks what holds for each sample of each record.
pub(crate) fn check_samples(record: &Value, levels: &[&str]) {
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

/// The median of a metric at a level, where the record has it.
pub(crate) fn median(record: &Value, metric: &str, level: &str) -> Option<f64> {
    let of_metric = record["summary"].as_array()?.iter().find(|s| s["metric"] == metric)?;
    of_metric["arms"][level]["median"].as_f64()
}
