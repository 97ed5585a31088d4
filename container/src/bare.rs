//! The `process` level: the image as root directory and nothing else. The floor of every comparison.
//!
//! The child gets a mount namespace of its own, because the image must be mounted somewhere; the host's `/proc` and
//! `/dev` appear in it. There is no init: the child executes the workload, and its own status is the workload's.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use isolab_images::job::{Job, Stdio};
use isolab_images::programs::Sealed;
use isolab_wire::job::tmpfs_inodes;
use isolab_wire::mark::{Code, Step};
use isolab_wire::trace::{Subphase, Trace, Tracer};
use isolab_wire::{MARK_ENV, fd};
use rustix::fs::{CWD, Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
    move_mount, open_tree, unmount,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{chdir, chroot, geteuid, pivot_root, setsid, umask};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::cgroup::{Cgroup, Limits};
use crate::child::{
    Child, Handed, PREPARE_STATUS, SpawnOptions, mark, namespace, report, spawn, stage_errno, tell_ends, told,
};
use crate::clock::ClockPair;
use crate::idmap::IdMap;
use crate::instance::{ExitFrom, Instance, Parts, mark_pipe};
use crate::launch::{LaunchError, check_user, die_with, high};
use crate::orphans;
use crate::root::{Prepared, RootSource};
use crate::sys::{self, PointerList};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Flags of every mount that holds the image's files, as `isolab-init` has them: a set-id program of an image, run as another
/// user of the host, must not become root.
const IMAGE_FLAGS: MountFlags = MountFlags::NODEV.union(MountFlags::NOSUID);
/// First number that is closed when the workload starts.
const FIRST_CLOSED: u32 = 5;

/// A bare process to start.
#[derive(Debug)]
pub struct BareConfig<'a> {
    /// What to run.
    pub job: &'a Job,
    /// In which image.
    pub root: &'a RootSource,
    /// What to execute instead of the job's command, of which the first word is a name only: a static program.
    pub program: Option<&'a [u8]>,
    /// Standard input, output and error, given to the workload as they are.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Limits; the default, none, still makes a cgroup where the host has a memory controller, to read the charge.
    pub limits: Limits,
    /// Where the ends of its subphases go.
    pub tracer: Tracer,
}

/// Everything that the child needs, made before it exists.
struct Entry<'a> {
    job: &'a Job,
    stdio: [OwnedFd; 3],
    marks: OwnedFd,
    leash: OwnedFd,
    root: Prepared<OwnedFd>,
    overlay: &'static CStr,
    /// Bytes and files of each tmpfs.
    size: CString,
    inodes: CString,
    tmpfs: CString,
    workdir: CString,
    /// Each directory on the way to it, and itself.
    workdir_parts: Vec<CString>,
    /// Nothing where the user namespace forbids the call; there is nothing to set then.
    groups: Option<Vec<Gid>>,
    /// A program of the job's own.
    program: Option<OwnedFd>,
    /// Paths to try, in order.
    programs: Vec<CString>,
    argv: PointerList,
    env: PointerList,
    tracer: Tracer,
}

fn c_string(what: &'static str, text: &str) -> Result<CString, LaunchError> {
    CString::new(text).map_err(|_| LaunchError::Nul(what))
}

/// The paths at which the command is looked for, as a shell does.
fn candidates(job: &Job) -> Result<Vec<CString>, LaunchError> {
    let name = job.argv.first().map(String::as_str).unwrap_or_default();
    if name.is_empty() {
        return Ok(Vec::new());
    }
    if name.contains('/') {
        return Ok(vec![c_string("the command", name)?]);
    }
    let path = job.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let dirs = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
    dirs.map(|dir| c_string("the command", &format!("{dir}/{name}"))).collect()
}

/// Each directory on the way to a path, and the path.
fn ways_to(path: &str) -> Result<Vec<CString>, LaunchError> {
    let ends = path.match_indices('/').map(|(i, _)| i).filter(|&i| i > 0).chain([path.len()]);
    ends.map(|end| c_string("the working directory", &path[..end])).collect()
}

