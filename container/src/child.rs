//! Starting a child process, in two halves: it makes its namespaces while the launcher, on another CPU, prepares what it
//! is going to need; then the launcher hands that over and lets it go on.
//!
//! A network namespace alone takes longer to make than everything else that a start needs, which is why the child does
//! not get it from `clone3`, with the launcher waiting.
//!
//! A child that executes another program at once shares our memory until then (`spawn_program`); one that goes on in this
//! program, or mounts the image first, has a copy ([`spawn`]).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use isolab_wire::fault::{ERRNO, StageFailed};
use isolab_wire::mark::{Clock, Code, Failure, Mark, RECORD_LEN, Step};
use isolab_wire::trace::{Ends, Subphase, Trace, Tracer};
use rustix::io::{Errno, IoSlice, IoSliceMut, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

use crate::cgroup::Cgroup;
use crate::sharing::{self, Lent};
use crate::sys::{self, Cloned, Inherited};

/// Status of a child that failed before its entry ran; the reason is on the mark pipe.
pub const PREPARE_STATUS: i32 = 125;
/// Status of a child whose entry panicked.
pub const PANIC_STATUS: i32 = 101;
/// Most descriptors that can be handed to a child.
const MAX_HANDED: usize = 8;
/// Bytes of the control message that carries them.
const HANDED_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_HANDED));

/// What a child is started with.
#[derive(Debug, Default)]
pub struct SpawnOptions<'a> {
    /// `CLONE_NEW*` bits; 0: none.
    pub namespaces: u64,
    /// Starts in its v2 part; v1 parts are joined at the release.
    pub cgroup: Option<&'a Cgroup>,
    /// Mark pipe on which a failure before the entry is reported.
    pub report: Option<BorrowedFd<'a>>,
    /// Where the ends of its subphases go.
    pub tracer: Tracer,
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
    /// The socket on which the child waits.
    #[error("make the start socket")]
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
    /// A test's fault.
    #[error(transparent)]
    Stage(#[from] StageFailed),
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

    /// Lets it go on: into the v1 parts of a cgroup, then with these descriptors (few: [`Handed`]).
    ///
    /// # Errors
    /// It is dead already.
    pub fn release(self, cgroup: Option<&Cgroup>, handed: &[BorrowedFd<'_>]) -> Result<Child, SpawnError> {
        let mut fds: Vec<BorrowedFd<'_>> = cgroup.into_iter().flat_map(Cgroup::entrances).collect();
        let joins = u8::try_from(fds.len()).map_err(|_| SpawnError::Release(Errno::TOOBIG))?;
        fds.extend_from_slice(handed);
        let mut space = [MaybeUninit::uninit(); HANDED_SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(SpawnError::Release(Errno::TOOBIG));
        }
        let byte = [joins];
        retry_on_intr(|| sendmsg(&self.gate, &[IoSlice::new(&byte)], &mut control, SendFlags::NOSIGNAL))
            .map_err(SpawnError::Release)?;
        let Self { mut child, gate } = self;
        child.gate = Some(gate).filter(|_| child.lent.is_none());
        Ok(child)
    }
}

/// *Child*: the descriptors that came with the release, in their order, then nothing.
#[derive(Debug, Default)]
pub struct Handed {
    descriptors: [Option<OwnedFd>; MAX_HANDED],
    /// The socket that they came by, where it is still open.
    gate: Option<Inherited>,
}

impl Handed {
    /// The next one.
    ///
    /// # Errors
    /// There are no more.
    pub(crate) fn next(&mut self) -> Result<OwnedFd, Errno> {
        self.descriptors.iter_mut().find_map(Option::take).ok_or(Errno::BADF)
    }

    /// The socket to the launcher, by a number that placing does not overwrite.
    pub(crate) fn high_gate(&self) -> Result<OwnedFd, Errno> {
        fcntl_dupfd_cloexec(self.gate.as_ref().ok_or(Errno::BADF)?, sys::FIRST_HIGH)
    }
}

/// A child process; dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Child {
    pidfd: OwnedFd,
    pid: i32,
    reaped: bool,
    /// What it uses of our memory until it executes another program; freed with its end.
    lent: Option<Lent>,
    /// The socket by which it was released, where it has a copy of our memory: what it stamps there, it tells here.
    gate: Option<OwnedFd>,
}

