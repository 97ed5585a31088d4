//! Records in, reports, exports, diffs and checks out: through the binary, on records that it measured itself.

mod support;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use isolab_images::digest::Digest;
use serde_json::Value;
use support::{binary, home, isolab, run};

/// The record of a comparison, made in the lab: no other load of this machine is in it.
static MEASURED: LazyLock<PathBuf> = LazyLock::new(|| {
    let file = home().join("records-measured.json");
    let json = file.to_str().expect("UTF-8");
    let levels = ["--on", "lab", "--levels", "process,container", "--pairs", "6", "--seed", "3", "--quiet"];
    let done = run(&[&["compare"][..], &levels, &["--json", json, "demo"]].concat());
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    file
});

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn record() -> Value {
    serde_json::from_slice(&std::fs::read(&*MEASURED).expect("a record")).expect("JSON")
}

/// The record after a change, in a file of its own.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut value = record();
    change(&mut value);
    let file = home().join(format!("records-{name}.json"));
    std::fs::write(&file, value.to_string()).expect("written");
    file
}

#[test]
fn the_text_report_is_the_table_of_the_comparison() {
    let file = home().join("records-table.json");
    let options = ["--on", "host", "--levels", "process", "--pairs", "6", "--json", text(&file), "demo"];
    let compared = run(&[&["compare"][..], &options].concat());
    assert!(matches!(compared.status, Some(0 | 3)), "{}", compared.stderr);
    let reported = run(&["report", text(&file)]);
    assert_eq!((reported.status, reported.stderr.as_str()), (Some(0), ""));
    assert_eq!(reported.stdout, compared.stdout);
}

#[test]
fn every_format_is_written_to_a_file_as_to_standard_output_and_the_same_each_time() {
    for format in ["text", "markdown", "html", "hyperfine", "firecracker", "benchfmt"] {
        let out = home().join("records-out");
        let printed = run(&["report", "--format", format, text(&MEASURED)]);
        assert_eq!((printed.status, printed.stderr.as_str()), (Some(0), ""), "{format}");
        assert!(printed.stdout.ends_with('\n') || format == "html", "{format}");
        let written = run(&["report", "--format", format, "-o", text(&out), text(&MEASURED)]);
        assert_eq!((written.status, written.stdout.as_str()), (Some(0), ""), "{}", written.stderr);
        assert_eq!(std::fs::read_to_string(&out).expect("written"), printed.stdout, "{format}");
    }
}

#[test]
fn a_record_comes_from_standard_input_too() {
    let mut command = isolab(&["report", "--format", "benchfmt", "-"]);
    command.stdin(std::fs::File::open(&*MEASURED).expect("a record"));
    let done = support::done(command.output().expect("isolab starts"));
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    assert_eq!(done.stdout.matches("BenchmarkStartup/arm=").count(), 12);
}

#[test]
fn what_is_no_record_is_refused_in_one_line() {
    let cases: [(&str, &[&str], &str); 5] = [
        ("no-json", &["report"], "read the result record"),
        ("other", &["report"], "isolab.result/9"),
        ("other", &["diff", text(&MEASURED)], "isolab.result/9"),
        ("other", &["check", "--against", "docs/exercise.toml"], "isolab.result/9"),
        ("missing", &["report"], "No such file"),
    ];
    std::fs::write(home().join("records-no-json.json"), "{\u{1b}").expect("written");
    changed("other", |r| r["schema"] = "isolab.result/9".into());
    for (file, command, word) in cases {
        let file = home().join(format!("records-{file}.json"));
        let done = run(&[command, &[text(&file)]].concat());
        assert_eq!((done.status, done.stdout.as_str()), (Some(125), ""), "{}", done.stderr);
        assert!(done.stderr.contains(word) && done.stderr.lines().count() == 1, "{}", done.stderr);
    }
    let two = run(&["report", "--format", "firecracker", text(&MEASURED), text(&MEASURED)]);
    assert!(two.status == Some(125) && two.stderr.contains("one record"), "{}", two.stderr);
    let metric = run(&["report", "--format", "hyperfine", "--metric", "gold", text(&MEASURED)]);
    assert!(metric.status == Some(125) && metric.stderr.contains("startup.request_to_ready"));
}

/// The times of an arm's runs, all so many quarters of what they were.
fn stretch(record: &mut Value, arm: &str, quarters: u64) {
    for sample in record["samples"].as_array_mut().expect("samples").iter_mut().filter(|s| s["arm"] == arm) {
        for moment in sample["t_ns"].as_object_mut().expect("times").values_mut() {
            let ns = moment.as_u64().expect("ns");
            *moment = (ns * quarters / 4).into();
        }
    }
}

