//! The descriptor on which `isolab run` reports to `isolab compare`.

use std::fs::File;

use anyhow::{Context, bail};
use isolab_container::copy_of_inherited;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::process::{Signal, set_parent_process_death_signal};

/// A copy of the inherited descriptor: a pipe's write end.
///
/// # Errors
/// It is not open, or not for writing.
pub(crate) fn take(number: i32) -> anyhow::Result<File> {
    let report = copy_of_inherited(number).with_context(|| format!("open report descriptor {number}"))?;
    let access = fcntl_getfl(&report).context("look at the report descriptor")? & OFlags::RWMODE;
    if access == OFlags::RDONLY {
        bail!("report descriptor {number} is not open for writing");
    }
    Ok(report.into())
}

/// Ends this run when the comparison that waits for its report ends, however it does.
///
/// # Errors
/// It has ended already.
pub(crate) fn tie(report: &File) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("tie the run to its comparison")?;
    let mut fds = [PollFd::new(report, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).context("look for the comparison")?;
    if fds[0].revents().contains(PollFlags::ERR) {
        bail!("the comparison that started this run has ended");
    }
    Ok(())
}
