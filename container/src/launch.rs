//! Starting a container: everything that happens before `isolab-init` runs its first instruction.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use isolab_images::job::{BlockOptions, Job, JobEncodeError, User};
use isolab_wire::fd;
use isolab_wire::mark::Step;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Resource, Signal, getrlimit, setsid, umask};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::cgroup::{Cgroup, CgroupError, Limits};
use crate::child::{SpawnError, SpawnOptions, namespace, report, spawn};
use crate::clock::ClockPair;
use crate::idmap::{IdMap, IdMapError};
use crate::instance::{ExitFrom, Instance, InstanceError, Parts, mark_pipe, nonblocking};
use crate::root::{Prepared, RootError, RootSource, map_ids};
use crate::{seccomp, sys};

/// First number that is closed when init starts.
const FIRST_CLOSED: u32 = 6;
/// A pipe holds this much without being asked.
const PIPE_DEFAULT: usize = 65_536;

/// A container to start.
#[derive(Debug)]
pub struct ContainerConfig<'a> {
    /// What to run.
    pub job: &'a Job,
    /// In which image.
    pub root: &'a RootSource,
    /// Standard input, output and error: pipes or `/dev/null`, so that nothing of the host is reachable through them.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The program that becomes process 1.
    pub init: &'a InitImage,
    /// Limits to enforce, from [`job_limits`] as a rule.
    pub limits: Limits,
}

/// The limits that a job asks for.
#[must_use]
pub const fn job_limits(job: &Job) -> Limits {
    Limits { memory_bytes: Some(job.memory_bytes), cpus: Some(job.cpus), pids: Some(job.pids) }
}

