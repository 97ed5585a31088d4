//! `isolab compare`: its record, its claims, its page.

mod support;

use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use support::record::{check_samples, record};
use support::{busybox, ends_within, home, isolab, run, send};

#[test]
fn process_and_container_are_measured_on_the_host() {
    let record =
        record(&["--on", "host", "--levels", "process,container", "--pairs", "2", "--seed", "1", "demo"]);
    check_samples(&record, &["process", "container"]);
}

/// Resident pages of a file before each run.
fn resident(record: &Value, file: &str) -> Vec<(u64, u64)> {
    let samples = record["samples"].as_array().expect("samples").iter();
    let pages = |s: &Value| {
        let of = &s["conditions"]["page_cache"][file];
        Some((of["resident_pages"].as_u64()?, of["pages"].as_u64()?))
    };
    samples.map(|s| pages(s).expect("the kernel tells it")).collect()
}

#[test]
fn runs_are_warm_unless_they_are_to_be_cold_and_the_base_runs_twice_in_each_pair() {
    let common = ["--on", "host", "--levels", "process,container", "--pairs", "2", "demo"];
    let warm = record(&common);
    assert!(resident(&warm, "image").iter().all(|(resident, pages)| resident == pages && *pages > 0));
    let samples = warm["samples"].as_array().expect("samples");
    let control = samples.iter().filter(|s| s["control"] == true);
    assert!(control.clone().all(|s| s["arm"] == "process") && control.count() == 2 + 3);
    assert_eq!(warm["run"]["ended"], "pairs");
    let cold = record(&[&["--cold"][..], &common].concat());
    assert_eq!(cold["run"]["plan"]["cache"], "cold");
    assert!(resident(&cold, "image").iter().all(|(resident, _)| *resident == 0));
}

#[test]
fn a_command_without_marks_has_the_same_phases_at_each_level_and_is_compared_by_its_peak() {
    busybox();
    let args =
        ["--on", "host", "--levels", "process,container", "--pairs", "1", "busybox", "--", "sleep", "0.2"];
    let record = record(&args);
    check_samples(&record, &["process", "container"]);
    for sample in record["samples"].as_array().expect("samples") {
        let ns = |phase: &str| sample["phase_ns"][phase].as_u64().expect("a phase");
        assert!(ns("workload_run") >= 200_000_000 && ns("teardown") < 200_000_000, "{sample}");
    }
    assert_eq!(record["headline"]["startup"], "startup.request_to_exec");
    assert_eq!(record["headline"]["memory"], "memory.peak");
}

#[test]
fn a_command_that_fails_in_all_runs_is_refused_as_run_would_say_it() {
    let file = home().join("failed.json");
    let json = file.to_str().expect("UTF-8");
    let on = [
        "compare",
        "--on",
        "host",
        "--levels",
        "process,container",
        "--pairs",
        "1",
        "--quiet",
        "--json",
        json,
    ];
    for (command, why) in [
        (&["demo", "--", "nosuch"][..], "command \"nosuch\" not found in the image"),
        (&["--timeout", "100ms", "demo", "--", "/isolab-work", "pause"], "the deadline of --timeout"),
    ] {
        let result = run(&[&on, command].concat());
        assert_eq!(result.status, Some(3), "{}", result.stderr);
        assert!(result.stderr.contains(why) && result.stderr.lines().count() == 1, "{}", result.stderr);
        let record: Value = serde_json::from_slice(&std::fs::read(&file).expect("a record")).expect("JSON");
        assert_eq!(record["comparability"]["verdict"], "refused");
        std::fs::remove_file(&file).expect("written anew each time");
    }
}

#[test]
fn an_interrupted_comparison_says_after_how_many_pairs_and_leaves_its_record() {
    busybox();
    let file = home().join("interrupted.json");
    let json = file.to_str().expect("UTF-8");
    let child = isolab(&["compare", "--on", "host", "--levels", "process", "--json", json, "--quiet"])
        .args(["busybox", "--", "sh", "-c", "echo; exec sleep 1000"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("isolab starts");
    assert!(!ends_within(&child, Duration::from_secs(1)));
    send(&child, Signal::INT);
    assert!(ends_within(&child, Duration::from_secs(20)));
    let result = support::done(child.wait_with_output().expect("isolab ends"));
    assert_eq!(result.status, Some(130), "{}", result.stderr);
    assert_eq!(result.stderr, format!("isolab: interrupted after 0 of 30 pairs; the record is {json}\n"));
    let record: Value = serde_json::from_slice(&std::fs::read(&file).expect("a record")).expect("JSON");
    assert_eq!(record["run"]["interrupted"], 2);
    // The run that it was in is none.
    assert_eq!(record["samples"].as_array().map(Vec::len), Some(0));
    std::fs::remove_file(&file).expect("written");
}

#[test]
fn a_level_that_was_asked_for_is_never_left_out() {
    let result = run(&["compare", "--levels", "container,process,container", "demo"]);
    assert_eq!((result.status, result.stdout.as_str()), (Some(125), ""));
    assert_eq!(result.stderr, "isolab: --levels names container twice; name each level once\n");
    if run(&["run", "--on", "host", "--level", "vm", "demo"]).status == Some(0) {
        return;
    }
    let asked = run(&["compare", "--on", "host", "--levels", "process,vm", "--pairs", "1", "demo"]);
    assert_eq!((asked.status, asked.stdout.as_str()), (Some(125), ""));
    assert!(asked.stderr.starts_with("isolab: vm can't run here: ") && asked.stderr.lines().count() == 1);
    let all = run(&["compare", "--allow-incomparable", "--on", "host", "--pairs", "1", "demo"]);
    assert_eq!((all.status, all.stderr.as_str()), (Some(0), ""));
    assert!(all.stdout.contains("vm was not run: "), "{}", all.stdout);
}
