//! Every record that we write holds to the schema and comes back as it was; the verdict follows the evidence.

mod synthetic;

use std::sync::LazyLock;

use isolab_bench::comparability::{CheckStatus, Claim, Verdict};
use isolab_bench::environment::{ClockKind, HostClass, Noise};
use isolab_bench::plan::{PAIRS_IN_LAB, PAIRS_ON_HOST, Slot};
use isolab_bench::record::{Record, RecordError};
use isolab_bench::sample::Sample;
use isolab_bench::statistics::MIN_FOR_INTERVAL;
use isolab_bench::vary::Change;

const LEVELS: [&str; 3] = ["process", "container", "vm"];

static LAB: LazyLock<Record> =
    LazyLock::new(|| synthetic::record(&LEVELS, 7, HostClass::EmulatedLab, ClockKind::Instructions, 20));

fn lab() -> Record {
    LAB.clone()
}

fn problems(json: &str) -> Vec<String> {
    let schema =
        serde_json::from_str(include_str!("../schema/result.schema.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let value = serde_json::from_str(json).expect("a record is JSON");
    validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path)).collect()
}

/// The record again, judged anew after a change of its samples.
fn rejudged(record: Record, change: impl Fn(&mut Sample)) -> Record {
    let Record { run, host, arms, workload, mut samples, .. } = record;
    samples.iter_mut().for_each(change);
    Record::new(run, host, arms, workload, samples)
}

#[test]
fn a_record_of_every_kind_of_sample_holds_to_the_schema() {
    let record = rejudged(lab(), |s| {
        let slot = Slot {
            seq: s.seq,
            pair: s.pair,
            pos: s.pos,
            arm: s.arm.clone(),
            warmup: s.warmup,
            control: s.control,
        };
        if s.seq == 4 {
            *s = Sample::failed(&slot, "spawn isolab: no such file".to_owned());
        }
    });
    let json = record.to_json().expect("plain data");
    assert_eq!(problems(&json), Vec::<String>::new());
}

#[test]
fn the_schema_refuses_what_the_rules_forbid() {
    let json = lab().to_json().expect("plain data");
    let broken = [
        json.replacen("\"isolab.result/1\"", "\"isolab.result/2\"", 1),
        json.replacen("\"clean\": ", "\"clean\": -", 1),
        json.replacen("\"memcg-v2\"", "\"rss\"", 1),
        json.replacen("\"mem_backing\"", "\"memory_backing\"", 1),
        json.replacen("\"emulated-lab\"", "\"fast\"", 1),
    ];
    assert!(broken.iter().all(|json| !problems(json).is_empty()));
}

#[test]
fn a_record_reads_back_as_it_was_written() {
    let record = lab();
    let json = record.to_json().expect("plain data");
    assert_eq!(Record::from_json(json.as_bytes()).expect("our own record"), record);
}

#[test]
fn a_reader_ignores_what_is_new_and_refuses_another_version() {
    let json = lab().to_json().expect("plain data");
    let newer = json.replacen('{', "{\"added_later\": [1],", 1);
    assert_eq!(Record::from_json(newer.as_bytes()).expect("only an unknown key is new"), lab());
    let other = json.replacen("isolab.result/1", "isolab.result/9", 1);
    let error = Record::from_json(other.as_bytes()).expect_err("version 9");
    assert!(matches!(error, RecordError::Schema(version) if version == "isolab.result/9"));
}

#[test]
fn a_lab_may_claim_instruction_ratios_and_no_times() {
    let judged = lab().comparability;
    assert_eq!(judged.verdict, Verdict::Flagged);
    assert_eq!(judged.claims_allowed, [Claim::InstructionRatio, Claim::Memory]);
    let failed: Vec<&str> =
        judged.checks.iter().filter(|c| c.status != CheckStatus::Pass).map(|c| c.id.as_str()).collect();
    assert_eq!(failed, ["T05-kernel", "T06-medium", "T08-seccomp", "T18-isolation"]);
}

#[test]
fn equal_arms_are_comparable() {
    let record = synthetic::record(&["process"], 30, HostClass::None, ClockKind::Monotonic, 100);
    assert_eq!(record.comparability.verdict, Verdict::Comparable);
    assert_eq!(record.comparability.claims_allowed, [Claim::Absolute, Claim::Ratio, Claim::Memory]);
}

fn failing(record: &Record) -> Vec<&str> {
    let failed = |c: &&isolab_bench::comparability::Check| c.status == CheckStatus::Fail;
    record.comparability.checks.iter().filter(failed).map(|c| c.id.as_str()).collect()
}

#[test]
fn arms_with_and_without_returning_memory_differ_unless_that_is_what_is_varied() {
    let arms = ["vm", "reporting"];
    let record = synthetic::record(&arms, 30, HostClass::Hardware, ClockKind::Monotonic, 20);
    let Record { run, host, mut arms, workload, samples, .. } = record;
    let plain = arms["vm"].clone();
    arms.insert("reporting".to_owned(), plain.reporting());
    let judged = Record::new(run, host, arms, workload, samples);
    assert_eq!(failing(&judged), ["T18-isolation"]);
    let json = judged.to_json().expect("plain data");
    assert_eq!((json.matches("\"free_page_reporting\": true").count(), problems(&json)), (1, vec![]));
    let change = |knob: &str| Change {
        arm: "reporting".to_owned(),
        knob: knob.to_owned(),
        from: "off".to_owned(),
        to: "on".to_owned(),
        weaker: false,
    };
    let varied = judged.clone().with_changes(vec![change("free-page-reporting")]);
    assert_eq!(failing(&varied), [""; 0]);
    assert_eq!(failing(&judged.with_changes(vec![change("kernel")])), ["T18-isolation"]);
}

