//! Limits on the host's own kernel: one that was asked for is enforced, or the run is refused; a default is enforced
//! where this user may.

use isolab_bench::port::{StartError, Unavailable};
use isolab_container::cgroup::Limits;
use isolab_container::check;
use isolab_container::launch::LaunchError;
use rustix::process::geteuid;

use super::explained;
use crate::config::Asked;
use crate::doctor;
use crate::hint::Hint;

/// One of the limits.
struct One {
    option: &'static str,
    controller: &'static str,
    asked: bool,
    /// This limit and no other.
    alone: Limits,
}

impl One {
    fn refused(&self, Hint { reason, remedy }: Hint) -> Hint {
        Hint { reason: format!("{} can't be enforced: {reason}", self.option), remedy }
    }

    /// Why the settings rule this limit out, if they do.
    fn closed(&self) -> Option<Hint> {
        doctor::cgroup_closed(&[self.controller])
    }

    /// Whether it must be left out, found out by trying.
    ///
    /// # Errors
    /// It must, and it was asked for.
    fn fails(&self) -> Result<bool, Hint> {
        match check::limits_enforceable(&self.alone) {
            Ok(()) => Ok(false),
            Err(_) if !self.asked => Ok(true),
            Err(why) => {
                let seen = Hint { reason: why.reason, remedy: why.remedy };
                Err(self.refused(self.closed().unwrap_or(seen)))
            }
        }
    }
}

fn each(limits: Limits, asked: Asked) -> [One; 3] {
    let none = Limits::default();
    [
        One {
            option: "--memory",
            controller: "memory",
            asked: asked.memory,
            alone: Limits { memory_bytes: limits.memory_bytes, ..none },
        },
        One {
            option: "--cpus",
            controller: "cpu",
            asked: asked.cpus,
            alone: Limits { cpus: limits.cpus, ..none },
        },
        One {
            option: "--pids",
            controller: "pids",
            asked: asked.pids,
            alone: Limits { pids: limits.pids, ..none },
        },
    ]
}

/// Refuses limits that were asked for and whose controllers are closed to this user, before anything is made.
///
/// # Errors
/// The first such limit.
pub(super) fn check(asked: Asked) -> Result<(), Unavailable> {
    if geteuid().is_root() {
        return Ok(());
    }
    let wanted = each(Limits::default(), asked).into_iter().filter(|one| one.asked);
    wanted
        .filter_map(|one| one.closed().map(|hint| one.refused(hint)))
        .next()
        .map_or(Ok(()), |hint| Err(hint.into()))
}

/// Starts with all limits, or without the defaults that can't be enforced, whose controllers are named.
///
/// # Errors
/// A limit that was asked for, or the start itself.
pub(super) fn start_with<T>(
    limits: Limits,
    asked: Asked,
    start: impl Fn(Limits) -> Result<T, LaunchError>,
) -> Result<(T, Vec<String>), StartError> {
    let mut lost = Vec::new();
    let mut kept = limits;
    if !geteuid().is_root() {
        // What the settings rule out is not worth a try.
        kept = without(limits, asked, &mut lost, |one| Ok(!one.asked && one.closed().is_some()))?;
    }
    match start(kept) {
        // Nothing is left of it.
        Err(LaunchError::Cgroup(_)) => {}
        other => return Ok((other.map_err(explained)?, lost)),
    }
    kept = without(kept, asked, &mut lost, One::fails)?;
    Ok((start(kept).map_err(explained)?, lost))
}

/// The limits but for those that are to be left out, whose controllers are added to `lost`.
fn without(
    limits: Limits,
    asked: Asked,
    lost: &mut Vec<String>,
    out: impl Fn(&One) -> Result<bool, Hint>,
) -> Result<Limits, Hint> {
    let mut kept = limits;
    for one in each(limits, asked).iter().filter(|one| one.alone != Limits::default()) {
        if out(one)? {
            lost.push(one.controller.to_owned());
            match one.controller {
                "memory" => kept.memory_bytes = None,
                "cpu" => kept.cpus = None,
                _ => kept.pids = None,
            }
        }
    }
    Ok(kept)
}

/// What to tell where defaults were not enforced.
pub(crate) fn without_defaults(level: &str, controllers: &[&str]) -> String {
    let head = format!("{level} runs without its default limits of {}", controllers.join(", "));
    match doctor::cgroup_closed(controllers) {
        Some(Hint { reason, remedy }) => format!("{head}: {reason}; {remedy}"),
        None => format!("{head}: `isolab doctor` says why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Limits = Limits { memory_bytes: Some(1 << 26), cpus: Some(1), pids: Some(9) };

    #[test]
    fn only_what_is_left_out_is_taken_away_and_named() {
        let mut lost = Vec::new();
        let kept = without(ALL, Asked::default(), &mut lost, |one| Ok(one.controller != "cpu"));
        assert_eq!(kept.ok(), Some(Limits { cpus: Some(1), ..Limits::default() }));
        assert_eq!(lost, ["memory", "pids"]);
    }

    #[test]
    fn a_limit_that_is_not_there_is_not_lost() {
        let mut lost = Vec::new();
        let one = Limits { pids: Some(9), ..Limits::default() };
        let kept = without(one, Asked::default(), &mut lost, |_| Ok(true));
        assert_eq!((kept.ok(), lost.as_slice()), (Some(Limits::default()), &["pids".to_owned()][..]));
    }
}
