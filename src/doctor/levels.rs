//! From what was seen to what each level can do. Pure: every case is a test.

use isolab_vmm::probe::{KvmAccess, KvmReport};

use super::cgroup::Controller;
use super::facts::{Facts, Presence, Userns, kernel_version};
use super::{LevelReport, Place, State, StockKernel};
use crate::hint::{self, Hint, UsernsOff};

/// Least memory for the lab machine beside what the host needs.
const LAB_MEMORY_BYTES: u64 = 1 << 30;

/// Every level in every place.
pub(super) fn all(facts: &Facts, kvm: &KvmReport, kernel: &StockKernel, lab: bool) -> Vec<LevelReport> {
    vec![process(facts), container(facts), vm(kvm, kernel, lab), in_lab(facts, kernel, lab)]
}

const fn no(hint: Hint) -> Option<(State, Hint)> {
    Some((State::No, hint))
}

const fn limited(hint: Hint) -> Option<(State, Hint)> {
    Some((State::Limited, hint))
}

fn process(facts: &Facts) -> LevelReport {
    let mut level = LevelReport::new("process", Place::Host);
    user(&mut level, facts);
    image(&mut level, facts);
    level
}

fn container(facts: &Facts) -> LevelReport {
    let mut level = LevelReport::new("container", Place::Host);
    user(&mut level, facts);
    if facts.euid == 0 {
        // Not only for the unprivileged: a container of root has a user namespace too.
        let problem = userns_problem(&facts.userns, false).map(hint::userns_off).and_then(no);
        level.found("user namespaces", userns_text(&facts.userns), problem);
    }
    image(&mut level, facts);
    level.found(
        "seccomp filters",
        if facts.seccomp { "yes" } else { "no" },
        if facts.seccomp { None } else { no(hint::no_seccomp()) },
    );
    let masked = if facts.proc_masked { no(hint::masked_proc()) } else { None };
    level.found("/proc", if facts.proc_masked { "with hidden parts" } else { "whole" }, masked);
    cgroups(&mut level, &facts.cgroup);
    level
}

/// Each controller is evidence; those with one fault make one problem.
fn cgroups(level: &mut LevelReport, controllers: &[Controller]) {
    for controller in controllers {
        let observed = match (controller.version, &controller.path) {
            (Some(version), Some(path)) => {
                let access = if controller.writable { "" } else { ", not writable" };
                format!("v{version} at {}{access}", path.display())
            }
            _ => "no".to_owned(),
        };
        level.saw(&format!("cgroup {}", controller.name), observed, controller.writable);
    }
    for hint in cgroup_hints(controllers) {
        level.problem(State::Limited, hint);
    }
}

/// What speaks against using these controllers, one hint for each fault.
pub(super) fn cgroup_hints(controllers: &[Controller]) -> Vec<Hint> {
    let names = |fault: &dyn Fn(&Controller) -> bool| {
        controllers.iter().filter(|c| fault(c)).map(|c| c.name.as_str()).collect::<Vec<_>>()
    };
    let mut hints = vec![];
    let missing = names(&|c| c.version.is_none());
    if !missing.is_empty() {
        hints.push(hint::cgroup_missing(&missing));
    }
    for version in [1, 2] {
        let closed = names(&|c| c.version == Some(version) && !c.writable);
        if !closed.is_empty() {
            hints.push(hint::cgroup_not_delegated(&closed, version));
        }
    }
    hints
}

fn vm(kvm: &KvmReport, kernel: &StockKernel, lab: bool) -> LevelReport {
    let mut level = LevelReport::new("vm", Place::Host);
    let observed = match kvm.access {
        KvmAccess::Usable => "usable",
        KvmAccess::Missing => "missing",
        KvmAccess::Denied => "no permission",
        KvmAccess::Busy => "busy",
        KvmAccess::Broken => "broken",
    };
    level.saw("/dev/kvm", observed, kvm.access == KvmAccess::Usable);
    let blocked = hint::vm_on_host(kvm);
    let possible = blocked.is_none();
    let problem = blocked.map_or_else(|| hint::vm_caveat(kvm, lab).and_then(limited), no);
    level.found("KVM class", format!("{}: {}", hint::host_class(kvm, lab), kvm.reason), problem);
    if possible {
        guest_kernel(&mut level, kernel);
    }
    level
}

