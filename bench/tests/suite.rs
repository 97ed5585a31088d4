//! Lines of a bench run hold to their schema and come back as they were; the numbers are those of known answers.

use std::collections::BTreeMap;
use std::path::Path;

use isolab_bench::comparability::Verdict;
use isolab_bench::conditions::Conditions;
use isolab_bench::density::{Density, Idle, Point, StopRule};
use isolab_bench::environment::{ClockKind, Host, HostClass, Noise};
use isolab_bench::measure::ExecuteError;
use isolab_bench::plan::{Plan, PlanError};
use isolab_bench::port::MemoryReading;
use isolab_bench::record::{Arm, Tool, identity};
use isolab_bench::report;
use isolab_bench::run_report::{Detail, EndReport, RunReport};
use isolab_bench::sample::Execution;
use isolab_bench::suite::lines::{EndLine, LinesError, RunLine, SCHEMA, SuiteRecord};
use isolab_bench::suite::{SuitePlan, SuiteSample, SuiteSlot, suite, summarise};

const BATCH: u64 = 50;

/// What a run at this level is made to tell: the operation takes 10 ns, at vm 30.
fn executed(slot: &SuiteSlot, batch: u64) -> Result<(Execution, Vec<u8>), ExecuteError> {
    let level = slot.slot.arm.as_str();
    let per = if level == "vm" { 30 } else { 10 };
    // One nanosecond more in each pair, so that there is an interval; 20 of the clock and 5 of the loop.
    let ns = vec![batch * (per + u64::from(slot.slot.pair)) + 25; 11];
    let line = format!(
        r#"{{"name":"x","n":{batch},"ns":{ns:?},"tsc":{ns:?},"loop_ns":5,"clock_ns":20000,"clock_reads":1000,"clock":"vdso",
           "late_ns":[100,100],"minor_faults":3}}"#
    );
    let report = RunReport {
        level: level.to_owned(),
        main_ns: 1010,
        stamps: vec![('B', 1020), ('W', 1000 + 100 * per), ('R', 1005 + 100 * per), ('X', 9000)],
        end: EndReport::Exited(0),
        status: 0,
        memory: Some(MemoryReading {
            source: "v2".to_owned(),
            current_bytes: per << 20,
            peak_bytes: per << 21,
            ..MemoryReading::default()
        }),
        clean_ns: 9500,
        detail: Detail::default(),
        cpu_ns: BTreeMap::new(),
        counters: BTreeMap::new(),
        subphases: vec![],
    };
    let execution = Execution {
        request_ns: 1000,
        report,
        stdout_sha256: String::new(),
        stderr_sha256: String::new(),
        complaint: None,
        conditions: Conditions::default(),
    };
    Ok((execution, line.replace('\n', "").into_bytes()))
}

fn plan() -> SuitePlan {
    let base = Plan::new(vec!["process".to_owned(), "vm".to_owned()], 6, 1, 3).expect("two arms");
    let suites = ["startup", "memory", "cpu", "timer"].map(|name| suite(name).expect("known"));
    SuitePlan::new(&suites, &base, |_| Ok::<u64, PlanError>(BATCH)).expect("nothing fails")
}

fn record(run: impl Fn(&SuiteSlot) -> Result<(Execution, Vec<u8>), ExecuteError>) -> SuiteRecord {
    let plan = plan();
    let samples: Vec<SuiteSample> =
        plan.order().iter().map(|slot| SuiteSample::new(&plan, slot, run(slot)).0).collect();
    let tool = Tool {
        name: "isolab".to_owned(),
        version: "0".to_owned(),
        git: None,
        dirty: None,
        profile: "test".to_owned(),
        digest: None,
    };
    let (id, started_unix_ns) = identity().expect("random bytes");
    let host = Host::read(Path::new("/nonexistent"), HostClass::Hardware, ClockKind::Monotonic);
    let point = |n: u32| Point {
        instances: n,
        start_ns: vec![5; n as usize],
        charge_bytes: Some(u64::from(n) << 20),
        system_bytes: u64::from(n) << 21,
        available_bytes: 1 << 30,
    };
    SuiteRecord {
        summaries: summarise(&plan, &samples),
        run: RunLine {
            schema: SCHEMA.to_owned(),
            id,
            started_unix_ns,
            tool,
            argv: vec!["isolab".to_owned()],
            image: "demo".to_owned(),
            plan,
            host,
            skipped: vec![],
        },
        samples,
        densities: vec![
            Density::new("vm", [1, 2, 4].map(point).to_vec(), StopRule::MaxInstances, None)
                .with_idle(Some(Idle { instances: 4, window_ns: 5_000_000_000, cpu_ns: 60_000_000 })),
            Density::new("process", vec![point(1)], StopRule::StartFailed, Some("no \u{1b} room".to_owned())),
        ],
        end: EndLine {
            arms: BTreeMap::from([("vm".to_owned(), Arm::new("vm"))]),
            verdict: Verdict::Comparable,
            checks: vec![],
            noise: Noise::default(),
            interrupted: None,
            failed: None,
        },
    }
}

