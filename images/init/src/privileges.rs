//! Giving up privileges, in the order that the kernel's rules ask for.

use isolab_bare::sys::Errno;
use isolab_bare::sys::process::{self, Control};
use isolab_wire::job::{Job, MAX_GROUPS, flag};
use isolab_wire::mark::{Failure, Step};

use crate::At;

/// The one capability that process 1 keeps: ending what runs as another user.
const KILL: u64 = 1 << 5;
/// No capability for user 0 at `execve`, none kept or fixed up over a change of user, none ambient; all locked.
const SECUREBITS: usize = 0b1110_1111;

/// Bounds what this process and its children can ever get. First, because it needs a capability itself.
pub(crate) fn bound(job: &Job<'_>) -> Result<(), Errno> {
    const CLEAR_ALL_AMBIENT: usize = 4;
    if !job.has(flag::CONFINE) {
        return Ok(());
    }
    process::control(Control::Ambient, CLEAR_ALL_AMBIENT, 0)?;
    for capability in 0..64 {
        match process::control(Control::DropBounding, capability, 0) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) if capability > 0 => break,
            Err(e) => return Err(e),
        }
    }
    process::control(Control::SetSecurebits, SECUREBITS, 0)
}

/// Process 1 after the start: it can end processes, and can't be looked into by them.
pub(crate) fn keep_only_kill(job: &Job<'_>) -> Result<(), Errno> {
    if !job.has(flag::CONFINE) {
        return Ok(());
    }
    process::control(Control::SetDumpable, 0, 0)?;
    process::set_capabilities(KILL)?;
    process::control(Control::NoNewPrivs, 1, 0)
}

/// Becomes the job's user, then drops what is left. In the workload's process.
pub(crate) fn become_user(job: &Job<'_>) -> Result<(), Failure> {
    let mut groups = [0; MAX_GROUPS];
    let mut count = 0;
    for (slot, group) in groups.iter_mut().zip(job.groups()) {
        *slot = group;
        count += 1;
    }
    match process::set_groups(groups.get(..count).unwrap_or_default()) {
        // A user namespace made without privilege denies the call for good; there is nothing to set then.
        Err(Errno::PERM) if count == 0 => {}
        other => other.at(Step::User)?,
    }
    process::set_gid(job.header.gid).at(Step::User)?;
    process::set_uid(job.header.uid).at(Step::User)?;
    if job.has(flag::CONFINE) {
        process::set_capabilities(0).at(Step::Privileges)?;
        process::control(Control::NoNewPrivs, 1, 0).at(Step::Privileges)?;
    }
    Ok(())
}
