//! Checks of what the arms are: kernel, medium, console, limits, sharing, start, isolation (T05 to T08, T14, T15, T18).

use super::{CheckLevel, Evidence, Found, equal};
use crate::record::Arm;

fn over_arms(e: Evidence<'_>, what: &str, fact: impl Fn(&Arm) -> Option<String>) -> Option<Found> {
    equal(e.arms().map(|(name, arm)| (name, fact(arm))), what)
}

pub(super) fn kernel(e: Evidence<'_>) -> Option<Found> {
    over_arms(e, "kernels", |arm| arm.kernel.clone())
}

/// The host's mitigations are those of every arm that runs on its kernel; a guest has told its own, or it is not known.
pub(super) fn mitigations(e: Evidence<'_>) -> Option<Found> {
    e.arms().any(|(_, arm)| arm.mitigations.is_some()).then_some(())?;
    over_arms(e, "mitigations of the kernels", |arm| arm.mitigations.clone())
}

pub(super) fn medium(e: Evidence<'_>) -> Option<Found> {
    let found = over_arms(e, "media of the image", |arm| {
        Some(format!("{} by {}", arm.rootfs.fs.as_deref()?, arm.rootfs.via.as_deref()?))
    })?;
    let systems = over_arms(e, "file systems", |arm| arm.rootfs.fs.clone())?;
    // Where files are what is timed, another file system is another experiment.
    let other_work = e.workload.times_files == Some(true) && systems.status == super::CheckStatus::Fail;
    Some(if other_work { found.at(CheckLevel::Refuse) } else { found })
}

pub(super) fn console(e: Evidence<'_>) -> Option<Found> {
    let of = |name: &str, arm: &Arm| {
        let bytes = e.analysed(name).filter_map(|s| s.conditions.console_bytes).max();
        Some(if bytes.is_some_and(|n| n > 0) { "written to".to_owned() } else { arm.console.clone() })
    };
    let consoles: Vec<(&str, Option<String>)> = e.arms().map(|(name, arm)| (name, of(name, arm))).collect();
    equal(consoles.into_iter(), "consoles")
}

pub(super) fn limits(e: Evidence<'_>) -> Option<Found> {
    let of = |arm: &Arm| {
        let fact =
            arm.cpus.zip(arm.mem_limit_bytes).map(|(cpus, mem)| format!("{cpus} CPU with {mem} bytes"));
        let lost = &arm.limits_not_enforced;
        if lost.is_empty() { fact } else { Some(format!("without {}", lost.join(", "))) }
    };
    equal(e.isolated().map(|(name, arm)| (name, of(arm))), "CPUs and memory limits")
}

pub(super) fn init(e: Evidence<'_>) -> Option<Found> {
    equal(e.isolated().map(|(name, arm)| (name, Some(arm.init.clone()))), "programs of process 1")
}

pub(super) fn seccomp(e: Evidence<'_>) -> Option<Found> {
    over_arms(e, "seccomp filters", |arm| Some(arm.seccomp.clone()))
}

/// Pages that the host merges or maps twice are paid once at one level and twice at the other.
pub(super) fn sharing(e: Evidence<'_>) -> Option<Found> {
    let merging = e.host.ksm_run == Some(1) && e.arms.len() > 1;
    let told = e.arms().any(|(_, arm)| arm.sharing.is_some());
    if merging && e.has_vm() {
        return Some(Found::fail(
            "the host merges equal pages (ksm/run is 1): a guest's memory may be counted once for many",
        ));
    }
    if told {
        return over_arms(e, "ways of sharing memory", |arm| arm.sharing.clone());
    }
    e.host.ksm_run.map(|_| Found::pass("no pages are merged; one instance at a time"))
}

pub(super) fn start(e: Evidence<'_>) -> Option<Found> {
    over_arms(e, "kinds of start", |arm| arm.start.clone())
}

/// A faster arm that isolates less is not a better one: what each shares with the host stands beside its cost.
pub(super) fn isolation(e: Evidence<'_>) -> Option<Found> {
    let facts: Vec<(&str, String)> = e
        .arms()
        .filter_map(|(name, arm)| Some((name, arm.isolation.as_ref()?.words(&arm.seccomp))))
        .collect();
    let (_, first) = facts.first()?;
    if facts.iter().all(|(_, words)| words == first) {
        return Some(Found::pass(format!("isolation equal: {first}")));
    }
    let list: Vec<String> = facts.iter().map(|(name, words)| format!("{name}: {words}")).collect();
    Some(Found::fail(format!("isolation differs: {}", list.join("; "))))
}