fn in_lab(facts: &Facts, kernel: &StockKernel, lab: bool) -> LevelReport {
    let mut level = LevelReport::new("vm", Place::Lab);
    if lab {
        level.found("place", "in the lab already", no(hint::lab_in_lab()));
        return level;
    }
    let (observed, problem) = match &facts.qemu {
        Some(qemu) => {
            let version = qemu.version.as_deref().unwrap_or("of unknown version");
            (format!("{version} at {}", qemu.path.display()), None)
        }
        None => ("not in PATH".to_owned(), no(hint::no_qemu())),
    };
    level.found("QEMU", observed, problem);
    guest_kernel(&mut level, kernel);
    let mib = facts.memory_available_bytes >> 20;
    let little = facts.memory_available_bytes < LAB_MEMORY_BYTES;
    let problem = || Hint {
        reason: format!("only {mib} MiB of memory are available for the lab machine"),
        remedy: "free memory, or give the lab less with --lab-memory".to_owned(),
    };
    level.found("memory available", format!("{mib} MiB"), if little { limited(problem()) } else { None });
    level
}

fn guest_kernel(level: &mut LevelReport, kernel: &StockKernel) {
    let path = kernel.path.display();
    if kernel.present {
        level.saw("guest kernel stock", path.to_string(), true);
    } else {
        level.found("guest kernel stock", format!("not at {path}"), no(hint::no_guest_kernel("stock")));
    }
}

/// Who runs isolab, and for a user that is not root: whether namespaces and ids are there.
fn user(level: &mut LevelReport, facts: &Facts) {
    if facts.euid == 0 {
        let (observed, problem) = match facts.sys_admin {
            true => ("root", None),
            false => ("root without CAP_SYS_ADMIN", no(hint::no_sys_admin())),
        };
        level.found("user", observed, problem);
        return;
    }
    level.found("user", format!("euid {}", facts.euid), limited(hint::rootless_copy()));
    let problem = userns_problem(&facts.userns, true).map(hint::userns_off).and_then(no);
    level.found("user namespaces", userns_text(&facts.userns), problem);
    let (observed, problem) = match (facts.subid_range, facts.subid_helpers) {
        (true, true) => ("yes", None),
        (false, true) => ("no", limited(hint::no_subuid())),
        (_, false) => ("no newuidmap", limited(hint::no_uidmap())),
    };
    level.found("subordinate ids", observed, problem);
}

/// How the image becomes a root directory.
fn image(level: &mut LevelReport, facts: &Facts) {
    let overlay = if facts.overlay == Presence::Absent { limited(hint::no_overlay()) } else { None };
    if facts.euid != 0 {
        // An unprivileged user can't mount EROFS at all: the unpacked copy does not need it.
        level.saw("image", "unpacked into a private copy", true);
        let old = kernel_version(&facts.kernel).is_some_and(|version| version < (5, 11));
        let problem = if old { limited(hint::old_overlay()) } else { overlay };
        level.found("overlay", presence_text(facts.overlay), problem);
        return;
    }
    let erofs = if facts.erofs == Presence::Absent { no(hint::no_erofs()) } else { None };
    level.found("EROFS", presence_text(facts.erofs), erofs);
    let (observed, problem) = match (facts.erofs_file_backed, facts.loop_devices) {
        (true, _) => ("the file itself (Linux 6.12 or later)", None),
        (false, true) => ("by loop device (before Linux 6.12)", None),
        (false, false) => ("neither file-backed nor by loop device", no(hint::no_loop())),
    };
    level.found("EROFS mounts", observed, problem);
    level.found("overlay", presence_text(facts.overlay), overlay);
}

const fn presence_text(presence: Presence) -> &'static str {
    match presence {
        Presence::Loaded => "in the kernel",
        Presence::Module => "as a module",
        Presence::Absent => "no",
    }
}

pub(super) fn userns_problem(userns: &Userns, unprivileged: bool) -> Option<UsernsOff> {
    if !userns.built {
        Some(UsernsOff::NotBuilt)
    } else if userns.max == Some(0) {
        Some(UsernsOff::MaxIsZero)
    } else if unprivileged && userns.unprivileged_clone == Some(0) {
        Some(UsernsOff::CloneIsZero)
    } else if unprivileged && userns.apparmor_restricted == Some(1) {
        Some(UsernsOff::AppArmor)
    } else if userns.works == Some(false) {
        Some(UsernsOff::Refused)
    } else {
        None
    }
}

fn userns_text(userns: &Userns) -> String {
    if !userns.built {
        return "not in the kernel".to_owned();
    }
    let settings = [
        ("max", userns.max),
        ("unprivileged_userns_clone", userns.unprivileged_clone),
        ("apparmor_restrict", userns.apparmor_restricted),
    ];
    let shown: Vec<String> =
        settings.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))).collect();
    let works = match userns.works {
        Some(true) => "work",
        Some(false) => "refused",
        None => "not tried",
    };
    if shown.is_empty() { works.to_owned() } else { format!("{works} ({})", shown.join(", ")) }
}
