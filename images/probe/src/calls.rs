//! System calls: which the kernel takes, and from whom.

use std::time::Duration;

use crate::out::Out;
use crate::protocol::Spec;
use crate::sys::{self, BAD, Ended, attempt, in_child};

/// Far more than a call takes, on a machine with far too much to do.
const LIMIT: Duration = Duration::from_secs(3);
/// The same of the one call that waits for ever.
const PAUSE: (u32, Duration) = (34, Duration::from_millis(100));
/// Past the last number of the 64-bit table; from 512 on there are numbers of x32.
const END: u32 = 512;
/// A System V key that nobody has.
const NO_KEY: usize = 0x69_73_6f_6c;

/// Calls that are not made, with the reason.
const SKIPPED: &[(u32, &str)] = &[
    (15, "rt_sigreturn: takes the stack for a signal's frame"),
    (60, "exit: ends the process"),
    (162, "sync: would write out every disk of the host"),
    (231, "exit_group: ends the process"),
    (335, "uretprobe: answers only to the kernel's own trampoline"),
    (336, "uprobe: answers only to the kernel's own trampoline"),
];

/// Calls for which six bad arguments would do something, would wait, or would look like a missing call.
fn arguments(number: u32) -> [usize; 6] {
    match number {
        29 | 68 => [NO_KEY, 0, 0, 0, 0, 0],
        64 => [NO_KEY, 0, 0, 0, 0, 0],
        // A child that ends at once.
        56 => [libc::SIGCHLD as usize, 0, 0, 0, 0, 0],
        // A process that can't be.
        62 => [0x7fff_fffe, 0, 0, 0, 0, 0],
        // Reads nothing into nowhere.
        154 => [0, BAD, 16, BAD, BAD, BAD],
        175 => [BAD, 64, BAD, BAD, BAD, BAD],
        // Wakes who waits at an address that can't be mapped.
        202 => [8, 1, 1, 0, 0, 0],
        _ => [BAD; 6],
    }
}

/// P06: each number of the table once, each in a child of its own.
pub(crate) fn sweep(_: &Spec, out: &Out<'_>) {
    let mut said = String::new();
    for number in 0..END {
        if SKIPPED.iter().any(|(skipped, _)| *skipped == number) {
            continue;
        }
        let limit = if number == PAUSE.0 { PAUSE.1 } else { LIMIT };
        let answer = match attempt(limit, number, &arguments(number)) {
            Ended::Value(value) if value >= 0 => "0".to_owned(),
            Ended::Value(value) => value.to_string(),
            Ended::Signal(signal) => format!("s{signal}"),
            Ended::Late => "w".to_owned(),
            Ended::NoChild(errno) => format!("x{errno}"),
        };
        said.push_str(&format!("{number}:{answer} "));
    }
    out.told("sweep", said.trim_end());
    let skipped: Vec<&str> = SKIPPED.iter().map(|(_, why)| *why).collect();
    out.told("skipped", &skipped.join("; "));
}

/// P07: the 32-bit table and the x32 numbers.
pub(crate) fn other_tables(_: &Spec, out: &Out<'_>) {
    match sys::getpid_32() {
        Ended::Value(value) if value > 0 => out.reached("int 0x80", "getpid answers"),
        Ended::Value(value) => out.error("int 0x80", i32::try_from(-value).unwrap_or(0), ""),
        // Without the 32-bit table the instruction faults.
        Ended::Signal(libc::SIGSEGV) => out.absent("int 0x80", "the kernel has no 32-bit table"),
        ended => out.call("int 0x80", 20, &[], ended),
    }
    const X32: u32 = 0x4000_0000;
    out.call("x32", X32 | 39, &[], attempt(LIMIT, X32 | 39, &[]));
}

/// P10: each kind of namespace, by `unshare` and by `clone`.
pub(crate) fn namespaces(_: &Spec, out: &Out<'_>) {
    const KINDS: [(&str, usize); 8] = [
        ("time", 0x80),
        ("mount", 0x2_0000),
        ("cgroup", 0x200_0000),
        ("uts", 0x400_0000),
        ("ipc", 0x800_0000),
        ("user", 0x1000_0000),
        ("pid", 0x2000_0000),
        ("net", 0x4000_0000),
    ];
    for (kind, bit) in KINDS {
        out.call(&format!("unshare {kind}"), 272, &[bit], attempt(LIMIT, 272, &[bit]));
        // `clone` has no bit for time: it is one of the signal's.
        if bit > 0xff {
            let args = [bit | libc::SIGCHLD as usize, 0, 0, 0, 0];
            out.call(&format!("clone {kind}"), 56, &args, attempt(LIMIT, 56, &args));
        }
    }
    // The flags lie in memory, where a filter can't see them.
    let args: [u64; 11] = [0x1000_0000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0];
    let words = [sys::address(&args), size_of_val(&args)];
    out.call("clone3 user", 435, &words, attempt(LIMIT, 435, &words));
}

/// Name, number, arguments of calls that reach far.
type Named = (&'static str, u32, &'static [usize]);

