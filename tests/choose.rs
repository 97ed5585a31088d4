//! `isolab choose`: its answers and its status, from the published table and from records.

mod support;

use serde_json::Value;
use support::run;

fn answers(arguments: &[&str]) -> (Option<i32>, Vec<(String, String)>) {
    let done = run(&[&["choose", "--json"], arguments].concat());
    let choice: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{}", done.stderr));
    let levels = choice["levels"].as_array().expect("levels").iter();
    let text = |value: &Value| value.as_str().expect("a word").to_owned();
    (done.status, levels.map(|level| (text(&level["level"]), text(&level["answer"]))).collect())
}

fn of<'a>(answers: &'a [(String, String)], level: &str) -> &'a str {
    answers.iter().find(|(name, _)| name == level).map_or("", |(_, answer)| answer)
}

#[test]
fn the_published_table_answers_without_a_machine() {
    let (status, levels) = answers(&["--threat", "curious-code,exhaustion"]);
    assert_eq!(status, Some(0));
    assert_eq!(["process", "container", "vm"].map(|l| of(&levels, l)), ["does_not", "fits", "fits"]);
    let (status, levels) = answers(&["--threat", "untrusted-code", "--need", "host-network"]);
    assert_eq!(status, Some(1));
    assert!(levels.iter().all(|(_, answer)| answer == "does_not"), "{levels:?}");
    let text = run(&["choose", "--threat", "side-channels"]);
    assert_eq!(text.status, Some(1));
    assert!(text.stdout.contains("none of these") && text.stdout.contains("P37"), "{}", text.stdout);
}

#[test]
fn a_limit_is_judged_by_a_record_and_only_by_one_of_its_kind() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("record.json");
    let path = file.to_str().expect("UTF-8");
    let compare =
        ["compare", "--on", "host", "--levels", "process,container", "--pairs", "2", "--json", path];
    let measured = run(&[&compare[..], &["--allow-incomparable", "--quiet", "demo"]].concat());
    assert!(matches!(measured.status, Some(0 | 3)), "{}", measured.stderr);
    let with = |limits: &[&str]| answers(&[&["--threat", "mistakes", "--record", path], limits].concat());
    let (status, levels) = with(&["--start-budget", "60s", "--memory-budget", "1G"]);
    assert_eq!((status, of(&levels, "container")), (Some(0), "fits"));
    // Nothing was measured at vm.
    assert_eq!(of(&levels, "vm"), "unknown");
    let (status, levels) = with(&["--memory-budget", "1K"]);
    assert_eq!((status, of(&levels, "container")), (Some(1), "does_not"));
    let (_, levels) = with(&["--start-budget", "25Mi"]);
    assert_eq!(of(&levels, "container"), "unknown");
    let unmeasured = run(&["choose", "--start-budget", "50ms"]);
    assert_eq!(unmeasured.status, Some(1));
    assert!(unmeasured.stdout.contains("isolab compare --json"), "{}", unmeasured.stdout);
}

#[test]
fn what_is_not_known_is_refused_in_one_line_with_what_is() {
    for (arguments, says) in [
        (&["choose"][..], "--threat"),
        (&["choose", "--threat", "aliens"], "untrusted-code"),
        (&["choose", "--need", "speed"], "kernel-modules"),
        (&["choose", "--start-budget", "soon"], "50"),
        (&["choose", "--start-budget", "NaNMi"], "25Mi"),
        (&["choose", "--threat", "leaks", "--record", "/nonexistent"], "/nonexistent"),
        (&["choose", "--threat", "leaks", "--probe", "/dev/null"], "/dev/null"),
    ] {
        let done = run(arguments);
        assert_eq!(done.status, Some(125), "{arguments:?}: {}", done.stdout);
        assert!(done.stderr.contains(says) && done.stderr.trim_end().lines().count() == 1, "{}", done.stderr);
    }
}
