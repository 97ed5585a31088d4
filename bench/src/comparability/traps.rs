//! The traps as data: what makes such comparisons dishonest, and which checks look for it.

use super::{CheckLevel, Evidence, Found, arms, cache, machine, order, runs};
use crate::noise;

/// One way to be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    /// `T01` to `T18`.
    pub id: &'static str,
    /// In a few words.
    pub title: &'static str,
    checks: &'static [Row],
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    /// What a failure means, unless the check says otherwise of what it saw.
    pub(crate) level: CheckLevel,
    /// Nothing: the record holds no evidence.
    pub(crate) judge: fn(Evidence<'_>) -> Option<Found>,
}

const fn refuse(id: &'static str, judge: fn(Evidence<'_>) -> Option<Found>) -> Row {
    Row { id, level: CheckLevel::Refuse, judge }
}

const fn flag(id: &'static str, judge: fn(Evidence<'_>) -> Option<Found>) -> Row {
    Row { id, level: CheckLevel::Flag, judge }
}

const fn trap(id: &'static str, title: &'static str, checks: &'static [Row]) -> Trap {
    Trap { id, title, checks }
}

/// All of them.
pub static TRAPS: [Trap; 18] = [
    trap(
        "T01",
        "emulated processor, or KVM without hardware",
        &[refuse("T01-kvm-backend", machine::kvm_backend)],
    ),
    trap("T02", "nested virtualisation", &[flag("T02-nested", machine::nested)]),
    trap("T03", "page caches in different states", &[refuse("T03-page-cache", cache::page_cache)]),
    trap("T04", "different boundaries", &[refuse("T04-boundaries", runs::boundaries)]),
    trap(
        "T05",
        "kernels differ",
        &[flag("T05-kernel", arms::kernel), flag("T05-mitigations", arms::mitigations)],
    ),
    trap("T06", "file systems or media differ", &[flag("T06-medium", arms::medium)]),
    trap(
        "T07",
        "console, keyboard and probing time-outs",
        &[refuse("T07-console", arms::console), flag("T07-fixed-wait", runs::fixed_wait)],
    ),
    trap(
        "T08",
        "limits, process 1 or filter differ",
        &[
            refuse("T08-limits", arms::limits),
            refuse("T08-init", arms::init),
            flag("T08-seccomp", arms::seccomp),
        ],
    ),
    trap("T09", "memory by the wrong counter", &[refuse("T09-counter", runs::counter)]),
    trap(
        "T10",
        "blocked order, too few runs, drift",
        &[
            refuse("T10-order", order::interleaved),
            flag("T10-number-of-pairs", order::enough_pairs),
            flag("T10-drift", noise::drift),
            flag("T10-autocorrelation", order::independent),
            flag("T10-noise-floor", order::noise_floor),
        ],
    ),
    trap("T11", "best of, or means without outliers", &[flag("T11-missing-runs", order::all_runs_are_there)]),
    trap(
        "T12",
        "noisy host",
        &[
            flag("T12-cpu-pressure", noise::pressure),
            flag("T12-steal", noise::steal),
            flag("T12-swap", noise::swap),
            flag("T12-frequency", noise::frequency),
        ],
    ),
    trap("T13", "the harness is inside the number", &[flag("T13-harness", runs::harness)]),
    trap("T14", "sharing counted for one side only", &[flag("T14-sharing", arms::sharing)]),
    trap("T15", "snapshot restore against cold start", &[refuse("T15-start", arms::start)]),
    trap("T16", "clocks mixed", &[refuse("T16-clock", runs::one_clock)]),
    trap(
        "T17",
        "failed runs, or not the same work",
        &[
            refuse("T17-failed-runs", runs::no_failed_runs),
            refuse("same-image", runs::image),
            refuse("same-status", runs::status),
            flag("same-output", runs::output),
        ],
    ),
    trap("T18", "speed beside less isolation", &[flag("T18-isolation", arms::isolation)]),
];

/// Every check, in the order of the traps.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    TRAPS.iter().flat_map(|trap| trap.checks)
}

impl Trap {
    /// Names of its checks.
    pub fn checks(&self) -> impl Iterator<Item = &'static str> {
        self.checks.iter().map(|row| row.id)
    }
}
