//! System calls that fail: each kind of call that a run makes, with each error that it may have. isolab ends in time, with status 125
//! and one line that says why (or as if nothing had been, where it can do without), without a panic, and nothing is left.
//! `ISOLAB_TEST_FULL=1`: each call of each kind; else one of each kind with each error, by a fixed seed.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use libc::{EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOLCK, ENOMEM, ENOSPC, c_int, c_long};
use support::inject::{Call, Ended, run_with};
use support::leaks::Oracle;
use support::random::Random;
use support::{done, full, home, isolab};

/// What a run may take in which something fails: ten times as long as one in which nothing does.
const MOST: Duration = Duration::from_secs(10);

/// A kind of call with the errors that the kernel may give for no fault of the caller's.
struct Kind {
    name: &'static str,
    number: c_long,
    errors: &'static [c_int],
    /// Which of these calls it is.
    is: fn(Call) -> bool,
}

const fn kind(name: &'static str, number: c_long, errors: &'static [c_int]) -> Kind {
    Kind { name, number, errors, is: |_| true }
}

fn opens_a_directory(call: Call) -> bool {
    call.third & u64::from(libc::O_DIRECTORY.unsigned_abs()) != 0
}

fn duplicates(call: Call) -> bool {
    [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC]
        .iter()
        .any(|command| u64::from(command.unsigned_abs()) == call.second)
}

/// What makes a descriptor.
const DESCRIPTOR: &[c_int] = &[EMFILE, ENFILE, ENOMEM];
const MEMORY: &[c_int] = &[ENOMEM];
/// What a disk or a full one may do.
const DISK: &[c_int] = &[EIO, ENOSPC, ENOMEM];

