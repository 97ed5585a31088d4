//! Starting a container: everything that happens before `isolab-init` runs its first instruction.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use isolab_images::job::{BlockOptions, Job, JobEncodeError, User};
use isolab_images::programs::{SealError, Sealed};
use isolab_wire::fault::StageFailed;
use isolab_wire::fd;
use isolab_wire::mark::{Failure, Step};
use isolab_wire::trace::{Subphase, Tracer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Signal, setsid, umask};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::cgroup::{Cgroup, CgroupError, CgroupPlan, Limits};
use crate::child::{Child, Handed, Held, SpawnError, SpawnOptions, report, spawn_program, stage_errno, told};
use crate::clock::ClockPair;
use crate::idmap::{IdMap, IdMapError};
use crate::instance::{ExitFrom, Instance, InstanceError, Parts, mark_pipe, nonblocking};
use crate::knobs::Knobs;
use crate::root::{Prepared, RootError, RootSource, map_ids, mount_erofs};
use crate::sys::Inherited;
use crate::{rlimits, seccomp, sys, trace};

/// First number that is closed when init starts.
const FIRST_CLOSED: u32 = 7;
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
    /// The program that becomes process 1 ([`isolab_images::programs::INIT`]).
    pub init: &'a [u8],
    /// What to execute instead of the job's command, of which the first word is a name only: a static program.
    pub program: Option<&'a [u8]>,
    /// Limits to enforce, from [`job_limits`] as a rule.
    pub limits: Limits,
    /// Where the ends of its subphases go.
    pub tracer: Tracer,
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
    #[error("put init into a sealed memory file")]
    Init(#[from] SealError),
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
    /// The process, before it became init.
    #[error("start process 1, step {:?}: {}", .0.step, Errno::from_raw_os_error(.0.errno.into()))]
    Child(Failure),
    /// Ids.
    #[error("map ids")]
    IdMap(#[from] IdMapError),
    /// Resource limits.
    #[error("set the resource limits")]
    Limits(#[source] Errno),
    /// The job block.
    #[error("send the job block of {len} bytes")]
    Send {
        /// Its length.
        len: usize,
        /// Why not.
        source: Errno,
    },
    /// A test's fault.
    #[error(transparent)]
    Stage(#[from] StageFailed),
    /// The working directory, the command or its environment hold NUL.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
}

/// A copy of a descriptor at a number that placing does not overwrite, closed by exec.
pub(crate) fn high(fd: BorrowedFd<'_>) -> Result<OwnedFd, LaunchError> {
    fcntl_dupfd_cloexec(fd, sys::FIRST_HIGH).map_err(LaunchError::Descriptors)
}

/// What the child works with.
struct Entry {
    stdio: [Inherited; 3],
    control: Inherited,
    /// The launcher's end of the same pipe, of which the child keeps no copy.
    parents_control: Inherited,
    marks: Inherited,
    /// Where the image is a directory; a mount of it comes with the release.
    directory: Option<Prepared<Inherited>>,
    /// A program of the job's own comes with the release.
    program: bool,
    argv: sys::PointerList,
    env: sys::PointerList,
    set_groups: bool,
    tracer: Tracer,
}

/// Starts a container. What does not take part in `clone3` is prepared while the child makes its namespaces.
///
/// # Errors
/// The step that failed; nothing is left behind.
pub fn start(config: &ContainerConfig<'_>) -> Result<Instance, LaunchError> {
    start_with(config, Knobs::default())
}

/// The same with mechanisms left out, to measure what they cost.
///
/// # Errors
/// As [`start`].
pub fn start_with(config: &ContainerConfig<'_>, knobs: Knobs) -> Result<Instance, LaunchError> {
    let ids = IdMap::choose()?;
    check_user(&config.job.user, &ids)?;
    let plan = CgroupPlan::new(&config.limits)?;
    let by_clone = plan.joined_by_clone();
    let early = if by_clone { plan.create()? } else { None };
    if by_clone {
        config.tracer.end(Subphase::Cgroup)?;
    }
    let (marks_read, marks_write) = mark_pipe()?;
    let (control_read, control) = pipe_with(PipeFlags::CLOEXEC).map_err(LaunchError::Descriptors)?;
    let directory = match config.root {
        RootSource::Erofs(_) => None,
        RootSource::Directory(_) => Some(Prepared::new(config.root)?),
    };
    let [stdin, stdout, stderr] = config.stdio;
    let stdio = [high(stdin)?, high(stdout)?, high(stderr)?];
    let (childs_control, marks) = (high(control_read.as_fd())?, high(marks_write.as_fd())?);
    let entry = Entry {
        stdio: stdio.each_ref().map(Inherited::of),
        control: Inherited::of(&childs_control),
        parents_control: Inherited::of(&control),
        marks: Inherited::of(&marks),
        directory: directory.as_ref().map(Prepared::for_child),
        program: config.program.is_some(),
        argv: sys::PointerList::new(vec![c"isolab-init".into(), c"container".into()]),
        env: sys::PointerList::new(vec![]),
        set_groups: ids.allows_groups(),
        tracer: config.tracer,
    };
    let report = Some(marks.as_fd());
    let tracer = config.tracer;
    let options = SpawnOptions { namespaces: knobs.namespaces(), cgroup: early.as_ref(), report, tracer };
    tracer.end(Subphase::Channels)?;

    let start = ClockPair::read();
    let held = spawn_program(&options, move |handed| entry.run(handed))?;
    // A child that failed at its half has said why; what we ran into because of that says less.
    let (child, cgroup) =
        equip(held, (config, knobs), &ids, &control, || if by_clone { Ok(early) } else { plan.create() })
            .map_err(|e| told(&marks_read).map_or(e, LaunchError::Child))?;
    drop((stdio, childs_control, marks));
    let begin_ns = Some(start.ns);
    let (marks, control) = (marks_read, Some(control));
    let (exit_from, measured) = (ExitFrom::Marks, config.job.marks);
    Ok(Instance::new(Parts {
        child,
        marks,
        control,
        cgroup,
        ids: ids.into_block(),
        start,
        begin_ns,
        exit_from,
        measured,
        tracer,
        hold: None,
    }))
}

/// Our half of the start, while the child makes its namespaces: ids, image, init, job, cgroup.
fn equip(
    held: Held,
    (config, knobs): (&ContainerConfig<'_>, Knobs),
    ids: &IdMap,
    control: &OwnedFd,
    make_cgroup: impl FnOnce() -> Result<Option<Cgroup>, CgroupError>,
) -> Result<(Child, Option<Cgroup>), LaunchError> {
    let tracer = config.tracer;
    ids.write(held.child().pid())?;
    tracer.end(Subphase::IdMap)?;
    let root = match config.root {
        RootSource::Erofs(image) => Some(mount_for(held.child().pid(), image)?),
        RootSource::Directory(_) => None,
    };
    tracer.end(Subphase::ImageMount)?;
    let init = Sealed::new(c"isolab-init", config.init)?;
    tracer.end(Subphase::InitProgram)?;
    rlimits::set(held.child().pid()).map_err(LaunchError::Limits)?;
    // The host keeps its own name.
    let nameless = (!knobs.has_host_name()).then(|| Job { hostname: String::new(), ..config.job.clone() });
    let block = nameless.as_ref().unwrap_or(config.job).encode(&BlockOptions {
        // An empty program is none.
        confine_with: Some(if knobs.seccomp { seccomp::FILTER } else { &[] }),
        no_groups: !ids.allows_groups(),
        root_is_dir: root.is_none(),
        program: config.program.is_some(),
        limits: &[rlimits::descriptors(held.child().pid())],
        fault: trace::fault_inside(&tracer),
        template: false,
    })?;
    send_block(control, &block)?;
    tracer.end(Subphase::JobBlock)?;
    let cgroup = make_cgroup()?;
    if tracer.trace().is_some_and(|trace| trace.end_of(Subphase::Cgroup).is_none()) {
        tracer.end(Subphase::Cgroup)?;
    }
    let program = config.program.map(|program| Sealed::new(c"isolab-program", program)).transpose()?;
    let program = program.as_ref().map(AsFd::as_fd);
    let handed: Vec<BorrowedFd<'_>> =
        root.iter().map(AsFd::as_fd).chain([init.as_fd()]).chain(program).collect();
    let child = held.release(cgroup.as_ref(), &handed)?;
    Ok((child, cgroup))
}

/// Mounts the image with its owners as the ids of that process's user namespace.
fn mount_for(pid: i32, image: &File) -> Result<OwnedFd, LaunchError> {
    let root = mount_erofs(image)?;
    let userns = open(format!("/proc/{pid}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(LaunchError::Descriptors)?;
    map_ids(root.as_fd(), userns.as_fd())?;
    Ok(root)
}

/// Refuses a user or group that has no number outside.
pub(crate) fn check_user(user: &User, ids: &IdMap) -> Result<(), LaunchError> {
    let last = ids.last_id();
    if user.uid.max(user.gid) <= last {
        return Ok(());
    }
    Err(LaunchError::UserNotMapped { uid: user.uid, gid: user.gid, last })
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
        let n = retry_on_intr(|| rustix::io::write(control, rest)).map_err(fail)?;
        rest = &rest[n..];
    }
    Ok(())
}

impl Entry {
    /// *Child*: becomes init. Makes system calls only.
    fn run(&self, mut handed: Handed) -> i32 {
        let (step, error) = match self.prepare(&mut handed) {
            Ok(init) => {
                let stages =
                    self.tracer.end(Subphase::Identity).and_then(|()| self.tracer.fault(Subphase::ExecInit));
                match stages {
                    Ok(()) => (Step::Prepare, sys::exec_fd(init.as_fd(), &self.argv, &self.env)),
                    Err(_) => (Step::Prepare, stage_errno()),
                }
            }
            Err(failed) => failed,
        };
        report(Some(self.marks.as_fd()), step, error);
        crate::child::PREPARE_STATUS
    }

    /// The program to execute.
    fn prepare(&self, handed: &mut Handed) -> Result<OwnedFd, (Step, Errno)> {
        // Before any change of identity: the way to a directory may be open to this user and his groups only.
        let root = match &self.directory {
            Some(directory) => directory.open(),
            None => handed.next().and_then(|root| fcntl_dupfd_cloexec(root, sys::FIRST_HIGH)),
        };
        let root = root.map_err(|e| (Step::Lower, e))?;
        self.become_init(handed, &root).map_err(|e| (Step::Prepare, e))
    }

    fn become_init(&self, handed: &mut Handed, root: &OwnedFd) -> Result<OwnedFd, Errno> {
        let init = fcntl_dupfd_cloexec(handed.next()?, sys::FIRST_HIGH)?;
        let program = match self.program {
            true => Some(fcntl_dupfd_cloexec(handed.next()?, sys::FIRST_HIGH)?),
            false => None,
        };
        if self.set_groups {
            set_thread_groups(&[])?;
        }
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
        let _ = setsid();
        umask(Mode::from_raw_mode(0o022));
        die_with(self.parents_control.as_fd(), self.control.as_fd())?;
        for (fd, number) in self.stdio.iter().zip(0..) {
            sys::place(fd.as_fd(), number)?;
        }
        sys::place(self.control.as_fd(), fd::CONTROL)?;
        sys::place(self.marks.as_fd(), fd::MARKS)?;
        sys::place(root.as_fd(), fd::ROOT)?;
        match program {
            Some(program) => sys::place(program.as_fd(), fd::PROGRAM)?,
            None => sys::close_on_exec(fd::PROGRAM.unsigned_abs()),
        }
        sys::close_on_exec_from(FIRST_CLOSED)?;
        Ok(init)
    }
}

/// *Child*: sets the parent death signal again, which a change of ids clears, and makes sure that the parent did not
/// die before: then its end of the pipe is closed, once our copy of that end is.
pub(crate) fn die_with(parents_end: BorrowedFd<'_>, our_end: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    sys::close_copy(parents_end);
    let mut fds = [PollFd::from_borrowed_fd(our_end, PollFlags::empty())];
    retry_on_intr(|| poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })))?;
    if fds[0].revents().contains(PollFlags::HUP) { Err(Errno::PIPE) } else { Ok(()) }
}
