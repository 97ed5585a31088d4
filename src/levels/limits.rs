//! Limits on the host's own kernel: one that was asked for is enforced, or the run is refused; a default is enforced
//! where this user may.

use isolab_bench::port::{StartError, Unavailable};
use isolab_container::cgroup::Limits;
use isolab_container::check;
use isolab_container::launch::LaunchError;

use super::explained;
use crate::config::Asked;
use crate::doctor;
use crate::hint::Hint;

/// Refuses limits that were asked for and whose controllers are closed to this user, before anything is made.
///
/// # Errors
/// The first such limit.
pub(super) fn check(asked: Asked) -> Result<(), Unavailable> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    for (asked, option, controller) in
        [(asked.memory, "--memory", "memory"), (asked.cpus, "--cpus", "cpu"), (asked.pids, "--pids", "pids")]
    {
        if asked && let Some(hint) = doctor::cgroup_closed(&[controller]) {
            return Err(refused(option, hint).into());
        }
    }
    Ok(())
}

fn refused(option: &str, Hint { reason, remedy }: Hint) -> Hint {
    Hint { reason: format!("{option} can't be enforced: {reason}"), remedy }
}

/// Starts with all limits, or without the defaults that can't be enforced, which are named.
///
/// # Errors
/// A limit that was asked for, or the start itself.
pub(super) fn start_with<T>(
    limits: Limits,
    asked: Asked,
    start: impl Fn(Limits) -> Result<T, LaunchError>,
) -> Result<(T, Vec<String>), StartError> {
    match start(limits) {
        // Nothing was started, and nothing is left.
        Err(LaunchError::Cgroup(_)) => {}
        other => return Ok((other.map_err(explained)?, vec![])),
    }
    let (kept, dropped) = enforceable(limits, asked)?;
    Ok((start(kept).map_err(explained)?, dropped))
}

/// The limits without the defaults that can't be enforced, and the controllers of those.
fn enforceable(limits: Limits, asked: Asked) -> Result<(Limits, Vec<String>), Hint> {
    let (mut kept, mut dropped) = (limits, vec![]);
    let none = Limits::default;
    let memory = Limits { memory_bytes: limits.memory_bytes, ..none() };
    if !possible("--memory", "memory", &memory, asked.memory)? {
        kept.memory_bytes = None;
        dropped.push("memory".to_owned());
    }
    if !possible("--cpus", "cpu", &Limits { cpus: limits.cpus, ..none() }, asked.cpus)? {
        kept.cpus = None;
        dropped.push("cpu".to_owned());
    }
    if !possible("--pids", "pids", &Limits { pids: limits.pids, ..none() }, asked.pids)? {
        kept.pids = None;
        dropped.push("pids".to_owned());
    }
    Ok((kept, dropped))
}

fn possible(option: &str, controller: &str, limit: &Limits, asked: bool) -> Result<bool, Hint> {
    match check::limits_enforceable(limit) {
        Ok(()) => Ok(true),
        Err(_) if !asked => Ok(false),
        Err(why) => {
            let seen = Hint { reason: why.reason, remedy: why.remedy };
            Err(refused(option, doctor::cgroup_closed(&[controller]).unwrap_or(seen)))
        }
    }
}

/// What to tell where defaults were not enforced.
pub(crate) fn without_defaults(level: &str, controllers: &[&str]) -> String {
    let names = controllers.join(", ");
    let head = format!("{level} runs without its default limits of {names}");
    match doctor::cgroup_closed(controllers) {
        Some(Hint { reason, remedy }) => format!("{head}: {reason}; {remedy}"),
        None => format!("{head}: `isolab doctor` says why"),
    }
}
