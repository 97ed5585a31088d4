//! The loop around one running instance: its marks, our signals, the deadline.

use std::time::{Duration, Instant};

use anyhow::Context;
use isolab_bench::port::{End, Outcome, Running};
use isolab_wire::mark::Step;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::signals::{ENDING, Signals, WINCH};
use crate::stdio::Budget;
use crate::terminal;

/// How long an instance may take until its command runs, where nobody asked for another time.
pub(crate) const START: Duration = Duration::from_secs(120);
/// How long a workload may take to answer a signal before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Why the instance ended, where it was not by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// By itself.
    Itself,
    /// Its time was up.
    Deadline,
    /// Its command did not run in time.
    Start,
    /// It wrote more than it may.
    Output,
    /// Somebody signalled us.
    Signal(u8),
}

/// How long an instance may take. They are kept from outside: a guest that hangs, or lies, can't move them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// Until its command runs.
    pub(crate) start: Duration,
    /// Altogether.
    pub(crate) whole: Option<Duration>,
}

/// Watches the instance until it has ended and everything is freed; one that has used its budget up is ended.
///
/// # Errors
/// The instance broke, or polling failed.
pub(crate) fn supervise(
    mut running: Box<dyn Running>,
    signals: &mut Signals,
    deadlines: Deadlines,
    budget: Option<&Budget>,
) -> anyhow::Result<(Outcome, Cause)> {
    let mut cause = Cause::Itself;
    let after = |time| Instant::now().checked_add(time);
    let mut deadline = deadlines.whole.and_then(after);
    let mut start = after(deadlines.start);
    let mut killed = false;
    loop {
        let budget = budget.filter(|_| !killed);
        wait_for_event(running.as_ref(), signals, deadline.into_iter().chain(start).min(), budget)?;
        if running.advance().map_err(anyhow::Error::from_boxed)? {
            break;
        }
        for signal in signals.pending() {
            if signal == WINCH {
                if let Some((rows, cols)) = terminal::window() {
                    running.resize(rows, cols);
                }
            } else if !ENDING.contains(&signal) {
                running.signal(signal);
            } else if cause == Cause::Itself && running.executing() {
                running.signal(signal);
                cause = Cause::Signal(signal);
                let grace = Instant::now() + GRACE;
                deadline = Some(deadline.map_or(grace, |d| d.min(grace)));
            } else {
                cause = Cause::Signal(signal);
                running.kill();
                killed = true;
            }
        }
        if start.is_some_and(|d| Instant::now() >= d) {
            start = None;
            if !killed && !running.executing() {
                cause = Cause::Start;
                running.kill();
                killed = true;
                deadline = None;
            }
        }
        if !killed && budget.is_some_and(Budget::is_used_up) {
            if cause == Cause::Itself {
                cause = Cause::Output;
            }
            running.kill();
            killed = true;
        }
        if !killed && deadline.is_some_and(|d| Instant::now() >= d) {
            if cause == Cause::Itself {
                cause = Cause::Deadline;
            }
            running.kill();
            killed = true;
            deadline = None;
        }
    }
    let outcome = running.wait().map_err(anyhow::Error::from_boxed)?;
    Ok((outcome, cause))
}

fn wait_for_event(
    running: &dyn Running,
    signals: &Signals,
    deadline: Option<Instant>,
    budget: Option<&Budget>,
) -> anyhow::Result<()> {
    let mut events = running.events();
    events.push(signals.event());
    events.extend(budget.map(Budget::event));
    let mut fds: Vec<_> = events.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = deadline
        .map(|d| Timespec::try_from(d.saturating_duration_since(Instant::now())))
        .transpose()
        .context("convert the deadline")?;
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e).context("wait for the instance"),
    }
}

/// The exit status of an end (the table of README.md).
#[must_use]
pub(crate) fn status(outcome: &Outcome, cause: Cause) -> u8 {
    match (cause, outcome.end) {
        (Cause::Deadline, _) => 124,
        (Cause::Start, _) => 125,
        // As of a program that writes more to a file than it may: the signal XFSZ.
        (Cause::Output, _) => 128 + 25,
        (Cause::Signal(signal), End::Killed) => 128_u8.saturating_add(signal),
        (_, End::Workload(exit)) => exit.status(),
        (_, End::OutOfMemory | End::Killed) => 137,
        (_, End::Failed(failure)) => match failure.step {
            Step::Exec if failure.errno == 2 => 127,
            Step::Exec => 126,
            _ => 125,
        },
    }
}