const KINDS: &[Kind] = &[
    Kind {
        name: "openat of a file",
        number: libc::SYS_openat,
        errors: &[EMFILE, ENFILE, ENOMEM, EINTR, EIO],
        is: |call| !opens_a_directory(call),
    },
    // Not EINTR, which libc's opendir does not expect either.
    Kind {
        name: "openat of a directory",
        number: libc::SYS_openat,
        errors: &[EMFILE, ENFILE, ENOMEM, EIO],
        is: opens_a_directory,
    },
    kind("openat2", libc::SYS_openat2, &[EMFILE, ENFILE, ENOMEM, EINTR, EAGAIN]),
    kind("pipe2", libc::SYS_pipe2, DESCRIPTOR),
    kind("eventfd2", libc::SYS_eventfd2, DESCRIPTOR),
    kind("memfd_create", libc::SYS_memfd_create, DESCRIPTOR),
    kind("socketpair", libc::SYS_socketpair, DESCRIPTOR),
    kind("socket", libc::SYS_socket, DESCRIPTOR),
    kind("pidfd_open", libc::SYS_pidfd_open, DESCRIPTOR),
    kind("epoll_create1", libc::SYS_epoll_create1, DESCRIPTOR),
    kind("dup", libc::SYS_dup, &[EMFILE]),
    kind("dup2", libc::SYS_dup2, &[EINTR, EMFILE]),
    kind("dup3", libc::SYS_dup3, &[EINTR, EMFILE]),
    Kind { name: "fcntl(F_DUPFD)", number: libc::SYS_fcntl, errors: &[EMFILE], is: duplicates },
    kind("mmap", libc::SYS_mmap, &[ENOMEM, EAGAIN]),
    kind("clone3", libc::SYS_clone3, &[ENOMEM, EAGAIN, ENOSPC]),
    kind("clone", libc::SYS_clone, &[ENOMEM, EAGAIN]),
    kind("unshare", libc::SYS_unshare, &[ENOMEM, ENOSPC]),
    kind("setns", libc::SYS_setns, MEMORY),
    kind("execve", libc::SYS_execve, &[ENOMEM, EIO, EAGAIN]),
    kind("execveat", libc::SYS_execveat, &[ENOMEM, EIO, EAGAIN]),
    kind("read", libc::SYS_read, &[EINTR, EIO, ENOMEM]),
    kind("pread64", libc::SYS_pread64, &[EINTR, EIO, ENOMEM]),
    kind("write", libc::SYS_write, &[EINTR, EIO, ENOSPC, ENOMEM]),
    kind("pwrite64", libc::SYS_pwrite64, &[EINTR, EIO, ENOSPC]),
    kind("sendmsg", libc::SYS_sendmsg, &[EINTR, ENOMEM]),
    kind("recvmsg", libc::SYS_recvmsg, &[EINTR, ENOMEM]),
    kind("sendto", libc::SYS_sendto, &[EINTR, ENOMEM]),
    kind("recvfrom", libc::SYS_recvfrom, &[EINTR, ENOMEM]),
    kind("poll", libc::SYS_poll, &[EINTR, ENOMEM]),
    kind("ppoll", libc::SYS_ppoll, &[EINTR, ENOMEM]),
    kind("waitid", libc::SYS_waitid, &[EINTR]),
    kind("wait4", libc::SYS_wait4, &[EINTR]),
    kind("mount", libc::SYS_mount, &[ENOMEM, ENOSPC, EIO]),
    kind("umount2", libc::SYS_umount2, MEMORY),
    kind("fsopen", libc::SYS_fsopen, DESCRIPTOR),
    kind("fsconfig", libc::SYS_fsconfig, &[ENOMEM, EIO]),
    kind("fsmount", libc::SYS_fsmount, &[ENOMEM, EMFILE, ENOSPC]),
    kind("open_tree", libc::SYS_open_tree, &[ENOMEM, EMFILE, ENOSPC]),
    kind("move_mount", libc::SYS_move_mount, &[ENOMEM, ENOSPC]),
    kind("mount_setattr", libc::SYS_mount_setattr, MEMORY),
    kind("pivot_root", libc::SYS_pivot_root, MEMORY),
    kind("chroot", libc::SYS_chroot, MEMORY),
    kind("chdir", libc::SYS_chdir, &[ENOMEM, EIO]),
    kind("fchdir", libc::SYS_fchdir, &[EIO]),
    kind("mkdir", libc::SYS_mkdir, DISK),
    kind("mkdirat", libc::SYS_mkdirat, DISK),
    kind("mknodat", libc::SYS_mknodat, DISK),
    kind("symlinkat", libc::SYS_symlinkat, DISK),
    kind("fchmod", libc::SYS_fchmod, &[EIO]),
    kind("fchmodat", libc::SYS_fchmodat, &[EIO]),
    kind("fchownat", libc::SYS_fchownat, &[EIO]),
    kind("ftruncate", libc::SYS_ftruncate, &[EINTR, EIO, ENOMEM]),
    kind("getdents64", libc::SYS_getdents64, &[EIO, ENOMEM]),
    kind("readlink", libc::SYS_readlink, &[EIO, ENOMEM]),
    kind("readlinkat", libc::SYS_readlinkat, &[EIO, ENOMEM]),
    kind("fstat", libc::SYS_fstat, &[ENOMEM]),
    kind("newfstatat", libc::SYS_newfstatat, &[EIO, ENOMEM]),
    kind("statx", libc::SYS_statx, &[EIO, ENOMEM]),
    kind("fsync", libc::SYS_fsync, &[EIO, ENOSPC]),
    kind("fdatasync", libc::SYS_fdatasync, &[EIO, ENOSPC]),
    kind("fallocate", libc::SYS_fallocate, &[EINTR, EIO, ENOSPC]),
    kind("copy_file_range", libc::SYS_copy_file_range, DISK),
    kind("rename", libc::SYS_rename, DISK),
    kind("renameat", libc::SYS_renameat, DISK),
    kind("renameat2", libc::SYS_renameat2, DISK),
    kind("linkat", libc::SYS_linkat, DISK),
    kind("flock", libc::SYS_flock, &[EINTR, ENOLCK]),
    kind("ioctl", libc::SYS_ioctl, &[EIO, ENOMEM]),
    kind("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, DESCRIPTOR),
    kind("landlock_add_rule", libc::SYS_landlock_add_rule, MEMORY),
    kind("landlock_restrict_self", libc::SYS_landlock_restrict_self, MEMORY),
    kind("seccomp", libc::SYS_seccomp, MEMORY),
    kind("sethostname", libc::SYS_sethostname, MEMORY),
    kind("setresuid", libc::SYS_setresuid, &[EAGAIN, ENOMEM]),
    kind("setresgid", libc::SYS_setresgid, MEMORY),
    kind("setgroups", libc::SYS_setgroups, MEMORY),
];

impl Kind {
    fn has(&self, call: Call) -> bool {
        call.number == self.number && (self.is)(call)
    }
}

/// How many calls of each kind a run makes in which all are made.
fn counts(args: &[&str], oracle: &Oracle) -> BTreeMap<&'static str, usize> {
    let numbers: Vec<c_long> = KINDS.iter().map(|kind| kind.number).collect();
    let mut counts = BTreeMap::new();
    let ended = run_with(isolab(args), &numbers, MOST, oracle, |call| {
        if let Some(kind) = KINDS.iter().find(|kind| kind.has(call)) {
            *counts.entry(kind.name).or_default() += 1;
        }
        None
    });
    let ended = done(ended.output);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    oracle.assert_nothing("a run without errors");
    counts
}

