//! Each check of each trap has a fixture that triggers it and one that does not.

mod synthetic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use isolab_bench::comparability::traps::TRAPS;
use isolab_bench::comparability::{Check, CheckStatus, Verdict};
use isolab_bench::conditions::{CacheState, ClockBracket, Residency};
use isolab_bench::environment::{ClockKind, HostClass, Noise};
use isolab_bench::record::{Arm, Record};
use isolab_bench::sample::Sample;

static BASE: LazyLock<Record> = LazyLock::new(|| {
    synthetic::record(&["process", "container", "vm"], 30, HostClass::Hardware, ClockKind::Monotonic, 20)
});

type Change = fn(&mut Record);

/// Check, what makes it pass, what makes it fail, and whether that refuses.
const FIXTURES: &[(&str, Change, Change, bool)] = &[
    ("T01-kvm-backend", |_| {}, |r| r.host.class = HostClass::Software, true),
    ("T02-nested", |_| {}, |r| r.host.class = HostClass::Nested, false),
    ("T03-page-cache", |r| cached(r, |_| 10), |r| cached(r, |arm| if arm == "vm" { 0 } else { 10 }), true),
    ("T04-boundaries", |_| {}, |r| of_vm(r, |s| times(s).ready = None), true),
    ("T05-kernel", |r| each_arm(r, |arm| arm.kernel = text("6.12")), |_| {}, false),
    (
        "T05-mitigations",
        |r| each_arm(r, |arm| arm.mitigations = text("meltdown: not affected")),
        |r| each_arm(r, |arm| arm.mitigations = Some(arm.level.clone())),
        false,
    ),
    (
        "T06-medium",
        |r| each_arm(r, |arm| (arm.rootfs.fs, arm.rootfs.via) = (text("erofs"), text("file"))),
        |_| {},
        false,
    ),
    ("T07-console", |_| {}, |r| of_vm(r, |s| s.conditions.console_bytes = Some(10_240)), true),
    (
        "T07-fixed-wait",
        |r| of_vm(r, |s| s.conditions.longest_idle_ns = Some(900_000)),
        |r| of_vm(r, |s| s.conditions.longest_idle_ns = Some(500_000_000)),
        false,
    ),
    ("T08-limits", |_| {}, |r| vm(r).mem_limit_bytes = Some(1 << 30), true),
    ("T08-init", |_| {}, |r| vm(r).init = "systemd".to_owned(), true),
    ("T08-seccomp", |r| each_arm(r, |arm| arm.seccomp = "none".to_owned()), |_| {}, false),
    ("T09-counter", |_| {}, |r| of_vm(r, |s| memory_source(s, "memcg-v1")), true),
    ("T10-order", |_| {}, blocked, true),
    ("T10-number-of-pairs", |_| {}, |r| r.samples.truncate(4 * 8), false),
    ("T10-drift", |_| {}, |r| slower(r, |s| 1000 + u64::from(s.pair) * 10 / 3), false),
    (
        "T10-autocorrelation",
        |_| {},
        |r| slower(r, |s| if s.arm == "vm" { 1000 + u64::from(s.pair % 12).abs_diff(6) * 20 } else { 1000 }),
        false,
    ),
    ("T10-noise-floor", |_| {}, |r| slower(r, |s| if s.control { 1200 } else { 1000 }), false),
    ("T11-missing-runs", |_| {}, |r| drop(r.samples.remove(50)), false),
    ("T12-cpu-pressure", |r| noise(r, 0), |r| noise(r, 3_000_000), false),
    ("T12-steal", |r| noise(r, 0), |r| r.host.noise = Noise { steal_ticks: Some(40), ..quiet() }, true),
    ("T12-swap", |r| noise(r, 0), |r| r.host.noise = Noise { swapped_in_pages: Some(7), ..quiet() }, false),
    (
        "T12-frequency",
        |r| noise(r, 0),
        |r| r.host.noise = Noise { fixed_loop_ns: Some([1_000_000, 1_040_000]), ..quiet() },
        false,
    ),
    ("T13-harness", |_| {}, |r| of_vm(r, |s| times(s).main = times(s).ready), false),
    ("T14-sharing", |r| r.host.ksm_run = Some(0), |r| r.host.ksm_run = Some(1), false),
    ("T15-start", |_| {}, |r| vm(r).start = text("snapshot"), true),
    (
        "T16-clock",
        |r| of_vm(r, |s| s.conditions.clock = Some(ClockBracket { inside_ns: 990, outside_ns: 1000 })),
        |r| of_vm(r, |s| s.conditions.clock = Some(ClockBracket { inside_ns: 1010, outside_ns: 1000 })),
        true,
    ),
    ("T17-failed-runs", |_| {}, |r| r.samples.iter_mut().skip(20).take(9).for_each(|s| s.ok = false), true),
    ("same-image", |_| {}, |r| of_vm(r, |s| s.detail.image_digest = text("sha256:other")), true),
    ("same-status", |_| {}, |r| of_vm(r, |s| s.status = Some(1)), true),
    ("same-output", |_| {}, |r| of_vm(r, |s| s.stdout_sha256 = text("0123456789abcdef")), false),
    (
        "T18-isolation",
        |r| {
            let same = r.arms["container"].isolation.clone();
            each_arm(r, |arm| (arm.isolation, arm.seccomp) = (same.clone(), "default".to_owned()));
        },
        |_| {},
        false,
    ),
];

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn times(s: &mut Sample) -> &mut isolab_bench::timeline::Times {
    s.t_ns.as_mut().expect("a timeline")
}

