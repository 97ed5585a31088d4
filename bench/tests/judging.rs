//! `diff` and `check` on whole records.

mod synthetic;

use std::sync::LazyLock;

use isolab_bench::check::{Spec, check, render};
use isolab_bench::conditions::CacheState;
use isolab_bench::diff::{Judgement, Question, diff, reasons};
use isolab_bench::environment::{ClockKind, HostClass};
use isolab_bench::record::Record;
use isolab_bench::sample::Sample;
use isolab_bench::summary::READINESS;

const LEVELS: [&str; 3] = ["process", "container", "vm"];

static RECORD: LazyLock<Record> =
    LazyLock::new(|| synthetic::record(&LEVELS, 30, HostClass::Hardware, ClockKind::Monotonic, 20));

fn record() -> Record {
    RECORD.clone()
}

/// The record again, summarised anew after a change of its samples.
fn changed(record: Record, change: impl FnMut(&mut Sample)) -> Record {
    let Record { run, host, arms, workload, mut samples, .. } = record;
    samples.iter_mut().for_each(change);
    Record::new(run, host, arms, workload, samples)
}

/// Every moment of an arm's runs later by a share, its phases with it.
fn slower(record: Record, arm: &str, percent: u64) -> Record {
    changed(record, |sample| {
        if sample.arm != arm {
            return;
        }
        let level = sample.arm.clone();
        let times = sample.t_ns.as_mut().expect("a timeline");
        let moments = [
            &mut times.main,
            &mut times.run_begin,
            &mut times.guest_kernel_done,
            &mut times.init,
            &mut times.exec,
            &mut times.first_user_insn,
            &mut times.ready,
            &mut times.exit,
            &mut times.clean,
        ];
        for moment in moments.into_iter().flatten() {
            *moment += *moment * percent / 100;
        }
        sample.phase_ns = times.phases(&level);
    })
}

#[test]
fn a_record_against_itself_shows_no_regression() {
    let found = diff(&record(), &record(), Question::default());
    assert!(!found.regression && reasons(&record(), &record()).is_empty());
    // What it leads with, in each arm.
    assert_eq!(found.lines.len(), 9);
    assert!(found.lines.iter().all(|l| l.ratio == Some(1.0) && l.difference == 0.0));
}

#[test]
fn a_slower_arm_is_a_regression_and_the_others_are_not() {
    let found = diff(&record(), &slower(record(), "vm", 10), Question::default());
    assert!(found.regression);
    for line in &found.lines {
        let worse = line.arm == "vm" && line.metric.starts_with("startup.");
        assert_eq!(line.judgement == Judgement::Regression, worse, "{line:?}");
    }
    let back = diff(&slower(record(), "vm", 10), &record(), Question::default());
    assert!(!back.regression && back.lines.iter().any(|l| l.judgement == Judgement::Improvement));
}

#[test]
fn the_margin_decides_what_is_a_regression() {
    let judged = |margin| {
        let question = Question { metric: Some(&READINESS), margin_percent: Some(margin) };
        diff(&record(), &slower(record(), "vm", 10), question)
    };
    assert!(judged(5.0).regression);
    assert!(!judged(15.0).regression);
    assert_eq!(judged(15.0).lines.len(), 3);
}

#[test]
fn few_runs_resolve_nothing() {
    let few = synthetic::record(&LEVELS, 4, HostClass::Hardware, ClockKind::Monotonic, 20);
    let found = diff(&few, &slower(few.clone(), "vm", 50), Question::default());
    assert!(!found.regression);
    assert!(found.lines.iter().all(|l| l.judgement == Judgement::NotResolved && l.interval.is_none()));
}

#[test]
fn records_of_another_experiment_are_refused() {
    let base = record();
    let other = |change: fn(&mut Record)| {
        let mut other = base.clone();
        change(&mut other);
        reasons(&base, &other)
    };
    type Change = fn(&mut Record);
    let cases: [(Change, &str); 11] = [
        (|r| r.run.plan.cache = Some(CacheState::Cold), "page cache before each run"),
        (|r| r.host.class = HostClass::Nested, "host class"),
        (|r| r.host.clock = ClockKind::Instructions, "clock"),
        (|r| r.host.cpu_model = None, "CPU differs"),
        (|r| r.workload.args.push("x".to_owned()), "command"),
        (|r| r.run.plan.arms.truncate(2), "arms"),
        (|r| r.arms.get_mut("vm").expect("vm").rootfs.digest = Some("sha256:0".to_owned()), "image of vm"),
        (|r| r.arms.get_mut("vm").expect("vm").rootfs.via = None, "medium of the image of vm"),
        (|r| r.arms.get_mut("vm").expect("vm").mem_limit_bytes = Some(1), "memory limit of vm"),
        (|r| r.comparability.verdict = isolab_bench::comparability::Verdict::Refused, "record B is refused"),
        (
            |r| {
                r.samples
                    .iter_mut()
                    .for_each(|s| s.mem_bytes.as_mut().expect("read").source = "memcg-v1".to_owned())
            },
            "counter of memory",
        ),
    ];
    for (change, word) in cases {
        let found = other(change);
        assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
    }
}

