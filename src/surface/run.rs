//! One run while it is traced.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::cli::SurfaceArgs;
use crate::compare::executor::complaint;
use crate::config::JobConfig;
use crate::resolve::Resolved;
use crate::signals::{ENDING, Signals};
use crate::{arguments, escaped, probe};

/// Most bytes of a run's standard error that are kept.
const MOST_COMPLAINTS: u64 = 64 << 10;

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its status; nothing where a signal ended isolab itself.
    pub(super) status: Option<u8>,
    /// The last line of its standard error, where it is isolab's own.
    pub(super) complaint: Option<String>,
}

/// How it ended, or the signal that asked for the end.
type Ran = anyhow::Result<Result<Ended, u8>>;

/// Each system call in turn, started from here: `isolab run` starts no program but the image's.
pub(super) fn sweep(level: &str, config: &JobConfig, image: &Resolved, signals: &mut Signals) -> Ran {
    let ran = probe::sweep(level, config, image, signals)?;
    Ok(ran.interrupted.map_or(Ok(Ended { status: Some(ran.status), complaint: None }), Err))
}

/// The command, by an isolab of its own; a signal that asks for the end is passed on to it.
pub(super) fn run(args: &SurfaceArgs, level: &str, image: &Resolved, signals: &mut Signals) -> Ran {
    let mut command = Command::new("/proc/self/exe");
    command.args(["run", "--on", "host", "--level", level]);
    command.args(arguments::of_job(&args.job, image.entry.reference()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start isolab for a traced run")?;
    let stderr = child.stderr.take().context("a pipe for complaints")?;
    let complaints = probe::run::reader(stderr, MOST_COMPLAINTS);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the run's number")?;
    let ended = pidfd_open(pid, PidfdFlags::empty()).context("watch the run")?;
    let mut interrupted = None;
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.event(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for the run"),
        }
        let over = !fds[0].revents().is_empty();
        for number in signals.pending().into_iter().filter(|number| ENDING.contains(number)) {
            interrupted = Some(number);
            if let Some(signal) = Signal::from_named_raw(number.into()) {
                // Not waited for yet, so the number is still its own.
                let _ = kill_process(pid, signal);
            }
        }
        if over {
            break;
        }
    }
    let status = child.wait().context("wait for the run")?;
    let said = complaints.join().map_err(|_| anyhow::anyhow!("the reader of complaints panicked"))??;
    let status = status.code().and_then(|code| u8::try_from(code).ok());
    let complaint = complaint(&said.bytes).map(|line| escaped(&line));
    Ok(interrupted.map_or(Ok(Ended { status, complaint }), Err))
}
