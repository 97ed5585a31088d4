//! A started instance, whatever it is: its process, marks, control channel, cgroup and end.
//!
//! Used for the container, the bare process and the VMM process. The mark pipe is in packet mode: one write is one
//! record, so that no bytes that a workload writes there can shift the records after them.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use isolab_wire::RELEASE;
use isolab_wire::control::Message;
use isolab_wire::fault::StageFailed;
use isolab_wire::mark::{Clock, Code, Exit, Failure, HOLDS, Mark};
use isolab_wire::trace::{Subphase, Tracer};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitIdStatus, kill_process};

use crate::account::Account;
use crate::cgroup::{Cgroup, CgroupError};
use crate::child::Child;
use crate::clock::{ClockPair, now_ns};
use crate::orphans;
use crate::processes::Processes;

/// Marks kept; a workload that floods the pipe does not fill our memory.
const MAX_STAMPS: usize = 256;

/// Where the end of the workload is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitFrom {
    /// By a mark: the child is init or the VMM, not the workload.
    Marks,
    /// By the child's own status: it is the workload.
    Process,
}

/// What an instance is made of.
#[derive(Debug)]
pub struct Parts {
    /// The released child.
    pub child: Child,
    /// Read end of the mark pipe ([`mark_pipe`]).
    pub marks: OwnedFd,
    /// Write end of the control channel; with [`ExitFrom::Process`], of a pipe that only tells that we live.
    pub control: Option<OwnedFd>,
    /// Write end of the pipe on which a VMM waits at [`Code::Ready`]; without one, a workload that waits gets [`RELEASE`].
    pub hold: Option<OwnedFd>,
    /// Its cgroup.
    pub cgroup: Option<Cgroup>,
    /// What keeps its ids from being another's ([`crate::idmap::IdMap::into_block`]).
    pub ids: Option<OwnedFd>,
    /// Both clocks, read before the first mark could be stamped.
    pub start: ClockPair,
    /// `CLOCK_MONOTONIC` ns of [`Code::RunBegin`] when the launcher stamps it (the VMM sends its own).
    pub begin_ns: Option<u64>,
    /// Who tells the end.
    pub exit_from: ExitFrom,
    /// Whether moments and memory are wanted. If not, nobody waits for marks, so that no mark wakes the launcher, and
    /// the charge is not read.
    pub measured: bool,
    /// Where the ends of its subphases are.
    pub tracer: Tracer,
}

/// How an instance ended.
#[derive(Debug)]
pub struct Outcome {
    /// The end.
    pub end: End,
    /// Its moments, in order of arrival.
    pub stamps: Vec<Stamp>,
    /// Its account when it was ready, or else at its end; if that was wanted.
    pub account: Option<Account>,
    /// `CLOCK_MONOTONIC` ns when everything was freed.
    pub clean_ns: u64,
    /// Ends of subphases in nanoseconds of `CLOCK_MONOTONIC`, in no order.
    pub subphases: Vec<(Subphase, u64)>,
    /// What could not be freed.
    pub leftover: Option<CgroupError>,
}

/// The end of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The workload ended by itself or by a signal.
    Workload(Exit),
    /// The kernel killed it for memory.
    OutOfMemory,
    /// A step before the workload failed.
    Failed(Failure),
    /// [`Instance::kill`].
    Killed,
}

