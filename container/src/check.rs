//! Whether this host can run containers and bare processes, and if not, what to do.

use std::fs;
use std::os::fd::AsFd;

use isolab_wire::trace::Tracer;
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};

use crate::cgroup::{Cgroup, CgroupError, Limits};
use crate::child::{SpawnError, SpawnOptions, namespace, spawn, told};
use crate::instance::mark_pipe;

/// One sentence on why not, and one on the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// What is missing.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

fn unavailable(reason: impl Into<String>, remedy: impl Into<String>) -> Result<(), Unavailable> {
    Err(Unavailable { reason: reason.into(), remedy: remedy.into() })
}

/// Whether containers can run, by reading settings only: cheap enough for every start.
///
/// # Errors
/// The first thing that is missing.
pub fn container() -> Result<(), Unavailable> {
    user_namespaces(rustix::process::geteuid().is_root())?;
    file_systems()
}

/// Whether bare processes can run, by reading settings only.
///
/// # Errors
/// The first thing that is missing.
pub fn process() -> Result<(), Unavailable> {
    let root = rustix::process::geteuid().is_root();
    if !root {
        user_namespaces(root)?;
    }
    file_systems()
}

/// Whether containers can run, by making namespaces and a cgroup with such limits, and removing both.
///
/// # Errors
/// The first thing that fails.
pub fn container_by_trying(limits: &Limits) -> Result<(), Unavailable> {
    container()?;
    limits_enforceable(limits)?;
    match make_namespaces() {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => unavailable(
            "this host forbids us to make a user namespace",
            "run as root, or allow it (sysctl kernel.apparmor_restrict_unprivileged_userns=0; in an outer container, \
             loosen its seccomp profile)",
        ),
        Err(Errno::NOSPC) => unavailable(
            "the number of namespaces is at its limit",
            "raise the settings user.max_*_namespaces (sysctl user)",
        ),
        Err(e) => unavailable(
            format!("namespaces can't be made: {e}"),
            "use a kernel from 5.7 on, with all namespaces built in",
        ),
    }
}

/// Makes all namespaces and gives them up.
fn make_namespaces() -> Result<(), Errno> {
    let (read, write) = mark_pipe().map_err(|_| Errno::MFILE)?;
    let told = || told(&read).map(|failure| Errno::from_raw_os_error(failure.errno.into()));
    let options = SpawnOptions {
        namespaces: namespace::ALL,
        cgroup: None,
        report: Some(write.as_fd()),
        tracer: Tracer::OFF,
    };
    let mut child = match spawn(&options, |_handed| 0).and_then(|held| held.release(None, &[])) {
        Ok(child) => child,
        // It died before: the reason is on the pipe.
        Err(SpawnError::Release(_)) => return Err(told().unwrap_or(Errno::PIPE)),
        Err(SpawnError::Gate(source) | SpawnError::Clone { source, .. }) => return Err(source),
        // No tracer, no fault.
        Err(SpawnError::Stage(_)) => return Err(Errno::IO),
    };
    match child.wait()?.exit_status() {
        Some(0) => Ok(()),
        _ => Err(told().unwrap_or(Errno::IO)),
    }
}

/// Whether such limits can be enforced, by making a cgroup with them.
///
/// # Errors
/// The controller that can't.
pub fn limits_enforceable(limits: &Limits) -> Result<(), Unavailable> {
    match Cgroup::create(limits) {
        Ok(_removed_by_drop) => Ok(()),
        Err(e) => {
            let cause = std::error::Error::source(&e).map(|cause| format!(": {cause}")).unwrap_or_default();
            let remedy = match e {
                CgroupError::Discover { .. } => "mount /proc",
                _ => {
                    "run as root, or in a delegated cgroup (systemd-run --user --scope -p Delegate=yes isolab ...), \
                      or on the lab (--on lab)"
                }
            };
            unavailable(format!("{e}{cause}"), remedy)
        }
    }
}

fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn user_namespaces(root: bool) -> Result<(), Unavailable> {
    if !fs::exists("/proc/self/ns/user").unwrap_or(false) {
        return unavailable("the kernel has no user namespaces", "use a kernel with CONFIG_USER_NS");
    }
    if setting("/proc/sys/user/max_user_namespaces") == Some(0) {
        return unavailable("user namespaces are turned off", "sysctl user.max_user_namespaces=15000");
    }
    if !root && setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return unavailable(
            "only root may make user namespaces here",
            "run as root, or sysctl kernel.unprivileged_userns_clone=1",
        );
    }
    Ok(())
}

/// Root's instances mount the image; others use an unpacked copy.
fn file_systems() -> Result<(), Unavailable> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for name in ["erofs", "overlay"] {
        if known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
            continue;
        }
        // Opening the type has the kernel load its module.
        match fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(_) => {}
            Err(Errno::NODEV) => {
                return unavailable(format!("the kernel has no {name}"), format!("modprobe {name}"));
            }
            Err(Errno::NOSYS) => {
                return unavailable("the kernel has no fsopen", "use a kernel from 5.12 on");
            }
            Err(e) => {
                return unavailable(
                    format!("the file system {name} can't be opened: {e}"),
                    "run with CAP_SYS_ADMIN, or on the lab (--on lab)",
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_beyond_the_kernels_names_the_controller() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let limits = Limits { pids: Some(u32::MAX), ..Limits::default() };
        let why = limits_enforceable(&limits).expect_err("no kernel counts so far");
        assert!(why.reason.contains("pids") && why.remedy.contains("delegated"), "{why:?}");
    }

    #[test]
    fn root_with_every_part_can_run_containers() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        let limits = Limits { memory_bytes: Some(64 << 20), cpus: Some(1), pids: Some(16) };
        assert_eq!(container_by_trying(&limits), Ok(()));
        assert_eq!(process(), Ok(()));
    }
}
