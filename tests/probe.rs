//! `isolab probe`: the matrix is the published one, each probe can fail, what is left out of a container is found, and nothing
//! that was planted stays.

mod support;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Done, import, isolab, run};

/// What was written holds to the schema.
fn checked(json: &str) -> Value {
    let record: Value = serde_json::from_str(json).expect("JSON and nothing else");
    let schema =
        serde_json::from_str(include_str!("../bench/schema/probe.schema.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let problems: Vec<String> =
        validator.iter_errors(&record).map(|e| format!("{}: {e}", e.instance_path)).collect();
    assert_eq!(problems, Vec::<String>::new());
    record
}

/// The record of a run with these arguments.
fn record(args: &[&str]) -> (Done, Value) {
    let done = run(&[&["probe", "--json", "-"], args].concat());
    let record = checked(&done.stdout);
    (done, record)
}

fn cells(record: &Value) -> &Vec<Value> {
    record["cells"].as_array().expect("cells")
}

/// Outcome and verdict of each cell, and what was reached.
fn matrix(record: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let reached = |cell: &Value| -> Vec<String> {
        let items = cell["items"].as_array().expect("items").iter();
        items.filter(|item| item["outcome"] == "reached").map(|item| text(&item["item"])).collect()
    };
    let entry = |cell: &Value| {
        let key = format!("{} {}", text(&cell["probe"]), text(&cell["level"]));
        (key, format!("{} {} {:?}", text(&cell["outcome"]), text(&cell["verdict"]), reached(cell)))
    };
    cells(record).iter().map(entry).collect()
}

/// Ids of the cells that are findings.
fn findings(record: &Value) -> Vec<&str> {
    let found = cells(record).iter().filter(|cell| cell["verdict"] == "finding");
    found.map(|cell| cell["probe"].as_str().expect("text")).collect()
}

#[test]
fn two_runs_give_the_published_matrix_of_process_and_container() {
    let levels = ["--on", "host", "--levels", "process,container", "demo"];
    let (first, record_a) = record(&levels);
    let (second, record_b) = record(&levels);
    let wrong = |record: &Value| {
        let wrong = cells(record).iter().filter(|cell| cell["verdict"] != "ok");
        wrong.map(|cell| format!("{cell:#}")).collect::<String>()
    };
    assert_eq!(first.status, Some(0), "{}{}", wrong(&record_a), first.stderr);
    assert_eq!(second.status, Some(0), "{}{}", wrong(&record_b), second.stderr);
    assert_eq!(matrix(&record_a), matrix(&record_b));
    let published = cells(&record_a).iter().filter(|cell| cell["level"] == "container");
    for cell in published {
        let (outcome, expected) = (&cell["outcome"], &cell["expected"]);
        let as_published = outcome == expected || outcome == "not_applicable" || expected.is_null();
        assert!(as_published && cell["verdict"] == "ok", "{cell:#}");
    }
    // One program everywhere, and other random text in each run.
    for level in record_a["levels"].as_array().expect("levels") {
        assert_eq!(level["program_fnv"], record_a["program"]["fnv"], "{level}");
    }
    assert_ne!(record_a["planted"], record_b["planted"]);
}

#[test]
fn the_filter_in_force_is_the_table_that_ships() {
    let (done, record) = record(&["--on", "host", "--level", "container", "--only", "p06", "demo"]);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    let [cell] = &cells(&record)[..] else { panic!("one cell") };
    let items: Vec<&str> =
        cell["items"].as_array().expect("items").iter().filter_map(|item| item["item"].as_str()).collect();
    assert_eq!(items, ["allowed calls", "refused calls", "not called"]);
}

#[test]
fn each_probe_can_say_reached_or_says_why_not() {
    let done = run(&["probe", "--self-test", "demo"]);
    assert_eq!(done.status, Some(0), "{}{}", done.stdout, done.stderr);
    let lines: Vec<&str> = done.stdout.lines().filter(|line| line.starts_with('P')).collect();
    assert_eq!(lines.len(), 41, "{}", done.stdout);
    let told = |line: &&str| line.contains("can fail: reached") || line.contains("not shown here: ");
    assert!(lines.iter().all(told), "{}", done.stdout);
    // What is planted is found without isolation, whatever the machine has.
    for id in [
        "P01", "P06", "P14", "P18", "P19", "P20", "P21", "P25", "P26", "P27", "P28", "P29", "P35", "P38",
        "P39",
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(id) && line.contains("can fail")),
            "{}",
            done.stdout
        );
    }
}

#[test]
fn what_a_container_lacks_is_found() {
    for (knob, expected) in [
        ("seccomp=off", vec!["P06", "P07", "P08", "P10", "P11", "P12"]),
        ("net=host", vec!["P27"]),
        ("ipc=host", vec!["P20"]),
    ] {
        let knob_argument = format!("--knob={knob}");
        let (done, record) = record(&["--on", "host", "--level", "container", &knob_argument, "demo"]);
        assert_eq!(done.status, Some(1), "{knob}: {}", done.stderr);
        let found = findings(&record);
        assert!(expected.iter().all(|id| found.contains(id)), "{knob}: {found:?}");
    }
}