fn good() -> SuiteRecord {
    record(|slot| executed(slot, BATCH))
}

fn lines(record: &SuiteRecord) -> Vec<String> {
    record.to_text().expect("plain data").split_inclusive('\n').map(str::to_owned).collect()
}

fn problems(lines: &[String]) -> Vec<String> {
    let schema =
        serde_json::from_str(include_str!("../schema/bench.schema.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let of = |line: &String| {
        let value = serde_json::from_str(line).expect("a line is JSON");
        validator.iter_errors(&value).map(|e| format!("{line}: {e}")).collect::<Vec<_>>()
    };
    lines.iter().flat_map(of).collect()
}

#[test]
fn every_line_holds_to_the_schema_and_reads_back() {
    let failing =
        record(|slot| if slot.slot.seq == 9 { Err("spawn isolab".into()) } else { executed(slot, BATCH) });
    for record in [good(), failing] {
        let lines = lines(&record);
        assert_eq!(problems(&lines), Vec::<String>::new());
        assert_eq!(SuiteRecord::from_text(lines.concat().as_bytes()).expect("our own lines"), record);
    }
}

#[test]
fn the_schema_refuses_what_the_rules_forbid() {
    let lines = lines(&good());
    let sample = lines.iter().find(|line| line.contains("\"work\":")).expect("a measuring workload");
    for broken in [
        lines[0].replace("isolab.bench/1", "isolab.bench/2"),
        lines[0].replace("\"type\":\"run\"", "\"type\":\"walk\""),
        sample.replace("\"loop_ns\":5", "\"loop_ns\":-5"),
        sample.replace("\"loop_ns\":5", "\"loop_ns\":5.5"),
        sample.replace("\"ok\":true", "\"ok\":false"),
        lines[lines.len() - 1].replace("comparable", "good"),
    ] {
        assert_ne!(problems(std::slice::from_ref(&broken)), Vec::<String>::new(), "{broken}");
    }
}

#[test]
fn a_cut_record_and_another_version_are_refused() {
    let lines = lines(&good());
    let cut = lines[..lines.len() - 1].concat();
    assert!(matches!(SuiteRecord::from_text(cut.as_bytes()), Err(LinesError::Cut("end"))));
    let other = lines.concat().replacen("isolab.bench/1", "isolab.bench/9", 1);
    assert!(
        matches!(SuiteRecord::from_text(other.as_bytes()), Err(LinesError::Schema(v)) if v == "isolab.bench/9")
    );
    let broken = format!("{}{{", lines[0]);
    assert!(matches!(SuiteRecord::from_text(broken.as_bytes()), Err(LinesError::Json { number: 2, .. })));
}

#[test]
fn the_numbers_are_those_of_the_known_answer() {
    let record = good();
    let of = |workload: &str, metric: &str| {
        let found = record.summaries.iter().find(|s| s.workload == workload && s.metric == metric);
        found.unwrap_or_else(|| panic!("no {metric} of {workload}")).clone()
    };
    // Pairs 1 to 6 (0 is warm-up) add 1 to 6 ns to each operation.
    let alu = of("alu", "time_per_operation");
    assert!((alu.arms["process"].middle.median - 13.5).abs() < 1e-9, "{alu:?}");
    assert!((alu.comparisons[0].difference.median - 20.0).abs() < 1e-9 && alu.comparisons[0].resolved);
    assert!((of("timer", "lateness").arms["vm"].middle.median - 2.0).abs() < 1e-9);
    assert!((of("null", "memory.charge").arms["vm"].middle.median - 31_457_280.0).abs() < 1e-9);
    let ready = of("null", "startup.request_to_ready");
    assert!((ready.arms["process"].middle.median - 1005.0).abs() < 1e-9);
    assert_eq!(ready.arms["process"].n, 6);
}

#[test]
fn a_run_of_another_batch_fails_and_is_not_counted() {
    let record = record(|slot| executed(slot, if slot.slot.arm == "vm" { BATCH + 1 } else { BATCH }));
    let alu = record.summaries.iter().find(|s| s.workload == "alu").expect("process has it");
    assert_eq!((alu.arms.contains_key("vm"), alu.comparisons.len()), (false, 0));
    let failed = record.samples.iter().find(|s| !s.ok).and_then(|s| s.error.clone()).expect("why");
    assert_eq!(failed, "the workload ran batches of 51 operations, not 50");
    assert!(report::suite::render(&record, 100).contains("runs failed, the first: "));
}

#[test]
fn the_table_has_every_workload_and_no_ratio_where_comparing_is_refused() {
    let mut record = good();
    let table = report::suite::render(&record, 100);
    for words in ["null to ready", "touch 32 charge", "alu", "timer lateness", "vm vs process", "comparable"]
    {
        assert!(table.contains(words), "{words}: {table}");
    }
    record.end.verdict = Verdict::Refused;
    assert!(!report::suite::render(&record, 100).contains("vm vs process"));
}

#[test]
fn a_curve_has_its_slopes_and_one_point_has_none() {
    let record = good();
    let [vm, process] = &record.densities[..] else { panic!("two curves") };
    let slopes = [vm.charge, vm.system].map(|slope| slope.expect("three points"));
    assert!((slopes[0].bytes_per_instance - 1_048_576.0).abs() < 1e-6);
    assert!((slopes[1].bytes_per_instance - 2_097_152.0).abs() < 1e-6);
    assert!(slopes.iter().all(|slope| slope.residual_bytes < 1e-6 && slope.intercept_bytes.abs() < 1e-6));
    assert_eq!((process.charge, process.system), (None, None));
    let table = report::suite::render(&record, 100);
    for words in [
        "charge: 1.000 MiB for each more instance",
        "idle: 0.300 % of a CPU for each of 4 in 5.000 s",
        "memory: 2.000 MiB",
        "no slope from so few points",
        "no \\u{1b} room",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

#[test]
fn the_page_has_every_suite_both_curves_and_the_record_itself() {
    use base64::Engine;
    let record = good();
    let page = report::html::render_bench(&record).expect("plain data");
    for words in [
        "<h2>startup</h2>",
        "<th><span>alu<span class=\"weaker\">doubt: batch: shorter than a thousand readings",
        "data-label=\"vm vs process\"",
        "13.50 ns/op",
        "aria-label=\"Sum of charges against the number of instances\"",
        "aria-label=\"Start latency against the number of instances\"",
        "<li>Charge: 1.000 MiB for each more instance, ",
        "Not in these numbers: image import",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    // Wide and narrow, of charge and of start.
    assert_eq!(page.matches("class=\"plot ").count(), 4);
    for forbidden in ["http://", "https://", "src=", "url(", "@import", "<script", "<link", "<img"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let (_, rest) = page.split_once("data:application/jsonl;base64,").expect("the record is embedded");
    let (encoded, _) = rest.split_once('"').expect("the attribute ends");
    let text = base64::engine::general_purpose::STANDARD.decode(encoded).expect("base64");
    assert_eq!(SuiteRecord::from_text(&text).expect("our own lines"), record);
}

#[test]
fn page_and_markdown_of_a_refused_run_set_no_level_against_another() {
    let mut record = good();
    record.end.verdict = Verdict::Refused;
    record.end.interrupted = Some(2);
    let page = report::html::render_bench(&record).expect("plain data");
    for report in [page, report::markdown::render_bench(&record)] {
        assert!(report.contains("NOT COMPARABLE") && !report.contains("vm vs process"), "{report}");
        assert!(report.contains("by signal 2, before all was measured"), "{report}");
    }
}

#[test]
fn markdown_has_the_numbers_of_the_text() {
    let markdown = report::markdown::render_bench(&good());
    for words in [
        "## isolab bench startup memory cpu timer density demo",
        "| alu; doubt: batch: shorter than a thousand readings of the clock | ns/op | 13.50 \\[",
        "| instances | start, ms median | p95 |",
        "* charge: 1.000 MiB for each more instance",
    ] {
        assert!(markdown.contains(words), "{words}: {markdown}");
    }
}

#[test]
fn names_of_a_bench_record_from_outside_stay_text() {
    let hostile = "<script>alert(1)</script>\" onload=\"x\u{1b}[2J\u{202e}";
    let mut record =
        record(|slot| if slot.slot.seq == 9 { Err(hostile.into()) } else { executed(slot, BATCH) });
    record.run.image = hostile.to_owned();
    record.run.id = hostile.to_owned();
    record.run.tool.version = hostile.to_owned();
    record.run.host.cpu_model = Some(hostile.to_owned());
    record.densities[0].level = hostile.to_owned();
    record.densities[1].reason = Some(hostile.to_owned());
    record.run.plan.arms[1] = hostile.to_owned();
    record.run.plan.tasks[0].suite = hostile.to_owned();
    for summary in &mut record.summaries {
        summary.workload = hostile.to_owned();
        summary.flags = vec![hostile.to_owned()];
    }
    let page = report::html::render_bench(&record).expect("plain data");
    for odd in ["<script", "\" onload", "\u{1b}", "\u{202e}"] {
        assert!(!page.contains(odd), "{odd:?}");
    }
    for report in [report::suite::render(&record, 100), report::markdown::render_bench(&record)] {
        assert!(!report.contains('\u{1b}') && !report.contains('\u{202e}'));
    }
}

#[test]
fn a_record_file_is_told_by_its_first_line() {
    use isolab_bench::recorded::{Recorded, RecordedError};
    let record = good();
    let text = record.to_text().expect("plain data");
    assert_eq!(Recorded::from_bytes(text.as_bytes()).expect("our own"), Recorded::Bench(Box::new(record)));
    let other = text.replacen("isolab.bench/1", "isolab.bench/9", 1);
    assert!(matches!(
        Recorded::from_bytes(other.as_bytes()),
        Err(RecordedError::Bench(LinesError::Schema(_)))
    ));
    for no_bench in ["", "{}", "{\"schema\":\"isolab.result/9\"}", "\n[1]"] {
        let error = Recorded::from_bytes(no_bench.as_bytes()).expect_err("no record");
        assert!(matches!(error, RecordedError::Comparison(_)), "{no_bench}: {error}");
    }
}