/// A container could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program for process 1.
    #[error("put init into a sealed memory file ({step})")]
    Init {
        /// Which step.
        step: &'static str,
        /// Why not.
        source: Errno,
    },
    /// The job.
    #[error("encode the job")]
    Job(#[from] JobEncodeError),
    /// A user of the image that has no number outside.
    #[error("user {uid} or group {gid} does not exist inside, where the last id is {last}")]
    UserNotMapped {
        /// User of the job.
        uid: u32,
        /// Group of the job.
        gid: u32,
        /// The highest there is.
        last: u32,
    },
    /// The cgroup.
    #[error("prepare the cgroup")]
    Cgroup(#[from] CgroupError),
    /// The image.
    #[error("prepare the root")]
    Root(#[from] RootError),
    /// Descriptors for the child.
    #[error("prepare descriptors")]
    Descriptors(#[source] Errno),
    /// The mark pipe.
    #[error("prepare marks")]
    Marks(#[from] InstanceError),
    /// The process.
    #[error("start the process")]
    Spawn(#[from] SpawnError),
    /// Ids.
    #[error("map ids")]
    IdMap(#[from] IdMapError),
    /// The job block.
    #[error("send the job block of {len} bytes")]
    Send {
        /// Its length.
        len: usize,
        /// Why not.
        source: Errno,
    },
    /// The working directory, the command or its environment hold NUL.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
}

/// `isolab-init` in a sealed memory file: nothing of the host can be reached or changed through process 1's
/// `/proc/PID/exe`.
#[derive(Debug)]
pub struct InitImage(OwnedFd);

impl InitImage {
    /// Copies the program into a memory file and seals it.
    ///
    /// # Errors
    /// No memory, or a kernel that forbids executable memory files.
    pub fn create(program: &[u8]) -> Result<Self, LaunchError> {
        let fail = |step| move |source| LaunchError::Init { step, source };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 know no MFD_EXEC and make every memory file executable.
        let file = memfd_create(c"isolab-init", flags | MemfdFlags::EXEC)
            .or_else(|_| memfd_create(c"isolab-init", flags))
            .map_err(fail("create"))?;
        let mut rest = program;
        while !rest.is_empty() {
            let n = rustix::io::write(&file, rest).map_err(fail("write"))?;
            rest = &rest[n..];
        }
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, seals).map_err(fail("seal"))?;
        high(file.as_fd()).map(Self)
    }
}

/// A copy of a descriptor at a number that placing does not overwrite, closed by exec.
pub(crate) fn high(fd: BorrowedFd<'_>) -> Result<OwnedFd, LaunchError> {
    fcntl_dupfd_cloexec(fd, sys::FIRST_HIGH).map_err(LaunchError::Descriptors)
}

/// The child's ends of everything, by the number where they go.
struct Entry<'a> {
    stdio: [OwnedFd; 3],
    control: OwnedFd,
    marks: OwnedFd,
    root: Prepared,
    init: &'a InitImage,
    argv: sys::PointerList<'static>,
    env: sys::PointerList<'static>,
    set_groups: bool,
}

/// Starts a container.
///
/// # Errors
/// The step that failed; nothing is left behind.
pub fn start(config: &ContainerConfig<'_>) -> Result<Instance, LaunchError> {
    let ids = IdMap::choose()?;
    check_user(&config.job.user, &ids)?;
    let block = config.job.encode(&BlockOptions {
        confine_with: Some(seccomp::FILTER),
        no_groups: !ids.allows_groups(),
        root_is_dir: matches!(config.root, RootSource::Directory(_)),
        limits: &resource_limits(),
    })?;
    let cgroup = Cgroup::create(&config.limits)?;
    let (marks_read, marks_write) = mark_pipe()?;
    let (control_read, control) = pipe_with(PipeFlags::CLOEXEC).map_err(LaunchError::Descriptors)?;
    let root = Prepared::new(config.root)?;
    let [stdin, stdout, stderr] = config.stdio;
    let entry = Entry {
        stdio: [high(stdin)?, high(stdout)?, high(stderr)?],
        control: high(control_read.as_fd())?,
        marks: high(marks_write.as_fd())?,
        root,
        init: config.init,
        argv: sys::PointerList::new([c"isolab-init", c"container"].into_iter()),
        env: sys::PointerList::new(std::iter::empty::<&CStr>()),
        set_groups: ids.allows_groups(),
    };
    let report = Some(entry.marks.as_fd());
    let options = SpawnOptions { namespaces: namespace::ALL, cgroup: cgroup.as_ref(), report };

    let start = ClockPair::read();
    let held = spawn(&options, || entry.run(control.as_fd()))?;
    ids.write(held.child().pid())?;
    if let Prepared::Mount(root) = &entry.root {
        let path = format!("/proc/{}/ns/user", held.child().pid());
        let userns =
            open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(LaunchError::Descriptors)?;
        map_ids(root.as_fd(), userns.as_fd())?;
    }
    send_block(&control, &block)?;
    let child = held.release()?;
    drop(entry);
    let begin_ns = Some(start.ns);
    let (marks, control) = (marks_read, Some(control));
    Ok(Instance::new(Parts { child, marks, control, cgroup, start, begin_ns, exit_from: ExitFrom::Marks }))
}

/// Refuses a user or group that has no number outside.
pub(crate) fn check_user(user: &User, ids: &IdMap) -> Result<(), LaunchError> {
    let last = ids.last_id();
    if user.uid.max(user.gid) <= last {
        return Ok(());
    }
    Err(LaunchError::UserNotMapped { uid: user.uid, gid: user.gid, last })
}

/// Resource limits inside: no core dumps (the host's handler would run outside of every limit), usual numbers of
/// descriptors, never more than we have ourselves.
fn resource_limits() -> [(u32, u64, u64); 2] {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX).min(524_288);
    [(4, 0, 0), (7, hard.min(1024), hard)]
}

/// Writes the whole block into the pipe, before anybody reads it.
fn send_block(control: &OwnedFd, block: &[u8]) -> Result<(), LaunchError> {
    let fail = |source| LaunchError::Send { len: block.len(), source };
    if block.len() > PIPE_DEFAULT {
        fcntl_setpipe_size(control, block.len()).map_err(fail)?;
    }
    nonblocking(control).map_err(fail)?;
    let mut rest = block;
    while !rest.is_empty() {
        let n = rustix::io::write(control, rest).map_err(fail)?;
        rest = &rest[n..];
    }
    Ok(())
}

impl Entry<'_> {
    /// *Child*: becomes init. Makes system calls only.
    fn run(&self, parents_control: BorrowedFd<'_>) -> i32 {
        // Before any change of identity: the way to a directory may be open to this user and his groups only.
        let prepared = match self.root.open() {
            Ok(root) => self.prepare(parents_control, &root).map_err(|e| (Step::Prepare, e)),
            Err(e) => Err((Step::Lower, e)),
        };
        let (step, error) = match prepared {
            Ok(()) => (Step::Prepare, sys::exec_fd(self.init.0.as_fd(), &self.argv, &self.env)),
            Err(failed) => failed,
        };
        report(Some(self.marks.as_fd()), step, error);
        crate::child::PREPARE_STATUS
    }

    fn prepare(&self, parents_control: BorrowedFd<'_>, root: &OwnedFd) -> Result<(), Errno> {
        if self.set_groups {
            set_thread_groups(&[])?;
        }
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
        let _ = setsid();
        umask(Mode::from_raw_mode(0o022));
        sys::reset_signals();
        die_with(parents_control, &self.control)?;
        for (fd, number) in self.stdio.iter().zip(0..) {
            sys::place(fd.as_fd(), number)?;
        }
        sys::place(self.control.as_fd(), fd::CONTROL)?;
        sys::place(self.marks.as_fd(), fd::MARKS)?;
        sys::place(root.as_fd(), fd::ROOT)?;
        sys::close_on_exec_from(FIRST_CLOSED)
    }
}

/// *Child*: sets the parent death signal again, which a change of ids clears, and makes sure that the parent did not
/// die before: then its end of the pipe is closed, once our copy of that end is.
pub(crate) fn die_with(parents_end: BorrowedFd<'_>, our_end: &OwnedFd) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    sys::close_copy(parents_end);
    let mut fds = [PollFd::new(our_end, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if fds[0].revents().contains(PollFlags::HUP) { Err(Errno::PIPE) } else { Ok(()) }
}