#[test]
fn what_may_be_the_cause_is_named_and_not_refused() {
    let mut newer = record();
    newer.run.tool.version = "9.9.9".to_owned();
    newer.arms.get_mut("vm").expect("vm").kernel = Some("6.99".to_owned());
    assert!(reasons(&record(), &newer).is_empty());
    let differs = diff(&record(), &newer, Question::default()).differs;
    assert_eq!(differs.len(), 2, "{differs:?}");
    assert!(differs[0].contains("9.9.9") && differs[1].contains("kernel of vm"));
}

fn spec(json: serde_json::Value) -> Spec {
    serde_json::from_value(json).expect("a specification")
}

/// The demands that are not met, in words.
fn failed(record: &Record, json: serde_json::Value) -> Vec<String> {
    let checked = check(record, &spec(json));
    assert_eq!(checked.passed, checked.lines.iter().all(|l| l.passed));
    assert!(render(&checked).contains(if checked.passed { "All met" } else { "FAIL  " }));
    checked.lines.into_iter().filter(|l| !l.passed).map(|l| format!("{}: {}", l.demand, l.found)).collect()
}

#[test]
fn a_record_that_holds_everything_passes() {
    let none: Vec<String> = vec![];
    let asked = serde_json::json!({
        "title": "t",
        "run": {
            "image": "test-data", "command": ["/isolab-work", "null"], "arms": LEVELS, "min_pairs": 30, "seed": 42,
            "image_digest": format!("sha256:{}", "7e57".repeat(16)),
        },
        "allowed": {
            "host_class": ["hardware"], "clock": ["monotonic"], "verdict": ["comparable", "flagged"],
            "failed_runs": 0, "not_before": "2020-01-01T00:00:00Z",
        },
        "metric": [{"name": "memory.charge"}, {"name": "startup.request_to_ready", "arms": ["vm"], "at_least": 1e6}],
        "ratio": [{"metric": "startup.request_to_ready", "of": "vm", "to": "container", "at_least": 5, "at_most": 1000}],
    });
    assert_eq!(failed(&record(), asked), none);
}

#[test]
fn each_demand_that_is_not_met_is_named() {
    let cases = [
        (serde_json::json!({"run": {"image": "other"}}), "image other: test-data"),
        (serde_json::json!({"run": {"image_digest": "sha256:0"}}), "image digest sha256:0 in every arm"),
        (
            serde_json::json!({"run": {"isolab_digest": "sha256:0"}}),
            "measured by the isolab sha256:0: not known",
        ),
        (serde_json::json!({"run": {"command": ["x"]}}), "command x: /isolab-work null"),
        (serde_json::json!({"run": {"arms": ["unikernel"]}}), "arm unikernel: 0 measured runs"),
        (serde_json::json!({"run": {"min_pairs": 31}}), "at least 31 pairs: 30 measured"),
        (serde_json::json!({"run": {"seed": 7}}), "seed 7: 42"),
        (
            serde_json::json!({"allowed": {"host_class": ["emulated-lab", "nested"]}}),
            "host class emulated lab or nested",
        ),
        (serde_json::json!({"allowed": {"clock": ["instructions"]}}), "clock instructions: monotonic"),
        (serde_json::json!({"allowed": {"verdict": ["refused"]}}), "verdict refused"),
        (serde_json::json!({"allowed": {"not_after": "2020-01-01T00:00:00Z"}}), "started not after 2020"),
        (serde_json::json!({"metric": [{"name": "memory.gold"}]}), "metric memory.gold"),
        (
            serde_json::json!({"metric": [{"name": "memory.charge", "arms": ["vm"], "at_most": 1}]}),
            "memory.charge of vm at most 1: median",
        ),
        (
            serde_json::json!({"ratio": [{"metric": "memory.charge", "of": "vm", "to": "process", "at_most": 2}]}),
            "memory.charge, vm / process at most 2",
        ),
        (
            serde_json::json!({"ratio": [{"metric": "memory.charge", "of": "vm", "to": "x", "at_most": 2}]}),
            "memory.charge, vm / x at most 2: not measured in both",
        ),
    ];
    let record = record();
    for (mut asked, expected) in cases {
        asked["title"] = "t".into();
        let found = failed(&record, asked);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
    }
    let mut record = record;
    record.samples.last_mut().expect("runs").ok = false;
    let found = failed(&record, serde_json::json!({"title": "t", "allowed": {"failed_runs": 0}}));
    assert_eq!(found[0], "at most 0 failed runs: 1 failed");
}