const DANGEROUS: &[Named] = &[
    ("bpf", 321, &[0, BAD, 48]),
    ("perf_event_open", 298, &[BAD, 0, BAD, BAD, 0]),
    ("userfaultfd", 323, &[0]),
    ("io_uring_setup", 425, &[1, BAD]),
    ("keyctl", 250, &[0, 0xffff_ffff_ffff_fffd, 0]),
    ("add_key", 248, &[BAD, BAD, 0, 0, BAD]),
    ("request_key", 249, &[BAD, BAD, 0, 0]),
    ("open_by_handle_at", 304, &[0xffff_ffff_ffff_ff9c, BAD, 0]),
    ("kexec_load", 246, &[0, 0, 0, BAD]),
    ("kexec_file_load", 320, &[BAD, BAD, 0, BAD, 0]),
    ("init_module", 175, &[BAD, 64, BAD]),
    ("finit_module", 313, &[BAD, BAD, 0]),
    ("delete_module", 176, &[BAD, 0]),
    ("fsopen", 430, &[BAD, 0]),
    ("fsmount", 432, &[BAD, 0, 0]),
    ("open_tree", 428, &[BAD, BAD, 0]),
    ("move_mount", 429, &[BAD, BAD, BAD, BAD, 0]),
    ("mount_setattr", 442, &[BAD, BAD, 0, BAD, 32]),
    ("mount", 165, &[BAD, BAD, BAD, 0, 0]),
    ("umount2", 166, &[BAD, 0]),
    ("pivot_root", 155, &[BAD, BAD]),
    ("setns", 308, &[BAD, 0]),
    ("swapon", 167, &[BAD, 0]),
    ("swapoff", 168, &[BAD]),
    ("reboot", 169, &[0, 0, 0, 0]),
    ("iopl", 172, &[1]),
    ("ioperm", 173, &[0x80, 1, 1]),
    ("quotactl", 179, &[0x8000_0700, BAD, 0, BAD]),
    ("syslog", 103, &[10, 0, 0]),
    ("acct", 163, &[BAD]),
    ("settimeofday", 164, &[BAD, 0]),
    ("sethostname", 170, &[BAD, BAD]),
    ("personality: fixed addresses", 135, &[0x4_0000]),
    ("pidfd_getfd", 438, &[BAD, 0, 0]),
    ("process_madvise", 440, &[BAD, BAD, 1, 4, 0]),
    ("fanotify_init", 300, &[0, 0]),
];

/// P12: calls that reach far beyond a process.
pub(crate) fn dangerous(_: &Spec, out: &Out<'_>) {
    for (name, number, args) in DANGEROUS {
        out.call(name, *number, args, attempt(LIMIT, *number, args));
    }
    // Another process, which is a child of ours: only a filter refuses that.
    let child = match sys::fork() {
        Ok(0) => {
            std::thread::sleep(Duration::from_secs(5));
            sys::exit(0)
        }
        Ok(child) => child as usize,
        Err(errno) => return out.error("child", errno, "no child to look into"),
    };
    const SEIZE: usize = 0x4206;
    for (name, number, args) in
        [("ptrace", 101, [SEIZE, child, 0, 0, 0, 0]), ("process_vm_readv", 310, [child, 0, 0, 0, 0, 0])]
    {
        out.call(name, number, &args, attempt(LIMIT, number, &args));
    }
    let _ = sys::kill(child as i32, libc::SIGKILL);
    let _ = sys::wait(child as i32, Duration::from_secs(1));
}

/// In a user namespace of its own, where it has all capabilities over nothing of the host's.
fn as_new_root(then: impl FnOnce() -> i64) -> Ended {
    const USER: usize = 0x1000_0000;
    const NET_AND_MOUNT: usize = 0x4002_0000;
    in_child(LIMIT, || {
        for flags in [USER, NET_AND_MOUNT] {
            if let Err(errno) = sys::call(272, &[flags]) {
                return -i64::from(errno);
            }
        }
        then()
    })
}

fn value(result: Result<usize, i32>) -> i64 {
    result.map_or_else(|errno| -i64::from(errno), |value| i64::try_from(value).unwrap_or(0))
}

/// P40: the first harmless call on the way to kernel code that had well-known holes.
pub(crate) fn entry_points(_: &Spec, out: &Out<'_>) {
    const RAW: usize = 3;
    const DGRAM: usize = 2;
    const SEQPACKET: usize = 5;
    const NETFILTER: usize = 12;
    let calls: &[Named] = &[
        ("AF_ALG socket", 41, &[38, SEQPACKET, 0]),
        ("vsock", 41, &[40, 1, 0]),
        ("packet socket", 41, &[17, RAW, 0]),
        ("CAN socket", 41, &[29, RAW, 1]),
        ("TIPC socket", 41, &[30, DGRAM, 0]),
        ("io_uring", 425, &[1, BAD]),
        ("bpf", 321, &[0, BAD, 48]),
        ("perf_event_open", 298, &[BAD, 0, BAD, BAD, 0]),
        ("keyring", 250, &[0, 0xffff_ffff_ffff_fffd, 0]),
        ("userfaultfd", 323, &[0]),
        ("splice", 275, &[BAD, 0, BAD, 0, 1, 0]),
        ("vmsplice", 278, &[BAD, BAD, 1, 0]),
    ];
    for (name, number, args) in calls {
        out.call(name, *number, args, attempt(LIMIT, *number, args));
    }
    let user = [0x1000_0000];
    let nf_tables = as_new_root(|| value(sys::call(41, &[16, RAW, NETFILTER])));
    out.call("nf_tables in a user namespace", 272, &user, nf_tables);
    let name = sys::path("tmpfs");
    let fsconfig = as_new_root(|| value(sys::call(430, &[name.as_ptr().expose_provenance(), 0])));
    out.call("fsconfig in a user namespace", 272, &user, fsconfig);
    let overlay = sys::path("overlay");
    let overlay = as_new_root(|| value(sys::call(430, &[overlay.as_ptr().expose_provenance(), 0])));
    out.call("overlay in a user namespace", 272, &user, overlay);
}
