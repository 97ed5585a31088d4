//! What is published about the levels is what the probes are judged by, and what is written holds to its schema.

use std::path::Path;

use isolab_bench::environment::{ClockKind, Host, HostClass};
use isolab_bench::probe::table::{ROWS, row};
use isolab_bench::probe::{
    Cell, Config, ItemRecord, LevelRun, Outcome, ProbeRecord, Program, Reason, SCHEMA, Verdict, published,
};
use isolab_bench::record::Tool;
use isolab_bench::report::text::TextStyle;
use isolab_bench::report::{html, probe as text};

/// What a hostile level might say.
const HOSTILE: &str = "<script>alert(1)</script>\u{1b}[2J\u{202e}";

fn item(name: &str, outcome: Outcome, seen: &str) -> ItemRecord {
    let reason = (outcome == Outcome::Blocked).then(|| Reason {
        layer: "seccomp".into(),
        errno: Some(1),
        error: Some("EPERM".into()),
        signal: None,
    });
    ItemRecord { item: name.into(), outcome, reason, seen: Some(seen.into()), host_truth: Some(seen.into()) }
}

/// A record in which one cell of each verdict is.
fn record() -> ProbeRecord {
    let p12 = row("P12").expect("a row");
    let cells = vec![
        Cell::judged(p12, "process", false, 5, vec![item("bpf", Outcome::Reached, "x")]),
        Cell::judged(p12, "container", false, 5, vec![item("bpf", Outcome::Reached, HOSTILE)]),
        Cell::judged(p12, "vm", true, 5, vec![item(HOSTILE, Outcome::Unknown, HOSTILE)]),
        Cell::judged(
            row("P05").expect("a row"),
            "container",
            false,
            5,
            vec![item("syslog", Outcome::Blocked, "")],
        ),
    ];
    let levels = ["process", "container", "vm"].map(|level| LevelRun {
        level: level.into(),
        boot_id: Some(HOSTILE.into()),
        own_kernel: level == "vm",
        kernel: Some(HOSTILE.into()),
        program_fnv: Some("0123456789abcdef".into()),
        status: 0,
    });
    ProbeRecord {
        schema: SCHEMA.into(),
        tool: Tool {
            name: "isolab".into(),
            version: "0".into(),
            git: None,
            dirty: None,
            profile: "debug".into(),
            digest: None,
        },
        started_unix_ns: 1,
        argv: vec!["isolab".into()],
        host: Host::read(Path::new("/nonexistent"), HostClass::EmulatedLab, ClockKind::Instructions),
        boot_id: None,
        image: HOSTILE.into(),
        image_digest: format!("sha256:{}", "0".repeat(64)),
        program: Program { sha256: "0".repeat(64), fnv: "0".repeat(16) },
        config: Config {
            memory_bytes: 1,
            cpus: 1,
            pids: 2,
            read_only: false,
            free_page_reporting: false,
            user: "0:0".into(),
            kernel: None,
        },
        config_digest: "0".repeat(64),
        planted: vec![],
        levels: levels.to_vec(),
        cells,
    }
}

fn problems(json: &str) -> Vec<String> {
    let schema =
        serde_json::from_str(include_str!("../schema/probe.schema.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let value = serde_json::from_str(json).expect("a record is JSON");
    validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path)).collect()
}

#[test]
fn the_document_publishes_the_table_that_runs_are_judged_by() {
    let document = include_str!("../../docs/probe.md");
    let (_, rest) = document.split_once("<!-- the published table -->\n").expect("where it begins");
    let (written, _) = rest.split_once("<!-- its end -->").expect("where it ends");
    assert_eq!(written, published::markdown(), "docs/probe.md is to hold:\n{}", published::markdown());
}

#[test]
fn a_record_holds_to_the_schema_and_reads_back_as_it_was() {
    let record = record();
    let json = record.to_json().expect("plain data");
    assert_eq!(problems(&json), Vec::<String>::new());
    assert_eq!(ProbeRecord::from_json(json.as_bytes()).expect("our own record"), record);
    let newer = json.replacen("isolab.probe/1", "isolab.probe/2", 1);
    ProbeRecord::from_json(newer.as_bytes()).expect_err("another version");
}

#[test]
fn the_schema_refuses_what_the_rules_forbid() {
    let json = record().to_json().expect("plain data");
    let broken = [
        json.replacen("isolab.probe/1", "isolab.probe/2", 1),
        json.replacen("\"outcome\": \"blocked\"", "\"outcome\": \"error\"", 1),
        json.replacen("\"verdict\": \"finding\"", "\"verdict\": \"fine\"", 1),
        json.replacen("\"ns\": 5", "\"ns\": -5", 1),
    ];
    assert!(broken.iter().all(|json| !problems(json).is_empty()));
}

#[test]
fn findings_come_first_and_nothing_that_a_level_said_reaches_terminal_or_page_as_it_is() {
    let record = record();
    let verdicts: Vec<Verdict> = record.cells.iter().map(|cell| cell.verdict).collect();
    assert_eq!(verdicts, [Verdict::Ok, Verdict::Finding, Verdict::Unknown, Verdict::Ok]);
    let text = text::render(&record, TextStyle::default(), true);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
    let (finding, matrix) = (text.find("finding: P12"), text.find("\nprobe "));
    assert!(finding.zip(matrix).is_some_and(|(finding, matrix)| finding < matrix), "{text}");
    let page = html::render_probe(&record).expect("plain data");
    assert!(!page.contains("<script") && !page.contains('\u{1b}'));
    assert!(page.contains("not as published"));
}

#[test]
fn the_page_loads_nothing() {
    let page = html::render_probe(&record()).expect("plain data");
    for outside in ["http://", "https://", "<link", "<img", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn every_probe_says_what_it_asks_and_how_in_words_that_fit_a_table() {
    for row in ROWS {
        assert!(row.question.ends_with('?') && !row.method.is_empty(), "{}", row.id);
        let texts = row.levels.iter().map(|level| level.means).chain([row.question, row.method, row.title]);
        assert!(
            texts.clone().all(|text| !text.contains('|') && !text.contains('\n') && !text.is_empty()),
            "{}",
            row.id
        );
    }
}