#[test]
fn what_works_without_an_end_stays_in_the_limits_of_a_container() {
    let stress = ["--on", "host", "--level", "container", "--stress", "--only"];
    let (done, all) = record(&[&stress[..], &["D01,D02,D03,D04,D05,D06,D07,D08", "demo"]].concat());
    assert_eq!(done.status, Some(0), "{}{:#}", done.stderr, all["cells"]);
    let item = |probe: &str, name: &str| {
        let cell = cells(&all).iter().find(|cell| cell["probe"] == probe).expect("a cell");
        let mut items = cell["items"].as_array().expect("items").iter();
        items.find(|item| item["item"] == name).unwrap_or_else(|| panic!("{name}: {cell:#}")).clone()
    };
    // Each was done, and what limited it was seen from outside.
    for (probe, name) in [("D06", "kernel memory"), ("D07", "isolab's memory")] {
        let item = item(probe, name);
        assert!(item["outcome"] == "blocked" && item["reason"]["layer"] == "limit", "{item:#}");
    }
    for (probe, name) in [
        ("D05", "busy processes"),
        ("D06", "crashes"),
        ("D06", "mappings"),
        ("D06", "missing names"),
        ("D07", "output"),
    ] {
        let item = item(probe, name);
        let done = item["seen"].as_str().is_some_and(|seen| !seen.starts_with("0 "));
        assert!(done && item["outcome"] == "not_applicable", "{item:#}");
    }
    let (done, none) = record(&[&stress[..], &["D02", "--knob=limits=off", "demo"]].concat());
    assert_eq!((done.status, findings(&none)), (Some(1), vec!["D02"]), "{}", done.stderr);
}

#[test]
fn what_works_without_an_end_stays_in_the_limits_of_a_guest_in_the_lab() {
    // By the lab's other clock seconds of work would take minutes.
    let place = ["--on", "lab", "--lab-clock", "wall", "--level", "vm"];
    let (done, record) = record(&[&place[..], &["--stress", "--only", "D05,D06,D07,D08", "demo"]].concat());
    assert_eq!(done.status, Some(0), "{}{:#}", done.stderr, record["cells"]);
    for cell in cells(&record) {
        let items = cell["items"].as_array().expect("items");
        assert!(items.iter().all(|item| item["outcome"] != "unknown") && items.len() > 1, "{cell:#}");
    }
}

#[test]
fn an_image_with_nothing_in_it_is_probed_as_well() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("only.txt"), "nothing to run here").expect("write");
    let image = import(dir.path(), "probe-empty");
    let page = dir.path().join("probe.html");
    let page_argument = page.to_str().expect("UTF-8");
    let done =
        run(&["probe", "--on", "host", "--levels", "process,container", "--html", page_argument, image]);
    assert_eq!(done.status, Some(0), "{}{}", done.stdout, done.stderr);
    assert!(
        done.stdout.contains("cells are as published") && done.stdout.contains("P06 system calls"),
        "{}",
        done.stdout
    );
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("<h2>The matrix</h2>") && !page.contains("http://"));
}

/// Names of planted files that are on the host now.
fn planted_files() -> Vec<String> {
    let names = |dir: &str| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    let is_planted = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let hex = name
            .strip_prefix("isolab-")
            .unwrap_or_default()
            .trim_end_matches(".s")
            .trim_end_matches(".netrc");
        hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let dir = std::env::temp_dir().display().to_string();
    names(&dir).into_iter().chain(names("/dev/shm")).filter(is_planted).collect()
}

#[test]
fn what_was_planted_goes_with_isolab_however_it_ends() {
    let mut child = isolab(&["probe", "--on", "host", "--levels", "process,container", "demo"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("isolab starts");
    let start = Instant::now();
    while planted_files().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "nothing was planted");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let end = Instant::now() + Duration::from_secs(5);
    while !planted_files().is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(planted_files(), Vec::<String>::new());
}

#[test]
fn what_can_not_be_meant_is_refused_in_one_line() {
    for (args, says) in [
        (vec!["probe", "--only", "P99", "demo"], "there is no probe \"P99\"; the probes are P01, "),
        (vec!["probe", "--levels", "jail", "demo"], "there is no level \"jail\""),
        (vec!["probe", "-i", "demo"], "leave -i and -t out"),
        (vec!["probe", "no-such-image"], "no-such-image"),
        (vec!["probe", "--self-test", "--on", "lab", "demo"], "isolab lab -- probe --self-test"),
        (vec!["probe", "--json", "/no/such/dir/x.json", "demo"], "is not a directory"),
    ] {
        let done = run(&args);
        assert_eq!(done.status, Some(125), "{args:?}");
        assert!(done.stderr.contains(says) && done.stderr.lines().count() == 1, "{args:?}: {}", done.stderr);
    }
}

#[test]
fn all_three_levels_are_as_published_in_the_lab() {
    let (done, record) = record(&["--on", "lab", "demo"]);
    assert_eq!(done.status, Some(0), "{:?} {}", findings(&record), done.stderr);
    assert!(done.stderr.contains("running in the lab"), "{}", done.stderr);
    let levels = record["levels"].as_array().expect("levels");
    let own: Vec<(&str, bool)> = levels
        .iter()
        .map(|level| (level["level"].as_str().expect("text"), level["own_kernel"] == true))
        .collect();
    assert_eq!(own, [("process", false), ("container", false), ("vm", true)]);
    for level in levels {
        assert_eq!(level["program_fnv"], record["program"]["fnv"], "{level}");
        assert_eq!(level["status"], 0, "{level}");
    }
    assert_eq!(cells(&record).len(), 3 * 41);
}