/// One moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which.
    pub code: Code,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// The instance broke, not the workload.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The mark pipe.
    #[error("make the mark pipe")]
    MarkPipe(#[source] Errno),
    /// Waiting.
    #[error("wait for the instance")]
    Wait(#[source] Errno),
    /// What was changed to read the account could not be put back.
    #[error("read the account")]
    Account(#[source] CgroupError),
    /// Init or the VMM ended without a word about the workload.
    #[error("the instance ended without telling how the workload did (its own status is {})", .0.status())]
    Vanished(Exit),
    /// The same before the workload's command was executed.
    #[error("the instance ended before it executed the command (its own status is {})", .0.status())]
    Unborn(Exit),
    /// A test's fault.
    #[error(transparent)]
    Stage(#[from] StageFailed),
}

/// A running instance; dropped, it is killed and what it held is freed.
#[derive(Debug)]
pub struct Instance {
    child: Child,
    /// Nothing once the last writer is gone: a hung-up pipe polls readable for ever.
    marks: Option<OwnedFd>,
    control: Option<OwnedFd>,
    hold: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    /// Freed after the processes that have them.
    _ids: Option<OwnedFd>,
    start: ClockPair,
    begin_ns: Option<u64>,
    exit_from: ExitFrom,
    measured: bool,
    tracer: Tracer,
    /// When the ready workload was released.
    released_ns: Option<u64>,
    records: VecDeque<(Mark, u64)>,
    exit: Option<Exit>,
    failure: Option<Failure>,
    account: Option<Account>,
    /// RAM that the kernel inside says there is, and what it says is free, in KiB.
    claims: [Option<u32>; 2],
    /// Reading the account left the instance other than it was.
    spoilt: Option<InstanceError>,
    /// When the child was seen to have ended.
    ended_ns: Option<u64>,
    killed: bool,
}

/// The mark pipe: read end (does not block) and write end, both closed by exec.
///
/// # Errors
/// No descriptors left.
pub fn mark_pipe() -> Result<(OwnedFd, OwnedFd), InstanceError> {
    // DIRECT is packet mode (pipe(2)); both ends share these flags.
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT).map_err(InstanceError::MarkPipe)?;
    nonblocking(&read).map_err(InstanceError::MarkPipe)?;
    Ok((read, write))
}

pub(crate) fn nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)
}

