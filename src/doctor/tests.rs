use isolab_vmm::probe::{KvmAccess, KvmClass};

use super::cgroup::Controller;
use super::facts::{Presence, Program, Userns};
use super::*;

/// A root user on a machine with everything.
pub(super) fn complete() -> Facts {
    let controller = |name: &str| Controller {
        name: name.to_owned(),
        version: Some(2),
        path: Some(PathBuf::from("/sys/fs/cgroup")),
        writable: true,
    };
    Facts {
        kernel: "6.12.1".to_owned(),
        cpus: 2,
        memory_bytes: 8 << 30,
        memory_available_bytes: 6 << 30,
        euid: 0,
        sys_admin: true,
        userns: Userns { built: true, max: Some(1000), ..Userns::default() },
        erofs: Presence::Loaded,
        erofs_file_backed: true,
        overlay: Presence::Module,
        loop_devices: true,
        seccomp: true,
        cgroup: ["memory", "cpu", "pids"].map(controller).into(),
        qemu: Some(Program { path: PathBuf::from("/usr/bin/qemu-system-x86_64"), version: None }),
        package_manager: Some("apt-get".to_owned()),
        ..Facts::default()
    }
}

fn kvm(class: KvmClass, runs: bool) -> KvmReport {
    let mut kvm = probe::probe_at(c"/nonexistent/kvm");
    (kvm.class, kvm.runs_guest_kernel, kvm.access) = (class, runs, KvmAccess::Usable);
    kvm.reason = "because".to_owned();
    kvm
}

pub(super) fn report(facts: Facts, kvm: KvmReport, kernel: bool) -> Report {
    judge(facts, kvm, StockKernel { path: PathBuf::from("/store/kernels/stock"), present: kernel }, false)
}

fn state(report: &Report, level: &str, on: Place) -> State {
    report.levels.iter().find(|l| l.level == level && l.on == on).unwrap().state
}

fn reasons(report: &Report, level: &str) -> String {
    let level = report.levels.iter().find(|l| l.level == level && l.on == Place::Host).unwrap();
    level.problems.iter().map(|p| p.reason.clone()).collect::<Vec<_>>().join("|")
}

#[test]
fn complete_hardware_machine_runs_everything() {
    let report = report(complete(), kvm(KvmClass::Hardware, true), true);
    assert!(report.levels.iter().all(|l| l.state == State::Ok && l.problems.is_empty()), "{report:#?}");
    assert_eq!(report.status(), 0);
}

#[test]
fn software_kvm_leaves_the_lab_and_status_0() {
    let report = report(complete(), kvm(KvmClass::Software, false), true);
    assert_eq!(state(&report, "vm", Place::Host), State::No);
    assert_eq!(state(&report, "vm", Place::Lab), State::Ok);
    assert_eq!(report.status(), 0);
    assert!(report.text().contains("--on lab"));
}

#[test]
fn no_way_to_a_vm_is_status_1() {
    let facts = Facts { qemu: None, ..complete() };
    assert_eq!(report(facts, kvm(KvmClass::Software, false), true).status(), 1);
    assert_eq!(report(complete(), kvm(KvmClass::Software, false), false).status(), 1);
}

#[test]
fn nested_kvm_is_limited() {
    let report = report(complete(), kvm(KvmClass::Nested, true), true);
    assert_eq!(state(&report, "vm", Place::Host), State::Limited);
}

#[test]
fn each_missing_feature_is_named() {
    let container = |change: &dyn Fn(&mut Facts)| {
        let mut facts = complete();
        change(&mut facts);
        let report = report(facts, kvm(KvmClass::Hardware, true), true);
        (state(&report, "container", Place::Host), reasons(&report, "container"))
    };
    type Case<'a> = (&'a dyn Fn(&mut Facts), State, &'a str);
    let cases: [Case<'_>; 11] = [
        (&|f| f.erofs = Presence::Absent, State::No, "EROFS"),
        (&|f| (f.erofs_file_backed, f.loop_devices) = (false, false), State::No, "loop devices"),
        (&|f| f.overlay = Presence::Absent, State::Limited, "overlay"),
        (&|f| f.seccomp = false, State::No, "seccomp"),
        (&|f| f.proc_masked = true, State::No, "parts of /proc are hidden"),
        (&|f| f.userns.max = Some(0), State::No, "max_user_namespaces"),
        (&|f| f.userns.works = Some(false), State::No, "refused"),
        (&|f| f.sys_admin = false, State::No, "CAP_SYS_ADMIN"),
        (&|f| f.cgroup[0].version = None, State::Limited, "memory is not there"),
        (&|f| f.cgroup[2].writable = false, State::Limited, "pids is not delegated"),
        (&|f| (f.euid, f.userns.apparmor_restricted) = (1000, Some(1)), State::No, "AppArmor"),
    ];
    for (change, wanted, word) in cases {
        let (state, reasons) = container(change);
        assert_eq!(state, wanted, "{word}");
        assert!(reasons.contains(word), "{reasons}");
    }
}

#[test]
fn sysctls_for_the_unprivileged_do_not_stop_root() {
    let mut facts = complete();
    (facts.userns.unprivileged_clone, facts.userns.apparmor_restricted) = (Some(0), Some(1));
    let report = report(facts, kvm(KvmClass::Hardware, true), true);
    assert_eq!(state(&report, "container", Place::Host), State::Ok);
}

#[test]
fn rootless_is_limited_and_says_why() {
    let facts = Facts { euid: 1000, subid_helpers: true, ..complete() };
    let report = report(facts, kvm(KvmClass::Hardware, true), true);
    assert_eq!(state(&report, "process", Place::Host), State::Limited);
    let reasons = reasons(&report, "container");
    assert!(reasons.contains("private copy") && reasons.contains("/etc/subuid"), "{reasons}");
    let container =
        |facts| self::reasons(&self::report(facts, kvm(KvmClass::Hardware, true), true), "container");
    let user = || Facts { euid: 1000, subid_helpers: true, subid_range: true, ..complete() };
    assert!(!container(user()).contains("one user exists"), "the range can be used");
    assert!(container(Facts { subid_helpers: false, ..user() }).contains("newuidmap"));
    assert!(container(Facts { kernel: "5.10.0-30-amd64".into(), ..user() }).contains("5.11"));
}

#[test]
fn gravest_problem_comes_first() {
    let facts = Facts { overlay: Presence::Absent, seccomp: false, ..complete() };
    let report = report(facts, kvm(KvmClass::Hardware, true), true);
    assert!(reasons(&report, "container").starts_with("the kernel has no seccomp"));
}

#[test]
fn inside_the_lab_the_vm_level_runs_on_the_host_place() {
    let stock = StockKernel { path: PathBuf::from("/store"), present: true };
    let report = judge(complete(), kvm(KvmClass::Software, true), stock, true);
    assert_eq!(report.host_class, "emulated-lab");
    assert_eq!(state(&report, "vm", Place::Host), State::Limited);
    assert_eq!(state(&report, "vm", Place::Lab), State::No);
    assert_eq!(report.status(), 0);
}

#[test]
fn this_machine_survives_json_and_text() {
    let inputs = Inputs { stock_kernel: PathBuf::from("/nonexistent/stock"), lab: false };
    let report = examine(&inputs);
    let json = report.json().unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    assert!(report.facts.cpus > 0 && report.facts.memory_bytes > 0 && !report.facts.kernel.is_empty());
    assert_eq!(report.facts.cgroup.len(), 3);
    let text = report.text();
    assert!(text.contains("container  host") && text.contains(&report.facts.kernel), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
}