impl Child {
    /// What it has told of its subphases before it executed another program.
    pub(crate) fn told_ends(&self) -> Option<Ends> {
        let mut bytes = [0; size_of::<Ends>()];
        let (told, _) = recv(self.gate.as_ref()?, &mut bytes, RecvFlags::DONTWAIT).ok()?;
        let mut ends = [0; size_of::<Ends>() / 8];
        for (end, word) in ends.iter_mut().zip(bytes.as_chunks().0) {
            *end = u64::from_le_bytes(*word);
        }
        (told == bytes.len()).then_some(ends)
    }

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
                    if let Some(lent) = self.lent.take() {
                        lent.free();
                    }
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

/// The socket on which a child waits for its release: our end, the child's.
fn gate() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(SpawnError::Gate)
}

/// Namespaces that `clone3` makes, and those that the child makes: the launcher needs the first to map ids, and only
/// `clone3` can give the second to the child itself.
const fn in_two(namespaces: u64) -> (u64, u64) {
    const AT_CLONE: u64 = namespace::USER | namespace::PID;
    (namespaces & AT_CLONE, namespaces & !AT_CLONE)
}

/// Starts a child that makes its namespaces, waits in [`Held`], then runs `entry` in a copy of our memory and exits with
/// its value.
///
/// The calling process must have one thread: the child is a copy of it. The child is killed when the calling thread
/// ends, however it ends. It never returns to the caller's stack.
///
/// # Errors
/// No process was started. What fails in the child is told on the mark pipe.
pub fn spawn(options: &SpawnOptions<'_>, entry: impl FnOnce(Handed) -> i32) -> Result<Held, SpawnError> {
    let (ours, gate) = gate()?;
    let (at_clone, later) = in_two(options.namespaces);
    match sys::clone3(at_clone, options.cgroup.and_then(Cgroup::clone_into)) {
        Err(source) => Err(SpawnError::Clone { namespaces: at_clone, source }),
        Ok(Cloned::Parent { pid, pidfd }) => {
            let child = Child { pidfd, pid, reaped: false, lent: None, gate: None };
            options.tracer.end(Subphase::Clone)?;
            Ok(Held { child, gate: ours })
        }
        Ok(Cloned::Child) => {
            drop(ours);
            match prepare(later, gate.as_fd(), &options.tracer) {
                // A panic must not unwind into the copy of the launcher's stack.
                Ok(mut handed) => {
                    handed.gate = Some(Inherited::of(&gate));
                    sys::exit_now(catch_unwind(AssertUnwindSafe(|| entry(handed))).unwrap_or(PANIC_STATUS))
                }
                Err((step, errno)) => {
                    report(options.report, step, errno);
                    sys::exit_now(PREPARE_STATUS)
                }
            }
        }
    }
}

/// Starts a child that makes its namespaces, waits in [`Held`], then runs `entry` in our memory, while we go on; `entry`
/// executes another program or gives the status to exit with.
///
/// `entry` makes system calls only, none through libc; descriptors of ours it knows by number ([`Inherited`]). The child is
/// killed when the calling thread ends, however it ends.
///
/// # Errors
/// No process was started. What fails in the child is told on the mark pipe.
pub(crate) fn spawn_program(
    options: &SpawnOptions<'_>,
    entry: impl Fn(Handed) -> i32 + Send + Sync + 'static,
) -> Result<Held, SpawnError> {
    let (ours, gate) = gate()?;
    let (at_clone, later) = in_two(options.namespaces);
    let (launchers, own) = (Inherited::of(&ours), Inherited::of(&gate));
    let (pipe, tracer) = (options.report.as_ref().map(Inherited::of), options.tracer);
    let body = move || {
        sys::close_copy(launchers.as_fd());
        match prepare(later, own.as_fd(), &tracer) {
            Ok(handed) => {
                sys::close_copy(own.as_fd());
                entry(handed)
            }
            Err((step, errno)) => {
                report(pipe.as_ref().map(AsFd::as_fd), step, errno);
                PREPARE_STATUS
            }
        }
    };
    let failed = |source| SpawnError::Clone { namespaces: at_clone, source };
    let lent = Lent::new(Box::new(body)).map_err(failed)?;
    match sharing::clone3(at_clone, options.cgroup.and_then(Cgroup::clone_into), &lent) {
        Err(source) => {
            lent.free();
            Err(failed(source))
        }
        Ok((pid, pidfd)) => {
            let child = Child { pidfd, pid, reaped: false, lent: Some(lent), gate: None };
            options.tracer.end(Subphase::Clone)?;
            Ok(Held { child, gate: ours })
        }
    }
}