fn memory_source(s: &mut Sample, source: &str) {
    s.mem_bytes.as_mut().expect("a charge").source = source.to_owned();
}

fn of_vm(r: &mut Record, change: impl FnMut(&mut Sample)) {
    r.samples.iter_mut().filter(|s| s.arm == "vm").for_each(change);
}

fn vm(r: &mut Record) -> &mut Arm {
    r.arms.get_mut("vm").expect("an arm")
}

fn each_arm(r: &mut Record, change: impl FnMut(&mut Arm)) {
    r.arms.values_mut().for_each(change);
}

fn cached(r: &mut Record, resident: fn(&str) -> u64) {
    r.run.plan.cache = Some(CacheState::Warm);
    for s in &mut r.samples {
        let residency = Residency { resident_pages: resident(&s.arm), pages: 10 };
        s.conditions.page_cache = BTreeMap::from([("image".to_owned(), residency)]);
    }
}

/// All of one arm, then all of the next.
fn blocked(r: &mut Record) {
    r.samples.sort_by(|a, b| (&a.arm, a.control, a.pair).cmp(&(&b.arm, b.control, b.pair)));
    for (seq, s) in (0..).zip(&mut r.samples) {
        s.seq = seq;
    }
}

fn slower(r: &mut Record, permille: fn(&Sample) -> u64) {
    for s in &mut r.samples {
        let permille = permille(s);
        let longer = |ns: Option<u64>| ns.map(|ns| ns * permille / 1000);
        let t = times(s);
        (t.ready, t.exit, t.clean) = (longer(t.ready), longer(t.exit), longer(t.clean));
    }
}

fn quiet() -> Noise {
    Noise {
        steal_ticks: Some(0),
        psi_cpu_some_us: Some(0),
        swapped_in_pages: Some(0),
        elapsed_us: Some(10_000_000),
        fixed_loop_ns: Some([1_000_000, 1_001_000]),
        ..Noise::default()
    }
}

fn noise(r: &mut Record, psi_cpu_some_us: u64) {
    r.host.noise = Noise { psi_cpu_some_us: Some(psi_cpu_some_us), ..quiet() };
}

/// The base with a change, judged anew.
fn changed(change: Change) -> Record {
    let mut record = BASE.clone();
    change(&mut record);
    let Record { run, host, arms, workload, samples, .. } = record;
    Record::new(run, host, arms, workload, samples)
}

fn check<'a>(record: &'a Record, id: &str) -> &'a Check {
    let found = record.comparability.checks.iter().find(|check| check.id == id);
    found.unwrap_or_else(|| panic!("{id} is not judged: {:?}", record.comparability.not_judged))
}