impl Instance {
    /// Takes over a released child.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { child, marks, control, hold, cgroup, ids, start, begin_ns, exit_from, measured, tracer } =
            parts;
        Self {
            child,
            marks: Some(marks),
            control,
            hold,
            cgroup,
            _ids: ids,
            start,
            begin_ns,
            exit_from,
            measured,
            tracer,
            released_ns: None,
            records: VecDeque::new(),
            exit: None,
            failure: None,
            account: None,
            claims: [None; 2],
            spoilt: None,
            ended_ns: None,
            killed: false,
        }
    }

    /// Polls readable when the instance has ended: [`Instance::wait`] does not block for long then.
    #[must_use]
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.child.pidfd()
    }

    /// Polls readable when there are marks: call [`Instance::read_marks`] then. The memory charge is read there, so
    /// a reader that is late reads a later charge. Nothing once no more can come, and where nobody measures (a VMM's are
    /// taken in always: its guest decides how many there are).
    #[must_use]
    pub fn marks(&self) -> Option<BorrowedFd<'_>> {
        self.marks.as_ref().filter(|_| self.measured || self.begin_ns.is_none()).map(AsFd::as_fd)
    }

    /// Number of the child process.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// When a moment came that it has told, in nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn at(&self, code: Code) -> Option<u64> {
        self.stamps().0.into_iter().find(|stamp| stamp.code == code).map(|stamp| stamp.at_ns)
    }

    /// CPU time of its processes so far, in nanoseconds; nothing where one of them did not tell.
    #[must_use]
    pub fn cpu_ns(&self) -> Option<u64> {
        let pids = self.cgroup.as_ref().map(Cgroup::pids).filter(|pids| !pids.is_empty());
        Processes::cpu_ns(&pids.unwrap_or_else(|| vec![self.child.pid()]))
    }

    /// Its cgroup.
    #[must_use]
    pub const fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Takes in the marks that have arrived; gives whether the workload's end is among them. Does not block.
    pub fn read_marks(&mut self) -> bool {
        let mut packet = [0; 4096];
        while let Some(marks) = &self.marks {
            match rustix::io::read(marks, &mut packet) {
                Ok(n) if n > 0 => {
                    // What is not whole records is not ours.
                    let (records, rest) = packet[..n].as_chunks();
                    for mark in records.iter().filter(|_| rest.is_empty()).filter_map(Mark::decode) {
                        self.take(mark, now_ns());
                    }
                }
                Err(Errno::INTR) => {}
                Ok(_) => self.marks = None,
                Err(_) => break,
            }
        }
        self.exit.is_some() || self.failure.is_some()
    }

    /// Whether this moment has come.
    #[must_use]
    pub fn has(&self, code: Code) -> bool {
        self.records.iter().any(|(m, _)| m.code == code) || (code == Code::Exec && self.own_exec().is_some())
    }

    /// [`Code::Exec`] of a child that is the workload itself, which tells it with the ends of its subphases.
    fn own_exec(&self) -> Option<Stamp> {
        let trace = self.tracer.trace().filter(|_| self.exit_from == ExitFrom::Process)?;
        self.child.told_ends().inspect(|ends| trace.add(ends));
        Some(Stamp { code: Code::Exec, at_ns: trace.end_of(Subphase::Privileges)? })
    }

    fn take(&mut self, mark: Mark, arrival_ns: u64) {
        match mark.code {
            Code::Exit => self.exit = Exit::decode(mark.value),
            Code::Failed => self.failure = Failure::decode(mark.value),
            Code::Ram => return self.claims[0] = Some(mark.value),
            Code::FreeRam => return self.claims[1] = Some(mark.value),
            _ => {}
        }
        if matches!(mark.code, Code::Ready | Code::Exit) && self.account.is_none() {
            self.read_account(mark.code == Code::Ready && mark.value == HOLDS);
        }
        if mark.code == Code::Ready && mark.value == HOLDS {
            self.release();
        }
        // The child's own end is seen and not told: such a mark comes from the workload.
        let forged = match mark.code {
            Code::Exit => self.exit_from == ExitFrom::Process,
            Code::RunBegin => self.begin_ns.is_some(),
            Code::Released => true,
            _ => false,
        };
        if !forged && (self.records.len() < MAX_STAMPS || mark.code == Code::Exit) {
            self.records.push_back((mark, arrival_ns));
        }
    }

    /// Lets a workload go on that waits for its account to be read.
    fn release(&mut self) {
        if let Err(failed) = self.tracer.fault(Subphase::Reading) {
            self.spoilt = Some(failed.into());
            return self.child.kill();
        }
        self.released_ns.get_or_insert_with(now_ns);
        match &self.hold {
            // Where nobody reads, nobody waits.
            Some(hold) => drop(retry_on_intr(|| rustix::io::write(hold, &[1]))),
            None => self.release_all(),
        }
    }

    /// The one that waits need not be the first process: a shell may have started it. Nobody else minds [`RELEASE`], the
    /// signal that lets a stopped process go on.
    fn release_all(&self) {
        let pids = self.cgroup.as_ref().map(Cgroup::pids).unwrap_or_default();
        if pids.is_empty() {
            return self.signal(RELEASE);
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            // One that has ended meanwhile waits no more.
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    fn read_account(&mut self, waits: bool) {
        if self.measured {
            let (cgroup, trace) = (self.cgroup.as_ref(), self.tracer.trace());
            match Account::read(cgroup, self.child.pid(), trace, waits) {
                Ok(account) => self.account = Some(account),
                // Only where the workload waits: it goes no further.
                Err(error) => {
                    self.spoilt = Some(InstanceError::Account(error));
                    self.child.kill();
                }
            }
        }
    }

    /// Sends a signal to the workload.
    pub fn signal(&self, signal: u8) {
        match self.exit_from {
            ExitFrom::Marks => self.send(Message::Signal(signal)),
            ExitFrom::Process => {
                if let Some(signal) = Signal::from_named_raw(signal.into()) {
                    self.child.signal(signal);
                }
            }
        }
    }

    /// Tells the workload's terminal its new size.
    pub fn resize(&mut self, rows: u16, cols: u16) {
        self.send(Message::Resize { rows, cols });
    }

    fn send(&self, message: Message) {
        if let (Some(control), ExitFrom::Marks) = (&self.control, self.exit_from) {
            // Neither a full pipe nor one without a reader is worth more than the loss of this message.
            let _ = retry_on_intr(|| rustix::io::write(control, &message.encode()));
        }
    }

    /// Ends everything at once.
    pub fn kill(&mut self) {
        self.killed = true;
        self.child.kill();
    }

    /// Waits for the end, takes in the last marks, frees everything.
    ///
    /// # Errors
    /// The instance broke in a way that is not the workload's.
    pub fn wait(mut self) -> Result<Outcome, InstanceError> {
        loop {
            let mut fds = vec![PollFd::new(&self.child, PollFlags::IN)];
            fds.extend(self.marks().map(|marks| PollFd::from_borrowed_fd(marks, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(InstanceError::Wait(e)),
            }
            let ended = !fds[0].revents().is_empty();
            if ended {
                self.ended_ns = Some(now_ns());
            }
            self.read_marks();
            if ended {
                break;
            }
        }
        let status = self.child.wait().map_err(InstanceError::Wait)?;
        if self.cgroup.is_none() && self.exit_from == ExitFrom::Process {
            orphans::end();
        }
        self.read_marks();
        if self.account.is_none() {
            self.read_account(false);
        }
        if let Some(account) = &mut self.account {
            account.add_end(self.tracer.trace());
            account.add_claims(self.claims);
        }
        let end = match self.spoilt.take() {
            Some(error) => Err(error),
            None => self.end(own_exit(&status)),
        };
        let torn_down = self.tracer.fault(Subphase::Teardown);
        let leftover = self.cgroup.take().and_then(|cgroup| cgroup.remove().err());
        torn_down?;
        let clean_ns = now_ns();
        let (stamps, subphases) = self.stamps();
        Ok(Outcome { end: end?, stamps, account: self.account.take(), clean_ns, subphases, leftover })
    }

    fn end(&self, own: Exit) -> Result<End, InstanceError> {
        const KILL: Exit = Exit::Signal(9);
        let workload = match (self.failure, self.exit, self.exit_from) {
            (Some(failure), _, _) => return Ok(End::Failed(failure)),
            (None, Some(exit), ExitFrom::Marks) => Some(exit),
            // What ends before it executes the command is not the workload.
            (None, _, ExitFrom::Process) => self.has(Code::Exec).then_some(own),
            (None, None, ExitFrom::Marks) => None,
        };
        let oom = || self.cgroup.as_ref().is_some_and(|cgroup| cgroup.oom_killed() > 0);
        match workload {
            // No word of an end, or the end that both the kernel's killer and we bring about.
            None | Some(KILL) if oom() => Ok(End::OutOfMemory),
            None | Some(KILL) if self.killed => Ok(End::Killed),
            Some(exit) => Ok(End::Workload(exit)),
            None if self.has(Code::Exec) => Err(InstanceError::Vanished(own)),
            None => Err(InstanceError::Unborn(own)),
        }
    }

    /// The end of a workload that is the child itself: no init is there to tell it.
    fn own_end(&self) -> Option<Stamp> {
        let told = self.failure.is_none() && self.exit_from == ExitFrom::Process;
        self.ended_ns.filter(|_| told).map(|at_ns| Stamp { code: Code::Exit, at_ns })
    }

    /// The marks on the host's clock, and the subphases.
    fn stamps(&self) -> (Vec<Stamp>, Vec<(Subphase, u64)>) {
        let end = ClockPair::read();
        // Before the ends of subphases are looked at: it takes in the child's.
        let exec = self.own_exec();
        let begin = self.begin_ns.map(|at_ns| Stamp { code: Code::RunBegin, at_ns });
        let released = self.released_ns.map(|at_ns| Stamp { code: Code::Released, at_ns });
        let on_clock = |&(mark, arrival_ns): &(Mark, u64)| {
            let at_ns = match mark.clock {
                Clock::None => arrival_ns,
                Clock::Monotonic => mark.stamp.max(self.start.ns),
                Clock::Tsc => ClockPair::between(self.start, end, mark.stamp),
            };
            (mark, at_ns.min(arrival_ns))
        };
        let (inner, marks): (Vec<_>, Vec<_>) =
            self.records.iter().map(on_clock).partition(|(mark, _)| mark.code == Code::Subphase);
        let marks = marks.into_iter().map(|(mark, at_ns)| Stamp { code: mark.code, at_ns });
        let stamps =
            begin.into_iter().chain(exec).chain(marks).chain(released).chain(self.own_end()).collect();
        let number = |mark: &Mark| u8::try_from(mark.value).ok().and_then(Subphase::from_number);
        let inner = inner.iter().filter_map(|(mark, at_ns)| Some((number(mark)?, *at_ns)));
        let traced = Subphase::ALL.iter().filter_map(|s| Some((*s, self.tracer.trace()?.end_of(*s)?)));
        (stamps, inner.chain(traced).collect())
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd()
    }
}

fn own_exit(status: &WaitIdStatus) -> Exit {
    let byte = |n: i32| u8::try_from(n & 0xff).unwrap_or(0);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(byte(code)),
        (None, signal) => Exit::Signal(byte(signal.unwrap_or(9))),
    }
}