/// *Child*: dies with the parent, makes the namespaces, waits for the release, joins the cgroup.
fn prepare(namespaces: u64, gate: BorrowedFd<'_>, tracer: &Tracer) -> Result<Handed, (Step, Errno)> {
    let at = |step| move |errno| (step, errno);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Step::Prepare))?;
    // A cgroup namespace is rooted where its first process is, so it comes last.
    let early = namespaces & !namespace::CGROUP;
    if early != 0 {
        sys::unshare(early).map_err(at(Step::Namespaces))?;
    }
    if namespaces & namespace::NET != 0 {
        // A kernel without network has no loopback, and nobody misses it there.
        let _ = sys::loopback_up();
    }
    let handed = await_release(gate, tracer).map_err(at(Step::Prepare))?;
    if namespaces & namespace::CGROUP != 0 {
        sys::unshare(namespace::CGROUP).map_err(at(Step::Namespaces))?;
    }
    tracer.end(Subphase::CgroupJoin).map_err(|_| (Step::Prepare, stage_errno()))?;
    Ok(handed)
}

/// *Child*: what a stage failed with that a test made fail.
pub(crate) const fn stage_errno() -> Errno {
    Errno::from_raw_os_error(ERRNO as i32)
}

/// *Child*: waits for [`Held::release`] and does what it says.
fn await_release(gate: BorrowedFd<'_>, tracer: &Tracer) -> Result<Handed, Errno> {
    let mut joins = [0];
    let mut space = [MaybeUninit::uninit(); HANDED_SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    tracer.fault(Subphase::Namespaces).map_err(|_| stage_errno())?;
    let received = loop {
        match recvmsg(gate, &mut [IoSliceMut::new(&mut joins)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    // From here on the child alone goes on: until here the launcher's work counted, and this is what came on top.
    tracer.stamp(Subphase::Namespaces);
    if received.bytes == 0 {
        // The parent has died or given up (its death may have come before the signal was set).
        sys::exit_now(PREPARE_STATUS);
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE);
    }
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let mut handed = Handed::default();
    for (slot, fd) in handed.descriptors.iter_mut().zip(fds.flatten()) {
        *slot = Some(fd);
    }
    for _ in 0..joins[0] {
        crate::cgroup::join(&handed.next()?)?;
    }
    Ok(handed)
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

/// In a child that executes no other program: closes every descriptor but the first three and these. What the launcher holds
/// besides (other instances' channels, its own ends of this one's) is nothing that the child may keep open or use.
///
/// # Errors
/// The kernel has no `close_range` (Linux 5.9).
pub fn keep_only(keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut numbers: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers {
        if number > first {
            sys::close(first, number - 1)?;
        }
        first = first.max(number.saturating_add(1));
    }
    sys::close(first, u32::MAX)
}

/// In a child: says on the mark pipe which step failed.
pub(crate) fn report(pipe: Option<BorrowedFd<'_>>, step: Step, errno: Errno) {
    let failure = Failure { step, errno: u16::try_from(errno.raw_os_error()).unwrap_or(0) };
    mark(pipe, Code::Failed, failure.encode());
}

/// What a child that has ended reported on the mark pipe.
#[must_use]
pub fn told(pipe: &OwnedFd) -> Option<Failure> {
    let mut record = [0; RECORD_LEN];
    let n = rustix::io::read(pipe, &mut record).ok()?;
    Mark::decode(&record)
        .filter(|mark| n == RECORD_LEN && mark.code == Code::Failed)
        .and_then(|mark| Failure::decode(mark.value))
}

/// In a child with a copy of the launcher's memory: tells the launcher what it has stamped. Nobody waits for it, so that nobody is
/// woken.
pub(crate) fn tell_ends(gate: BorrowedFd<'_>, trace: &Trace) {
    let mut bytes = [0; size_of::<Ends>()];
    for (word, end) in bytes.as_chunks_mut().0.iter_mut().zip(trace.ends()) {
        *word = end.to_le_bytes();
    }
    // Without, the run has fewer subphases.
    let _ = send(gate, &bytes, SendFlags::NOSIGNAL);
}

/// In a child: writes one mark, stamped now.
pub(crate) fn mark(pipe: Option<BorrowedFd<'_>>, code: Code, value: u32) {
    let mark = Mark { code, clock: Clock::Tsc, value, stamp: sys::tsc() };
    if let Some(pipe) = pipe {
        let _ = retry_on_intr(|| rustix::io::write(pipe, &mark.encode()));
    }
}
