//! Starting a child process: in namespaces or not, in its cgroup from before its first page.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use isolab_wire::mark::{Clock, Code, Failure, Mark, Step};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

use crate::cgroup::Cgroup;
use crate::sys::{self, Cloned};

/// Status of a child that failed before its entry ran; the reason is on the mark pipe.
pub const PREPARE_STATUS: i32 = 125;
/// Status of a child whose entry panicked.
pub const PANIC_STATUS: i32 = 101;

/// What a child is started with.
#[derive(Debug, Default)]
pub struct SpawnOptions<'a> {
    /// `CLONE_NEW*` bits; 0: none.
    pub namespaces: u64,
    /// Starts in this cgroup.
    pub cgroup: Option<&'a Cgroup>,
    /// Mark pipe on which a failure before the entry is reported.
    pub report: Option<BorrowedFd<'a>>,
}

/// Namespaces of the container, as `CLONE_NEW*` bits.
pub mod namespace {
    /// Mounts.
    pub const MOUNT: u64 = 0x0002_0000;
    /// Cgroups.
    pub const CGROUP: u64 = 0x0200_0000;
    /// Host name.
    pub const UTS: u64 = 0x0400_0000;
    /// System V and POSIX message queues.
    pub const IPC: u64 = 0x0800_0000;
    /// Users and capabilities.
    pub const USER: u64 = 0x1000_0000;
    /// Process numbers.
    pub const PID: u64 = 0x2000_0000;
    /// Network.
    pub const NET: u64 = 0x4000_0000;
    /// All of them.
    pub const ALL: u64 = MOUNT | CGROUP | UTS | IPC | USER | PID | NET;
}

/// A child could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The pipe that holds the child back.
    #[error("make the start pipe")]
    Gate(#[source] Errno),
    /// No process.
    #[error("clone a child with namespaces {namespaces:#x}")]
    Clone {
        /// Namespaces asked for.
        namespaces: u64,
        /// The kernel's reason.
        source: Errno,
    },
    /// The child did not wait to be released.
    #[error("release the child")]
    Release(#[source] Errno),
}

/// A child that waits for [`Held::release`]; dropped unreleased, it ends without having run.
#[derive(Debug)]
pub struct Held {
    child: Child,
    gate: OwnedFd,
}

impl Held {
    /// The process.
    #[must_use]
    pub const fn child(&self) -> &Child {
        &self.child
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is dead already.
    pub fn release(self) -> Result<Child, SpawnError> {
        rustix::io::write(&self.gate, &[1]).map_err(SpawnError::Release)?;
        Ok(self.child)
    }
}

/// A child process; dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Child {
    pidfd: OwnedFd,
    pid: i32,
    reaped: bool,
}

impl Child {
    /// Its number in our pid namespace.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Polls readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Kills it; nothing happens when it has ended.
    pub fn kill(&self) {
        if !self.reaped {
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        if !self.reaped {
            let _ = pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// It was reaped before.
    pub fn wait(&mut self) -> Result<WaitIdStatus, Errno> {
        loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    self.reaped = true;
                    return Ok(status);
                }
                Ok(None) => return Err(Errno::CHILD),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.wait();
        }
    }
}

/// Starts a child that waits in [`Held`], in its cgroup and namespaces, then runs `entry` and exits with its value.
///
/// The calling process must have one thread: the child is a copy of it. The child is killed when the calling thread
/// ends, however it ends. `entry` must not allocate if it executes another program afterwards and the parent could
/// ever have threads; it never returns to the caller's stack.
///
/// # Errors
/// No process was started.
pub fn spawn(options: &SpawnOptions<'_>, entry: impl FnOnce() -> i32) -> Result<Held, SpawnError> {
    let (gate_read, gate) = pipe_with(PipeFlags::CLOEXEC).map_err(SpawnError::Gate)?;
    let v1 = options.cgroup.is_some_and(Cgroup::joins_from_inside);
    // A cgroup namespace is rooted where its first process is: with v1 the child gets there by itself first.
    let late = if v1 { options.namespaces & namespace::CGROUP } else { 0 };
    let flags = options.namespaces & !late;
    let into = options.cgroup.and_then(Cgroup::clone_into);
    match sys::clone3(flags, into) {
        Err(source) => Err(SpawnError::Clone { namespaces: options.namespaces, source }),
        Ok(Cloned::Parent { pid, pidfd }) => Ok(Held { child: Child { pidfd, pid, reaped: false }, gate }),
        Ok(Cloned::Child) => {
            drop(gate);
            if let Err(errno) = prepare(options, &gate_read, late != 0) {
                report(options.report, Step::Prepare, errno);
                sys::exit_now(PREPARE_STATUS);
            }
            // A panic must not unwind into the copy of the launcher's stack.
            sys::exit_now(catch_unwind(AssertUnwindSafe(entry)).unwrap_or(PANIC_STATUS))
        }
    }
}

/// In the child: die with the parent, join the cgroup, wait for the release.
fn prepare(options: &SpawnOptions<'_>, gate: &OwnedFd, late_cgroup: bool) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if let Some(cgroup) = options.cgroup {
        cgroup.join_from_inside()?;
    }
    if late_cgroup {
        sys::unshare_cgroup()?;
    }
    let mut byte = [0];
    loop {
        match rustix::io::read(gate, &mut byte) {
            Ok(1) => return Ok(()),
            // The parent has died or given up (its death may have come before the signal was set).
            Ok(_) => sys::exit_now(PREPARE_STATUS),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether this process was told by its parent to ignore a signal, as `nohup` does.
#[must_use]
pub fn ignores(signal: i32) -> bool {
    sys::ignores(signal)
}

/// Makes ended children wait to be waited for, where our parent had us ignore `SIGCHLD`: else the kernel reaps them
/// itself and their status is lost.
pub fn keep_children() {
    let child = Signal::CHILD.as_raw();
    if sys::ignores(child) {
        sys::default_signal(child);
    }
}

/// In a child: says on the mark pipe which step failed.
pub(crate) fn report(pipe: Option<BorrowedFd<'_>>, step: Step, errno: Errno) {
    let failure = Failure { step, errno: u16::try_from(errno.raw_os_error()).unwrap_or(0) };
    mark(pipe, Code::Failed, failure.encode());
}

/// In a child: writes one mark, stamped now.
pub(crate) fn mark(pipe: Option<BorrowedFd<'_>>, code: Code, value: u32) {
    let mark = Mark { code, clock: Clock::Tsc, value, stamp: sys::tsc() };
    if let Some(pipe) = pipe {
        let _ = rustix::io::write(pipe, &mark.encode());
    }
}
