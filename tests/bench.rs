//! Workload suites through the binary: every line holds to the schema, batches are the same everywhere, known answers.

mod support;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::{ends_within, home, isolab, measured, run, run_in, send};

/// The lines of a bench run, each judged by the schema.
fn lines(args: &[&str]) -> Vec<Value> {
    let result = run(&[&["bench", "--json", "-"], args].concat());
    assert!(measured(&result), "{}", result.stderr);
    judged(&result.stdout)
}

/// Lines, each judged by the schema.
fn judged(text: &str) -> Vec<Value> {
    let schema = serde_json::from_str(include_str!("../bench/schema/bench.schema.json")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
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
    let counted: Vec<&Value> =
        of_type(lines, "sample").into_iter().filter(|sample| sample["warmup"] == false).collect();
    assert_eq!(counted.len(), tasks.len() * levels.len() * pairs);
    let mut batches: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for sample in counted {
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
    let common = ["--on", "lab", "--pairs", "1", "--warmup", "0", "--seed", "4"];
    // In two labs at a time, each of which uses one CPU.
    let halves = std::thread::scope(|scope| {
        [&["memory", "fault"][..], &["syscall", "switch", "timer", "console"]]
            .map(|suites| scope.spawn(move || lines(&[&common, suites].concat())))
            .map(|lab| lab.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    for lines in &halves {
        check(lines, &levels, 1);
        assert_eq!(lines[0]["host"]["clock"], "instructions");
    }
    let lines = halves.concat();
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
    assert!(matches!(result.status, Some(0 | 3)), "{}", result.stderr);
    for words in ["sys null", "ns/op", "verdict"] {
        assert!(result.stdout.contains(words), "{words}: {}", result.stdout);
    }
    // A machine that others slow down gets numbers, and no sentence about them.
    assert_eq!(result.stdout.contains("container vs process"), result.status == Some(0), "{}", result.stdout);
}

#[test]
fn a_bench_record_is_reported_as_the_same_table_as_a_page_and_as_no_series_of_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let [json, page, again] = ["bench.jsonl", "bench.html", "again.html"].map(|name| dir.path().join(name));
    let [json, page, again] = [&json, &page, &again].map(|path| path.to_str().expect("UTF-8"));
    let levels = ["bench", "--on", "host", "--levels", "process,container", "--pairs", "1"];
    let measured =
        run(&[&levels[..], &["--max-instances", "2", "--json", json, "--html", page, "cpu", "density"]]
            .concat());
    assert!(matches!(measured.status, Some(0 | 3)), "{}", measured.stderr);
    assert_eq!(run(&["report", json]).stdout, measured.stdout);
    assert_eq!(run(&["report", "--format", "html", "-o", again, json]).status, Some(0));
    let pages = [page, again].map(|path| std::fs::read_to_string(path).expect("a page"));
    assert_eq!(pages[0], pages[1]);
    assert!(pages[0].contains("Total charge") && pages[0].contains("<h2>cpu</h2>"));
    assert!(run(&["report", "--format", "markdown", json]).stdout.contains("| ns/op |"));
    for command in [&["report", "--format", "hyperfine", json][..], &["diff", json, json]] {
        let refused = run(command);
        assert_eq!((refused.status, refused.stdout.as_str()), (Some(125), ""));
        assert!(refused.stderr.contains("is the record of a bench run"), "{}", refused.stderr);
    }
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_reason() {
    let unknown = run(&["bench", "sycall", "demo"]);
    assert_eq!((unknown.status, unknown.stdout.as_str()), (Some(125), ""));
    let useless = run(&["bench", "--max-instances", "4", "cpu"]);
    assert!(useless.stderr.starts_with("isolab: --max-instances has no effect without density"));
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

/// Cgroups that an isolab of this number left.
fn left_of(isolab: u32) -> Vec<String> {
    let name = format!("isolab-{isolab}-");
    let mut left = Vec::new();
    let mut dirs = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(dir) = dirs.pop() {
        // Other tests' cgroups come and go.
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&name) {
                    left.push(entry.path().display().to_string());
                }
                dirs.push(entry.path());
            }
        }
    }
    left
}

#[test]
fn each_more_idle_instance_costs_about_what_one_does_and_none_stays() {
    let file = home().join("density.jsonl");
    let json = file.to_str().expect("UTF-8");
    let child =
        isolab(&["bench", "--on", "host", "--levels", "process,container", "--max-instances", "6", "-q"])
            .args(["--json", json, "density"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("isolab starts");
    let number = child.id();
    let ended = support::done(child.wait_with_output().expect("isolab ends"));
    assert!(measured(&ended), "{}", ended.stderr);
    assert_eq!(left_of(number), Vec::<String>::new());
    let lines = judged(&std::fs::read_to_string(&file).expect("lines"));
    std::fs::remove_file(&file).expect("written");
    let curves = of_type(&lines, "density");
    assert_eq!(
        curves.iter().map(|c| c["level"].as_str()).collect::<Vec<_>>(),
        [Some("process"), Some("container")]
    );
    for curve in curves {
        let points = curve["points"].as_array().expect("points");
        // No step has the four starts from which on a busy machine could end the ramp.
        let counts: Vec<u64> = points.iter().map(|p| p["instances"].as_u64().expect("a number")).collect();
        assert_eq!(counts, [1, 2, 4, 6], "{curve}");
        let starts: Vec<usize> = points.iter().map(|p| numbers(&p["start_ns"]).len()).collect();
        assert_eq!(starts, [5, 1, 2, 2]);
        let charge = |point: &Value| point["charge_bytes"].as_f64().expect("a charge");
        let slope = curve["charge"]["bytes_per_instance"].as_f64().expect("a slope");
        // The first one's charge, but for the batches in which the kernel charges: 64 pages for each CPU.
        assert!(slope > 0.5 * charge(&points[0]) - 65_536.0, "{curve}");
        assert!(slope < charge(&points[0]) + 1_048_576.0, "{curve}");
        // Six programs that sleep.
        let idle = |key: &str| curve["idle"][key].as_u64().expect("what idle ones cost");
        assert_eq!(idle("instances"), 6);
        assert!(idle("window_ns") >= 5_000_000_000 && idle("cpu_ns") < idle("window_ns") / 1000, "{curve}");
    }
}

#[test]
fn an_interrupted_ramp_keeps_what_was_read_and_leaves_no_instance() {
    let file = home().join("ramp.jsonl");
    let json = file.to_str().expect("UTF-8");
    let child = isolab(&["bench", "--on", "host", "--levels", "process,container", "-q", "--json", json])
        .args(["--max-instances", "4096", "density"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("isolab starts");
    let number = child.id();
    assert!(!ends_within(&child, Duration::from_millis(1200)));
    send(&child, Signal::TERM);
    assert!(ends_within(&child, Duration::from_secs(20)));
    let ended = support::done(child.wait_with_output().expect("isolab ends"));
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(143), "isolab: interrupted\n"));
    assert_eq!(left_of(number), Vec::<String>::new());
    let lines = judged(&std::fs::read_to_string(&file).expect("lines"));
    std::fs::remove_file(&file).expect("written");
    let curves = of_type(&lines, "density");
    assert_eq!(curves.len(), 1, "the other level was not begun");
    assert_eq!(curves[0]["stopped_by"], "interrupted");
    assert_eq!(of_type(&lines, "end")[0]["interrupted"], 15);
}

#[test]
fn an_image_without_the_workload_has_no_density() {
    support::busybox();
    let result = run(&["bench", "--on", "host", "--levels", "container", "density", "busybox"]);
    assert_eq!((result.status, result.stdout.as_str()), (Some(125), ""));
    assert_eq!(
        result.stderr,
        "isolab: start an idle instance at level container: the image holds no /isolab-work; the image demo does\n"
    );
}

#[test]
fn what_was_measured_before_a_ramp_fails_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    std::fs::create_dir_all(root.join("bin")).expect("a directory");
    std::fs::copy("/bin/busybox", root.join("bin/sh")).expect("busybox-static");
    // It ends where it should be idle.
    std::fs::write(root.join("isolab-work"), "#!/bin/sh\n:\n").expect("a program");
    std::fs::set_permissions(root.join("isolab-work"), Permissions::from_mode(0o755)).expect("executable");
    let image = support::import(&root, "never-idle");
    let common = ["bench", "--on", "host", "--levels", "process", "--pairs", "1", "--json", "-"];
    let result = run(&[&common[..], &["startup", "density", image]].concat());
    assert_eq!(result.status, Some(125), "{}", result.stderr);
    let why = "start an idle instance at level process: it ended with status 0";
    assert_eq!(result.stderr, format!("isolab: {why}\n"));
    let lines = judged(&result.stdout);
    assert!(!of_type(&lines, "sample").is_empty());
    assert_eq!(of_type(&lines, "end")[0]["failed"], why);
}

#[test]
fn in_the_lab_both_counters_tell_the_same_cost_of_a_guest() {
    // Of memory, which no clock changes; this one is the faster.
    let place = ["--on", "lab", "--lab-clock", "wall", "--levels", "vm"];
    let lines = lines(&[&place[..], &["--warmup", "0", "--max-instances", "2", "density"]].concat());
    let curve = of_type(&lines, "density")[0];
    let slope = |of: &str| curve[of]["bytes_per_instance"].as_f64().expect("a slope");
    assert!((slope("system") / slope("charge") - 1.0).abs() < 0.05, "{curve}");
}