#[test]
fn diff_ends_with_the_status_of_its_answer() {
    let same = run(&["diff", text(&MEASURED), text(&MEASURED)]);
    assert_eq!((same.status, same.stderr.as_str()), (Some(0), ""), "{}", same.stdout);
    assert!(same.stdout.contains("No regression shown"), "{}", same.stdout);
    let slow = changed("slow", |record| stretch(record, "container", 16));
    let worse = run(&["diff", text(&MEASURED), text(&slow)]);
    assert_eq!(worse.status, Some(1), "{}", worse.stdout);
    assert!(worse.stdout.contains("REGRESSION"), "{}", worse.stdout);
    let json = run(&["diff", "--json", "--metric", "startup.request_to_clean", text(&MEASURED), text(&slow)]);
    let found: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((json.status, found["regression"].as_bool()), (Some(1), Some(true)));
    assert_eq!(found["lines"].as_array().expect("lines").len(), 2);
    let other = changed("another", |record| record["host"]["clock"] = "monotonic".into());
    let refused = run(&["diff", text(&MEASURED), text(&other)]);
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(3), ""));
    assert!(refused.stderr.contains("clock differs"), "{}", refused.stderr);
    let margin = run(&["diff", "--margin", "-1", text(&MEASURED), text(&MEASURED)]);
    assert_eq!(margin.status, Some(125));
}

#[test]
fn a_record_names_the_program_that_measured_and_one_without_is_read() {
    let own = Digest::of(&std::fs::read(binary()).expect("isolab")).to_string();
    assert_eq!(record()["run"]["tool"]["digest"], own.as_str());
    let spec = home().join("records-program.toml");
    std::fs::write(&spec, format!("title = \"t\"\n[run]\nisolab_digest = \"{own}\"\n")).expect("written");
    assert_eq!(run(&["check", text(&MEASURED), "--against", text(&spec)]).status, Some(0));

    let other = changed("program", |record| {
        record["run"]["tool"]["digest"] = Digest::of(b"another").to_string().into();
    });
    let named = run(&["diff", text(&MEASURED), text(&other)]);
    assert!(named.status == Some(0) && named.stdout.contains("program of isolab"), "{}", named.stdout);
    let refused = run(&["check", text(&other), "--against", text(&spec)]);
    assert_eq!(refused.status, Some(1), "{}", refused.stdout);

    // As records were before.
    let old = changed("without", |record| {
        record["run"]["tool"].as_object_mut().expect("an object").remove("digest");
    });
    let same = run(&["diff", text(&MEASURED), text(&old)]);
    assert!(same.status == Some(0) && !same.stdout.contains("program of isolab"), "{}", same.stdout);
    let unknown = run(&["check", text(&old), "--against", text(&spec)]);
    assert!(unknown.status == Some(1) && unknown.stdout.contains("not known"), "{}", unknown.stdout);
}

#[test]
fn check_ends_with_the_status_of_its_answer() {
    let spec = home().join("records-spec.toml");
    let asked = "title = \"t\"\n[run]\nimage = \"demo\"\narms = [\"process\", \"container\"]\nmin_pairs = 6\nseed = 3\n\
                 [[ratio]]\nmetric = \"startup.request_to_ready\"\nof = \"container\"\nto = \"process\"\nat_least = 0.01\n";
    std::fs::write(&spec, asked).expect("written");
    let met = run(&["check", text(&MEASURED), "--against", text(&spec)]);
    assert_eq!((met.status, met.stderr.as_str()), (Some(0), ""), "{}", met.stdout);
    assert!(met.stdout.contains("All met") && !met.stdout.contains("FAIL"), "{}", met.stdout);
    let edited = changed("edited", |record| stretch(record, "process", 2));
    let found = run(&["check", "--json", text(&edited), "--against", text(&spec)]);
    assert_eq!(found.status, Some(1), "{}", found.stdout);
    let found: Value = serde_json::from_str(&found.stdout).expect("JSON");
    assert_eq!(found["passed"], false);
    std::fs::write(&spec, "title = \"t\"\n[run]\npairs = 5\n").expect("written");
    let typo = run(&["check", text(&MEASURED), "--against", text(&spec)]);
    assert_eq!((typo.status, typo.stdout.as_str()), (Some(125), ""));
    assert!(typo.stderr.contains("pairs") && typo.stderr.lines().count() == 1, "{}", typo.stderr);
}

#[test]
fn the_exercise_of_the_documents_passes_in_the_lab_and_not_without_its_vm() {
    let exercise = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/exercise.toml");
    let text_of =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/exercise.md")).expect("there");
    let line = text_of.lines().find(|line| line.trim().starts_with("isolab compare")).expect("the command");
    assert!(line.contains("--levels process,container,vm --pairs 6"), "{line}");
    let file = home().join("records-exercise.json");
    let options =
        ["--on", "lab", "--levels", "process,container,vm", "--pairs", "6", "--seed", "4711", "--quiet"];
    let done = run(&[&["compare"][..], &options, &["--json", text(&file), "demo"]].concat());
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    let met = run(&["check", text(&file), "--against", exercise]);
    assert_eq!(met.status, Some(0), "{}", met.stdout);
    let other = run(&["check", text(&MEASURED), "--against", exercise]);
    assert_eq!(other.status, Some(1), "{}", other.stdout);
    assert!(other.stdout.contains("FAIL  arm vm: 0 measured runs"), "{}", other.stdout);
}