#[test]
fn software_kvm_is_refused_with_a_vm_and_not_without() {
    let with = synthetic::record(&LEVELS, 30, HostClass::Software, ClockKind::Monotonic, 100);
    assert_eq!(with.comparability.verdict, Verdict::Refused);
    assert!(with.comparability.claims_allowed.is_empty() && failing(&with).contains(&"T01-kvm-backend"));
    let without = synthetic::record(&LEVELS[..2], 30, HostClass::Software, ClockKind::Monotonic, 100);
    assert!(!failing(&without).contains(&"T01-kvm-backend"));
    assert_eq!(without.comparability.verdict, Verdict::Flagged);
}

#[test]
fn different_work_is_found() {
    let status = rejudged(lab(), |s| s.status = Some(if s.arm == "vm" { 1 } else { 0 }));
    assert_eq!(
        (status.comparability.verdict, failing(&status).contains(&"same-status")),
        (Verdict::Refused, true)
    );
    let output = rejudged(lab(), |s| s.stdout_sha256 = Some(s.arm.clone()));
    assert!(failing(&output).contains(&"same-output"));
    let image = rejudged(lab(), |s| {
        if s.arm == "vm" {
            s.detail.image_digest = Some("sha256:other".to_owned());
        }
    });
    assert!(failing(&image).contains(&"same-image"));
    let counter = rejudged(lab(), |s| {
        if let (Some(m), "vm") = (&mut s.mem_bytes, s.arm.as_str()) {
            m.source = "memcg-v1".to_owned();
        }
    });
    assert!(failing(&counter).contains(&"T09-counter"));
}

/// The record again, on a machine with this noise.
fn with_noise(psi_cpu_some_us: u64, steal_ticks: u64, swapped_in_pages: u64) -> Record {
    let mut record = synthetic::record(&["process"], 30, HostClass::None, ClockKind::Monotonic, 20);
    record.host.cpus_online = Some(2);
    record.host.noise = Noise {
        steal_ticks: Some(steal_ticks),
        psi_cpu_some_us: Some(psi_cpu_some_us),
        swapped_in_pages: Some(swapped_in_pages),
        elapsed_us: Some(10_000_000),
        ..Noise::default()
    };
    rejudged(record, |_| {})
}

#[test]
fn a_noisy_host_is_flagged_and_much_stolen_time_refuses() {
    let quiet = with_noise(400_000, 9, 0);
    assert_eq!((quiet.comparability.verdict, failing(&quiet)), (Verdict::Comparable, vec![]));
    let pressed = with_noise(9_000_000, 0, 3);
    assert_eq!(pressed.comparability.verdict, Verdict::Flagged);
    assert_eq!(failing(&pressed), ["T12-cpu-pressure", "T12-swap"]);
    let stolen = with_noise(0, 20, 0);
    assert_eq!((stolen.comparability.verdict, failing(&stolen)), (Verdict::Flagged, vec!["T12-steal"]));
    let robbed = with_noise(0, 40, 0);
    assert_eq!((robbed.comparability.verdict, failing(&robbed)), (Verdict::Refused, vec!["T12-steal"]));
}

#[test]
fn runs_that_grow_slower_are_not_stationary() {
    let record = synthetic::record(&["process"], 30, HostClass::None, ClockKind::Monotonic, 20);
    let judged = |record: &Record| record.comparability.checks.iter().any(|c| c.id == "T10-drift");
    assert!(judged(&record) && failing(&record).is_empty());
    let slower = rejudged(record, |s| {
        let times = s.t_ns.as_mut().expect("a timeline");
        times.ready = times.ready.map(|ns| ns + ns * u64::from(s.pair) / 300);
    });
    assert_eq!(failing(&slower), ["T10-drift"]);
    assert!(!judged(&lab()), "7 runs have no thirds");
}

#[test]
fn few_pairs_are_flagged_and_the_defaults_are_not() {
    let flagged = |pairs, class, clock| {
        let record = synthetic::record(&["process"], pairs, class, clock, 20);
        failing(&record).contains(&"T10-number-of-pairs")
    };
    let (host, lab) =
        ((HostClass::None, ClockKind::Monotonic), (HostClass::EmulatedLab, ClockKind::Instructions));
    assert!(flagged(PAIRS_ON_HOST - 1, host.0, host.1) && !flagged(PAIRS_ON_HOST, host.0, host.1));
    let few = u32::try_from(MIN_FOR_INTERVAL).expect("a small number") - 1;
    assert!(flagged(few, lab.0, lab.1) && !flagged(PAIRS_IN_LAB, lab.0, lab.1));
}

#[test]
fn the_summary_can_be_recomputed_from_the_raw_samples_alone() {
    let json: serde_json::Value =
        serde_json::from_str(&lab().to_json().expect("plain data")).expect("a record is JSON");
    let samples = json["samples"].as_array().expect("a list");
    let mut ready: Vec<u64> = samples
        .iter()
        .filter(|s| s["arm"] == "vm" && s["ok"] == true && s["warmup"] == false && s["control"] != true)
        .filter_map(|s| s["t_ns"]["ready"].as_u64())
        .collect();
    ready.sort_unstable();
    assert_eq!(ready.len(), 7);
    assert_eq!(json["summary"][1]["metric"], "startup.request_to_ready");
    assert_eq!(json["summary"][1]["arms"]["vm"]["median"].as_f64(), Some(ready[3] as f64));
    let sums = samples.iter().map(|s| {
        let phases = s["phase_ns"].as_object().expect("phases").values().filter_map(|v| v.as_u64());
        (phases.sum::<u64>(), s["t_ns"]["clean"].as_u64().expect("clean"))
    });
    assert!(sums.into_iter().all(|(sum, clean)| sum == clean && clean > 0));
}