#[test]
fn every_check_of_every_trap_has_its_fixtures() {
    let ids: Vec<&str> = TRAPS.iter().map(|trap| trap.id).collect();
    let numbered: Vec<String> = (1..=18).map(|n| format!("T{n:02}")).collect();
    assert_eq!(ids, numbered);
    let checks: BTreeSet<&str> = TRAPS.iter().flat_map(|trap| trap.checks()).collect();
    let fixtures: BTreeSet<&str> = FIXTURES.iter().map(|(id, ..)| *id).collect();
    assert_eq!(checks, fixtures);
    assert!(TRAPS.iter().all(|trap| trap.checks().next().is_some()));
}

#[test]
fn each_check_passes_and_fails_as_its_fixtures_say() {
    for (id, mend, spoil, refuses) in FIXTURES {
        let clean = changed(*mend);
        assert_eq!(check(&clean, id).status, CheckStatus::Pass, "{id}: {}", check(&clean, id).detail);
        let spoilt = changed(*spoil);
        assert_eq!(check(&spoilt, id).status, CheckStatus::Fail, "{id}: {}", check(&spoilt, id).detail);
        assert!(!check(&spoilt, id).detail.is_empty());
        let refused = spoilt.comparability.verdict == Verdict::Refused;
        assert!(refused || !refuses, "{id} refuses");
        assert!(!refused || spoilt.comparability.claims_allowed.is_empty());
        if !refuses {
            assert_ne!(spoilt.comparability.verdict, Verdict::Comparable, "{id}");
        }
    }
}

#[test]
fn what_the_record_has_no_evidence_for_is_not_judged() {
    let judged = &BASE.comparability;
    for id in ["T03-page-cache", "T05-mitigations", "T07-fixed-wait", "T12-steal", "T14-sharing"] {
        assert!(judged.not_judged.iter().any(|not| not == id), "{id}: {:?}", judged.not_judged);
        assert!(judged.checks.iter().all(|check| check.id != id));
    }
    assert_eq!(judged.verdict, Verdict::Flagged);
}

#[test]
fn another_file_system_refuses_where_files_are_what_is_timed() {
    let other = changed(|r| {
        vm(r).rootfs.fs = text("ext4");
        r.workload.times_files = Some(true);
    });
    assert_eq!(other.comparability.verdict, Verdict::Refused);
    let medium = changed(|r| r.workload.times_files = Some(true));
    assert_eq!(medium.comparability.verdict, Verdict::Flagged, "the same file system by another way");
}

#[test]
fn a_cache_that_is_warm_in_part_is_named_and_one_that_is_not_cold_refuses() {
    let part = changed(|r| cached(r, |_| 6));
    assert_eq!(check(&part, "T03-page-cache").status, CheckStatus::Unknown);
    let not_cold = changed(|r| {
        cached(r, |_| 10);
        r.run.plan.cache = Some(CacheState::Cold);
    });
    assert_eq!(check(&not_cold, "T03-page-cache").status, CheckStatus::Fail);
    let cold = changed(|r| {
        cached(r, |_| 0);
        r.run.plan.cache = Some(CacheState::Cold);
    });
    assert_eq!(check(&cold, "T03-page-cache").status, CheckStatus::Pass);
}

#[test]
fn numbers_of_a_refused_comparison_carry_a_mark_in_each_report() {
    use isolab_bench::report::{html, text};
    let mut refused = changed(|r| r.host.class = HostClass::Software);
    let plain = |record: &Record| text::render(record, text::TextStyle::default());
    assert!(!plain(&refused).contains("later than") && plain(&refused).contains("NOT COMPARABLE"));
    refused.comparability.allow_incomparable();
    let mark = "NOT COMPARABLE (T01-kvm-backend)";
    assert_eq!(refused.comparability.watermark.as_deref(), Some(mark));
    let shown = plain(&refused);
    let sentences = shown.lines().filter(|line| line.contains("later than")).count();
    assert!(sentences > 0 && shown.lines().filter(|line| line.contains(mark)).count() > sentences, "{shown}");
    assert!(html::render(&refused).expect("plain data").contains(mark));
    assert!(refused.to_json().expect("plain data").contains(mark));
    let mut fine = BASE.clone();
    fine.comparability.allow_incomparable();
    assert_eq!(fine.comparability.watermark, None);
}
