//! What a bare process leaves running, where no cgroup of its own can end it (rootless without delegation).
//!
//! The launcher becomes the one that orphans fall to (`PR_SET_CHILD_SUBREAPER`), and at the end kills and reaps every
//! child that it has, until there is none. A launcher that is killed itself can't: then only the workload's first
//! process ends with it.

use std::fs;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, set_child_subreaper, waitid,
};

/// How long the end may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// From now on the orphans among our descendants become our children.
pub(crate) fn adopt() -> Result<(), Errno> {
    set_child_subreaper(Some(getpid()))
}

/// Kills and reaps all children. Whoever calls this has no child left that it wants to keep.
pub(crate) fn end() {
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        for child in children() {
            // The number stays the child's own until it is reaped, and only we do that.
            let _ = kill_process(child, Signal::KILL);
        }
        // One at a time: its own children have fallen to us by then.
        match waitid(WaitId::All, WaitIdOptions::EXITED) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_none_left) => return,
        }
    }
}

/// Every process whose parent we are.
fn children() -> Vec<Pid> {
    let us = getpid().as_raw_nonzero().get();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|pid| parent(*pid) == Some(us)).filter_map(Pid::from_raw).collect()
}

fn parent(pid: i32) -> Option<i32> {
    parent_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second number after the name, which stands in brackets and may hold anything.
pub(crate) fn parent_in(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_parent_behind_any_name() {
        assert_eq!(parent_in("12 (a) R 1) (b) S 34 12 12 0 -1"), Some(34));
        assert_eq!(parent_in("12 (a"), None);
    }
}
