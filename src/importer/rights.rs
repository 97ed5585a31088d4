//! What the importer gives up before it reads the first byte: other files, programs, sockets and processes, every capability but that of
//! reading the directory that it was given, memory and processor time without limit.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use isolab_images::budget::Budgets;
use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// The user that owns nothing.
const NOBODY: u32 = 65534;
/// Newest rules that this program knows; older kernels enforce what they have.
const RULES: ABI = ABI::V6;
/// Memory of its own: two million inodes with the longest names that the budgets allow take three quarters of it.
const MEMORY: u64 = 4 << 30;
/// Processor time for what every image takes, and for each GiB that it may decompress to: ten times what it takes.
const CPU_S: u64 = 60;
/// Descriptors: its four, three streams, the directories from the root to where it is (the deepest that the budgets allow).
const DESCRIPTORS: u64 = 2048;

/// Limits that the kernel keeps, besides the budgets that the reader keeps itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of memory of its own.
    pub(super) memory_bytes: u64,
    /// Seconds of processor time.
    pub(super) cpu_s: u64,
    /// Bytes of each of the two files that it writes.
    file_bytes: u64,
}

impl Limits {
    /// For an image within these budgets.
    pub(super) fn of(budgets: &Budgets) -> Self {
        let contents = budgets.decompressed_bytes;
        // The spool has a compressed archive unpacked and then its files; the image has files rounded up to blocks, and its metadata.
        let blocks =
            budgets.entries.saturating_mul(8192).saturating_add(budgets.metadata_bytes.saturating_mul(2));
        Self {
            memory_bytes: MEMORY,
            cpu_s: CPU_S.saturating_mul(1 + (contents >> 30)),
            file_bytes: contents.saturating_mul(2).saturating_add(blocks),
        }
    }
}

/// A right that could not be given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum RightsError {
    /// Streams, limits, user or capabilities.
    #[error("give up {0}")]
    Kernel(&'static str, #[source] rustix::io::Errno),
    /// Files.
    #[error("give up other files")]
    Files(#[source] RulesetError),
    /// System calls.
    #[error("give up system calls")]
    Calls(#[source] io::Error),
}

/// Gives up everything that reading this source does not take. Called by the only thread; ends with `launcher`.
///
/// # Errors
/// The kernel refuses to take one of them. What a kernel does not have (Landlock before 5.13) is left out.
pub(super) fn give_up(source: BorrowedFd<'_>, limits: Limits, launcher: Pid) -> Result<(), RightsError> {
    let refused = |what| move |errno| RightsError::Kernel(what, errno);
    silence().map_err(refused("its streams"))?;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Data, limits.memory_bytes),
        (Resource::Cpu, limits.cpu_s),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Nproc, 0),
    ] {
        lower(resource, most).map_err(refused("memory and time without limit"))?;
    }
    set_no_new_privs(true).map_err(refused("new privileges"))?;
    let stat = rustix::fs::fstat(source).map_err(refused("other files"))?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    // Below a directory are files that are still to be opened, as whoever started isolab may.
    let kept = if is_dir { to_read().map_err(refused("capabilities"))? } else { CapabilitySet::empty() };
    if !is_dir {
        become_nobody();
    }
    // Kernels before 4.3 have none.
    let _ = clear_ambient_capability_set();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(refused("capabilities"))?;
    // A change of user takes back that it dies with its launcher.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(refused("a life of its own"))?;
    if getppid() != Some(launcher) {
        return Err(RightsError::Kernel("a life of its own", rustix::io::Errno::SRCH));
    }
    limit_files(is_dir.then_some(source)).map_err(RightsError::Files)?;
    limit_calls().map_err(RightsError::Calls)
}

/// The least capability, of those that it has, that lets it read what others own. A container's root often has not the one that is
/// made for that.
fn to_read() -> rustix::io::Result<CapabilitySet> {
    let held = capabilities(None)?.permitted;
    let least = [CapabilitySet::DAC_READ_SEARCH, CapabilitySet::DAC_OVERRIDE];
    Ok(least.into_iter().find(|one| held.contains(*one)).unwrap_or(CapabilitySet::empty()))
}