/// Starts a bare process.
///
/// # Errors
/// The step that failed; nothing is left behind.
pub fn start(config: &BareConfig<'_>) -> Result<Instance, LaunchError> {
    let job = config.job;
    let list = |what, items: &[String]| -> Result<Vec<CString>, LaunchError> {
        items.iter().map(|item| c_string(what, item)).collect()
    };
    let argv = list("an argument", &job.argv)?;
    let mut env = list("an environment entry", &job.env)?;
    if job.marks {
        env.push(c_string("an environment entry", &format!("{MARK_ENV}=fd:{}", fd::MARKS))?);
    }
    let rootless = !geteuid().is_root();
    let ids = if rootless { Some(IdMap::choose()?) } else { None };
    if let Some(ids) = &ids {
        check_user(&job.user, ids)?;
    }
    let groups = ids.as_ref().is_none_or(IdMap::allows_groups);
    let groups = groups.then(|| job.user.groups.iter().map(|&group| Gid::from_raw(group)).collect());
    let tracer = config.tracer;
    let cgroup = Cgroup::create(&config.limits)?;
    tracer.end(Subphase::Cgroup)?;
    if cgroup.is_none() {
        orphans::adopt().map_err(LaunchError::Descriptors)?;
    }
    let (marks_read, marks_write) = mark_pipe()?;
    let (leash, parents_end) = pipe_with(PipeFlags::CLOEXEC).map_err(LaunchError::Descriptors)?;
    let [stdin, stdout, stderr] = config.stdio;
    let size = (job.memory_bytes / 2).max(4096);
    let inodes = tmpfs_inodes(size);
    let root = Prepared::new(config.root)?;
    tracer.end(Subphase::ImageMount)?;
    let entry = Entry {
        job,
        stdio: [high(stdin)?, high(stdout)?, high(stderr)?],
        marks: high(marks_write.as_fd())?,
        leash: high(leash.as_fd())?,
        root,
        // A user namespace may only use `user.` attributes for the overlay's own notes.
        overlay: if rootless {
            c"lowerdir=lower,upperdir=upper,workdir=work,userxattr"
        } else {
            c"lowerdir=lower,upperdir=upper,workdir=work"
        },
        tmpfs: c_string("the size", &format!("size={size},nr_inodes={inodes},mode=0755"))?,
        size: c_string("the size", &size.to_string())?,
        inodes: c_string("the size", &inodes.to_string())?,
        workdir: c_string("the working directory", &job.workdir)?,
        workdir_parts: ways_to(&job.workdir)?,
        groups,
        program: match config.program {
            Some(program) => Some(high(Sealed::new(c"isolab-program", program)?.as_fd())?),
            None => None,
        },
        programs: candidates(job)?,
        argv: PointerList::new(argv),
        env: PointerList::new(env),
        tracer,
    };
    // Without privilege a mount namespace takes a user namespace.
    let namespaces = namespace::MOUNT | if rootless { namespace::USER } else { 0 };
    let report = Some(entry.marks.as_fd());
    let options = SpawnOptions { namespaces, cgroup: cgroup.as_ref(), report, tracer };
    tracer.end(Subphase::Channels)?;

    let start = ClockPair::read();
    // Not in our memory: what the child reads of the image would be charged to us (the kernel asks whose the memory is), and
    // missing in the account.
    let held = spawn(&options, |handed| entry.run(&handed, parents_end.as_fd()))?;
    let equip = || -> Result<Child, LaunchError> {
        if let Some(ids) = ids {
            ids.write(held.child().pid())?;
            tracer.end(Subphase::IdMap)?;
        }
        Ok(held.release(cgroup.as_ref(), &[])?)
    };
    // A child that failed at its half has said why; what we ran into because of that says less.
    let child = equip().map_err(|e| told(&marks_read).map_or(e, LaunchError::Child))?;
    drop(entry);
    let begin_ns = Some(start.ns);
    let (marks, control) = (marks_read, Some(parents_end));
    let (exit_from, measured) = (ExitFrom::Process, job.marks);
    Ok(Instance::new(Parts {
        child,
        marks,
        control,
        cgroup,
        ids: None,
        start,
        begin_ns,
        exit_from,
        measured,
        tracer,
        hold: None,
    }))
}