#[test]
fn a_record_that_was_edited_does_not_pass() {
    type Edit = fn(&mut Record);
    let cases: [(Edit, &str); 14] = [
        (
            |r| {
                // The sum stays the same.
                let mut phases = r.samples[9].phase_ns.values_mut();
                let (one, other) = (phases.next().expect("two"), phases.next().expect("two"));
                (*one, *other) = (*one - 1, *other + 1);
            },
            "each phase is the time between",
        ),
        (
            |r| r.samples[9].mem_bytes.as_mut().expect("read").anon = Some(1),
            "the parts of each memory account",
        ),
        (|r| r.crosschecks[0].observed.push('!'), "the instrument's checks of itself"),
        (|r| r.headline = None, "each number of the summary"),
        (|r| drop(r.comparability.checks.remove(0)), "the verdict follows"),
        (|r| r.summary[1].arms.get_mut("vm").expect("vm").median *= 0.5, "each number of the summary"),
        (|r| r.summary[0].comparisons[1].resolved = false, "each number of the summary"),
        (|r| r.samples[9].t_ns.as_mut().expect("times").clean = Some(5), "the phases of each run"),
        (|r| r.samples[9].t_ns.as_mut().expect("times").ready = Some(1), "the moments of each run"),
        (|r| drop(r.samples.remove(9)), "the runs follow the plan's seed"),
        (|r| r.samples.swap(9, 10), "the runs follow the plan's seed"),
        (|r| r.run.plan.seed = 7, "the runs follow the plan's seed"),
        (|r| r.run.started_unix_ns += 1_000_000_000_000, "the run's id"),
        (
            |r| r.comparability.verdict = isolab_bench::comparability::Verdict::Comparable,
            "the verdict follows",
        ),
    ];
    let untouched = Spec { title: "t".to_owned(), ..Spec::default() };
    assert!(check(&record(), &untouched).passed, "{}", render(&check(&record(), &untouched)));
    for (edit, expected) in cases {
        let mut record = record();
        edit(&mut record);
        let found = failed(&record, serde_json::json!({"title": "t"}));
        assert!(found.iter().any(|line| line.starts_with(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn a_plan_too_large_to_carry_out_is_no_plan() {
    let mut record = record();
    record.run.plan.pairs = u32::MAX;
    assert!(!failed(&record, serde_json::json!({"title": "t"})).is_empty());
}

#[test]
fn a_specification_with_a_typing_error_is_refused() {
    let error = serde_json::from_value::<Spec>(serde_json::json!({"title": "t", "run": {"pairs": 3}}));
    assert!(error.expect_err("no such key").to_string().contains("pairs"));
    for time in [serde_json::json!("yesterday"), serde_json::json!({"a": "2026-10-01"})] {
        let asked = serde_json::json!({"title": "t", "allowed": {"not_after": time}});
        let error = serde_json::from_value::<Spec>(asked).expect_err("no time").to_string();
        assert!(error.contains("such as \"2026-10-01T00:00:00Z\""), "{error}");
    }
}

#[test]
fn a_specification_with_a_name_that_no_record_has_is_refused_with_those_that_there_are() {
    let checked =
        |json: serde_json::Value| spec(json).check_names(&LEVELS).map_err(|error| error.to_string());
    let good = serde_json::json!({
        "title": "t", "run": {"arms": ["vm", "container seccomp=off"]}, "metric": [{"name": "memory.charge", "arms": ["vm"]}],
    });
    assert_eq!(checked(good), Ok(()));
    let ratio = |metric: &str, of: &str| serde_json::json!({"metric": metric, "of": of, "to": "vm"});
    for (asked, named) in [
        (
            serde_json::json!({"title": "t", "metric": [{"name": "memory.gold"}]}),
            "metric \"memory.gold\"; there are startup.",
        ),
        (serde_json::json!({"title": "t", "ratio": [ratio("time", "vm")]}), "metric \"time\""),
        (
            serde_json::json!({"title": "t", "ratio": [ratio("memory.peak", "x")]}),
            "arm \"x\"; there are process, container, vm",
        ),
        (serde_json::json!({"title": "t", "run": {"arms": ["unikernel"]}}), "arm \"unikernel\""),
    ] {
        let error = checked(asked).expect_err(named);
        assert!(error.contains(named), "{named}: {error}");
    }
}