/// Runs it with this error of the n-th call of this kind; gives what is wrong with what followed, nothing where there was no such call.
fn inject(args: &[&str], kind: &Kind, error: c_int, n: usize, oracle: &Oracle) -> Option<Result<(), String>> {
    let mut left = n;
    let mut made = false;
    let ended = run_with(isolab(args), &[kind.number], MOST, oracle, |call| {
        left -= usize::from(left > 0 && kind.has(call));
        let now = left == 0 && !made && kind.has(call);
        made |= now;
        now.then_some(error)
    });
    made.then(|| judge(kind, error, ended))
}

fn judge(kind: &Kind, error: c_int, ended: Ended) -> Result<(), String> {
    let (hung, signal) = (ended.hung, ended.output.status.signal());
    let said = done(ended.output);
    let why = |what: &str| {
        Err(format!("{what}: status {:?}, signal {signal:?}, said {:?}", said.status, said.stderr))
    };
    if hung {
        return why("hung");
    }
    let executes = kind.name.starts_with("execve");
    match said.status {
        Some(0) if said.stderr.is_empty() => Ok(()),
        _ if error == EINTR => why("an interrupted call is none that failed"),
        Some(125) | Some(126) if said.status == Some(125) || executes => {
            let told = |words: &[&str]| words.iter().any(|words| said.stderr.contains(words));
            let named = told(&[&format!("(os error {error})")])
                || error == ENOSPC && told(&["no more namespaces", "no space left"])
                // A process that can't tell why has ended: that is what is known of it.
                || told(match kind.name {
                    "write" => &["(its own status is ", "ended without a word"],
                    "recvmsg" => &["release the child: Broken pipe", "ended without a word"],
                    _ => &[],
                });
            let one = said.stderr.starts_with("isolab: ") && said.stderr.lines().count() == 1;
            if said.stderr.contains("a bug of isolab") {
                why("panicked")
            } else if !one {
                why("not one line")
            } else if !named {
                why("the cause is not named")
            } else {
                Ok(())
            }
        }
        _ => why("another end"),
    }
}

/// Makes errors of one command's calls, and gives how many; what was wrong with what followed goes to `wrong`.
fn fail_calls(
    (name, args): (&str, &[&str]),
    random: &mut Random,
    oracle: &Oracle,
    wrong: &mut Vec<String>,
) -> usize {
    let counts = counts(args, oracle);
    println!("{name}: {counts:?}");
    let mut cases = Vec::new();
    for kind in KINDS {
        let count = counts.get(kind.name).copied().unwrap_or(0);
        for error in kind.errors.iter().filter(|_| count > 0) {
            let one = 1 + random.below(count);
            cases.extend((1..=count).filter(|n| full() || *n == one).map(|n| (kind, *error, n, count)));
        }
    }
    let mut made = 0;
    for (kind, error, n, count) in cases {
        let case = format!("{name}: {} {n} of {count} with error {error}", kind.name);
        // None: another process came first this time, and there were fewer of these calls.
        let Some(judged) = inject(args, kind, error, n, oracle) else { continue };
        made += 1;
        wrong.extend(judged.err().map(|what| format!("{case}: {what}")));
        let left = oracle.settled_when(BTreeSet::is_empty);
        if !left.is_empty() {
            wrong.push(format!("{case}: left {left:?}"));
            support::run(&["gc"]);
        }
    }
    made
}

#[test]
fn a_system_call_that_fails_is_survived_or_told_in_one_line_and_leaves_nothing() {
    let oracle = Oracle::new(&home());
    let mut random = Random::fixed(7);
    let image = tempfile::Builder::new().prefix("injected-").tempdir().expect("a directory");
    std::fs::write(image.path().join("file"), "of an image\n").expect("written");
    let run = |level| vec!["run", "--on", "host", "--level", level, "demo"];
    let import = vec!["image", "import", image.path().to_str().expect("UTF-8"), "--name", "injected"];
    let mut wrong = Vec::new();
    for (name, args) in [("process", run("process")), ("container", run("container")), ("import", import)] {
        let made = fail_calls((name, &args), &mut random, &oracle, &mut wrong);
        println!("{name}: {made} errors of system calls");
        assert!(made > 40, "{name}");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