type Failed = (Step, Errno);

impl Entry<'_> {
    /// *Child*: becomes the workload. Makes system calls only.
    fn run(&self, handed: &Handed, parents_end: BorrowedFd<'_>) -> i32 {
        // Where it is measured, the launcher is told by this what was stamped: the mark pipe would wake it, in the middle of what it
        // measures.
        let measured = self.tracer.trace().and_then(|trace| Some((trace, handed.high_gate().ok()?)));
        let (step, errno) = match self.prepare(parents_end) {
            Ok(()) => self.exec(measured.as_ref()),
            Err(failed) => failed,
        };
        report(Some(self.marks.as_fd()), step, errno);
        PREPARE_STATUS
    }

    fn prepare(&self, parents_end: BorrowedFd<'_>) -> Result<(), Failed> {
        let at = |step| move |errno| (step, errno);
        // First: the directories of the skeleton give the root its mode.
        umask(Mode::from_raw_mode(0o022));
        self.build_root()?;
        self.tracer.end(Subphase::RootMounts).map_err(|_| (Step::Overlay, stage_errno()))?;
        let _ = setsid();
        for (fd, number) in self.stdio.iter().zip(0..) {
            sys::place(fd.as_fd(), number).map_err(at(Step::Channels))?;
        }
        if matches!(self.job.stdio, Stdio::Terminal { .. }) {
            sys::take_terminal().map_err(at(Step::Terminal))?;
        }
        self.enter_workdir().map_err(at(Step::Workdir))?;
        self.tracer.end(Subphase::Workspace).map_err(|_| (Step::Workdir, stage_errno()))?;
        self.become_user().map_err(at(Step::User))?;
        die_with(parents_end, self.leash.as_fd()).map_err(at(Step::Prepare))?;
        sys::reset_signals();
        if self.job.marks {
            sys::place(self.marks.as_fd(), fd::MARKS).map_err(at(Step::Channels))?;
            sys::close_on_exec_from(FIRST_CLOSED).map_err(at(Step::Channels))?;
            // 3 is nobody's.
            sys::close_on_exec(3);
        } else {
            sys::close_on_exec_from(3).map_err(at(Step::Channels))?;
        }
        Ok(())
    }

    /// Mounts image, overlay, `/proc` and `/dev` below a tmpfs of our own stacked on `/`, then makes that the root.
    fn build_root(&self) -> Result<(), Failed> {
        let at = |step| move |errno| (step, errno);
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change(c"/", private).map_err(at(Step::Mounts))?;
        let overlay = !self.job.read_only;
        // While the paths of the host are still there.
        let lower = self.root.open().map_err(at(Step::Lower))?;
        self.skeleton(overlay).map_err(at(Step::Overlay))?;
        self.lower(&lower).map_err(at(Step::Lower))?;
        let mut root = c"lower";
        if overlay {
            mount(c"overlay", c"root", c"overlay", IMAGE_FLAGS, self.overlay).map_err(at(Step::Overlay))?;
            root = c"root";
        }
        // The host's trees are named from the old root, which is still ours; the image's names are one real part each,
        // and a symbolic link there is not followed.
        chdir(root).map_err(at(Step::Root))?;
        for (source, target) in [(c"/proc", c"proc"), (c"/dev", c"dev")] {
            bind(source, target, self.job.read_only).map_err(at(Step::Mounts))?;
        }
        if self.job.read_only {
            temporary(&self.size, &self.inodes).map_err(at(Step::Mounts))?;
        }
        match pivot_root(c".", c".") {
            // What lies on the new root now: the old one, and on that the skeleton.
            Ok(()) => {
                for _ in 0..2 {
                    unmount(c".", UnmountFlags::DETACH).map_err(at(Step::Root))?;
                }
            }
            // The initial file system of a kernel (an initramfs) can't be put aside.
            Err(Errno::INVAL) => chroot(c".").map_err(at(Step::Root))?,
            Err(e) => return Err((Step::Root, e)),
        }
        chdir(c"/").map_err(at(Step::Root))
    }

    fn skeleton(&self, overlay: bool) -> Result<(), Errno> {
        // Mounted on / by path it lies on top; ".." of the covered root leads to it.
        mount(c"tmpfs", c"/", c"tmpfs", IMAGE_FLAGS, self.tmpfs.as_c_str())?;
        chdir(c"/..")?;
        mkdir(c"lower", Mode::from_raw_mode(0o755))?;
        if overlay {
            for name in [c"upper", c"work", c"root"] {
                mkdir(name, Mode::from_raw_mode(0o755))?;
            }
        }
        Ok(())
    }

    fn lower(&self, root: &OwnedFd) -> Result<(), Errno> {
        let attach =
            |fd: &OwnedFd| move_mount(fd, c"", CWD, c"lower", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        match self.root {
            Prepared::Mount(_) => attach(root),
            Prepared::Directory { .. } => {
                let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let copy = open_tree(root, c"", copy | OpenTreeFlags::AT_EMPTY_PATH)?;
                // As the mount of an EROFS image has it.
                let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID;
                sys::restrict_mount(copy.as_fd(), attributes)?;
                attach(&copy)
            }
        }
    }

    /// Enters the working directory, made where it is missing, as `isolab-init` does.
    fn enter_workdir(&self) -> Result<(), Errno> {
        match chdir(&*self.workdir) {
            Err(Errno::NOENT) if !self.job.read_only => {
                for part in &self.workdir_parts {
                    match mkdir(&**part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(e) => return Err(e),
                    }
                }
                chdir(&*self.workdir)
            }
            other => other,
        }
    }

    fn become_user(&self) -> Result<(), Errno> {
        if let Some(groups) = &self.groups {
            set_thread_groups(groups)?;
        }
        let (uid, gid) = (Uid::from_raw(self.job.user.uid), Gid::from_raw(self.job.user.gid));
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    }

    fn exec(&self, measured: Option<&(&Trace, OwnedFd)>) -> Failed {
        if self.tracer.fault(Subphase::Privileges).is_err() {
            return (Step::User, stage_errno());
        }
        match measured {
            Some((trace, gate)) => {
                self.tracer.stamp(Subphase::Privileges);
                tell_ends(gate.as_fd(), trace);
            }
            None => mark(Some(self.marks.as_fd()), Code::Exec, 0),
        }
        if self.tracer.fault(Subphase::Exec).is_err() {
            return (Step::Exec, stage_errno());
        }
        (Step::Exec, self.exec_first())
    }

    /// Executes the first of the paths at which there is something.
    fn exec_first(&self) -> Errno {
        if let Some(program) = &self.program {
            return sys::exec_fd(program.as_fd(), &self.argv, &self.env);
        }
        let mut result = Errno::NOENT;
        for program in &self.programs {
            match sys::exec_path(program, &self.argv, &self.env) {
                Errno::NOENT | Errno::NOTDIR => {}
                // Something is there that may not be executed: say so unless a later directory has it.
                Errno::ACCESS => result = Errno::ACCESS,
                other => return other,
            }
        }
        result
    }
}

/// *Child*: shows a tree of the host at a directory of the image, which is made where that can be.
fn bind(source: &CStr, target: &CStr, read_only: bool) -> Result<(), Errno> {
    let copy =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, source, copy)?;
    let attach = || move_mount(&tree, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    match attach() {
        Err(Errno::NOENT) if !read_only => {
            mkdir(target, Mode::from_raw_mode(0o755))?;
            attach()
        }
        // What the kernel says of a place that is no directory.
        Err(Errno::INVAL) => Err(Errno::NOTDIR),
        other => other,
    }
}

/// *Child*: an empty, writable `/tmp`, where the image has a real directory for it.
fn temporary(size: &CStr, inodes: &CStr) -> Result<(), Errno> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"size", size)?;
    fsconfig_set_string(&context, c"nr_inodes", inodes)?;
    fsconfig_set_string(&context, c"mode", c"1777")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    match move_mount(&tree, c"", CWD, c"tmp", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL) => Ok(()),
        other => other,
    }
}