/// Standard streams that lead nowhere: what it says, it says by its pipe.
fn silence() -> rustix::io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    retry_on_intr(|| rustix::stdio::dup2_stdin(&null))?;
    retry_on_intr(|| rustix::stdio::dup2_stdout(&null))?;
    retry_on_intr(|| rustix::stdio::dup2_stderr(&null))
}

fn lower(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let most = Some(getrlimit(resource).maximum.map_or(most, |hard| hard.min(most)));
    setrlimit(resource, Rlimit { current: most, maximum: most })
}

/// Another user, where it is root and there is that user (not so in each user namespace).
fn become_nobody() {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    // Whoever can't keeps a user that can do nothing: no capabilities, and by the calls that are left no file to open.
    let _ = set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid));
}

/// No file can be opened but, for reading, those below the source, where that is a directory.
fn limit_files(source: Option<BorrowedFd<'_>>) -> Result<RulesetStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?;
    let ruleset = match source {
        Some(dir) => {
            ruleset.add_rule(PathBeneath::new(dir.as_fd(), AccessFs::ReadFile | AccessFs::ReadDir))?
        }
        None => ruleset,
    };
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Calls that reading, unpacking and writing take; any other ends the process.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_flistxattr,
    libc::SYS_fgetxattr,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_close,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Under which argument such a call is allowed: no memory that can be executed, no file opened for writing.
fn conditions(call: i64) -> Result<Vec<SeccompRule>, BackendError> {
    let none_of = |argument, bits: i32| {
        let zero = SeccompCmpOp::MaskedEq(u64::from(bits.unsigned_abs()));
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, zero, 0)?;
        Ok(vec![SeccompRule::new(vec![condition])?])
    };
    match call {
        libc::SYS_mmap | libc::SYS_mprotect => none_of(2, libc::PROT_EXEC),
        libc::SYS_openat => none_of(2, libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC),
        _ => Ok(vec![]),
    }
}

/// The filter with this answer to all other calls.
fn filter(otherwise: SeccompAction) -> Result<seccompiler::BpfProgram, BackendError> {
    let rules = CALLS.iter().map(|&call| Ok((call, conditions(call)?)));
    let rules = rules.collect::<Result<_, BackendError>>()?;
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()
}

fn limit_calls() -> io::Result<()> {
    let program = filter(SeccompAction::KillProcess).map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// In a thread that has given up files, as far as the kernel has Landlock, and calls; calls that would end it fail instead.
    fn confined<T: Send + 'static>(
        source: Option<File>,
        body: impl FnOnce(RulesetStatus) -> T + Send + 'static,
    ) -> T {
        let thread = thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            let files = limit_files(source.as_ref().map(AsFd::as_fd)).unwrap();
            let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
            seccompiler::apply_filter(&filter(refused).unwrap()).unwrap();
            body(files)
        });
        thread.join().unwrap()
    }

    #[test]
    fn no_program_no_socket_and_no_other_file() {
        let kinds = confined(None, |_| {
            let program = Command::new("/bin/true").status().unwrap_err().kind();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err().kind();
            let written = File::create("/tmp/isolab-importer").unwrap_err().kind();
            [program, socket, written]
        });
        assert_eq!(kinds, [ErrorKind::PermissionDenied; 3]);
    }

    #[test]
    fn below_the_source_files_can_be_read_and_nowhere_else() {
        let (source, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&source, &outside] {
            std::fs::write(dir.path().join("file"), "x").unwrap();
        }
        let files = [source.path().join("file"), outside.path().join("file")];
        let dir = File::open(source.path()).unwrap();
        let (landlock, [inside, other]) = confined(Some(dir), move |landlock| {
            (landlock, files.map(|file| File::open(file).map_err(|e| e.kind())))
        });
        inside.unwrap();
        // Without Landlock the directory is the reader's own matter: it opens beneath it only.
        if landlock == RulesetStatus::NotEnforced {
            println!("skipped: this kernel has no Landlock");
        } else {
            assert_eq!(other.unwrap_err(), ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn limits_grow_with_what_the_image_may_hold() {
        let of = |decompressed_bytes| Limits::of(&Budgets { decompressed_bytes, ..Budgets::default() });
        assert_eq!((of(1 << 30).cpu_s, of(16 << 30).cpu_s), (2 * CPU_S, 17 * CPU_S));
        assert!(of(u64::MAX).file_bytes == u64::MAX && of(0).file_bytes > 8192 * 2_000_000);
    }
}
