//! Resource limits of a container's workload: the same whatever limits isolab was started with.

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Resource, soft limit, hard limit; nothing: unlimited.
type Limit = (Resource, Option<u64>, Option<u64>);

/// All that have an effect, but for the number of descriptors.
const LIMITS: [Limit; 13] = [
    // The host's handler of a crash would run outside of every limit. With 0 the kernel still starts one that is a program; with 1 it
    // starts none, and a file of 1 byte it does not write.
    (Resource::Core, Some(1), Some(1)),
    // The kernel's own for every program.
    (Resource::Stack, Some(8 << 20), None),
    (Resource::Memlock, Some(8 << 20), Some(8 << 20)),
    (Resource::Msgqueue, Some(819_200), Some(819_200)),
    // The kernel's own grows with the machine.
    (Resource::Sigpending, Some(4096), Some(4096)),
    // Nobody inside goes before others.
    (Resource::Nice, Some(0), Some(0)),
    (Resource::Rtprio, Some(0), Some(0)),
    // The cgroup and the sizes of the file systems limit these.
    (Resource::Cpu, None, None),
    (Resource::Rttime, None, None),
    (Resource::Nproc, None, None),
    (Resource::As, None, None),
    (Resource::Data, None, None),
    (Resource::Fsize, None, None),
];
/// Of descriptors: the usual numbers.
const DESCRIPTORS: (u64, u64) = (1024, 524_288);
/// Number of the limit of descriptors.
const NOFILE: u32 = 7;

/// Sets them for a child that waits, from outside: in its user namespace it may not raise what our parent lowered. Where we may not
/// either (without `CAP_SYS_RESOURCE`), what we have is the most.
///
/// # Errors
/// The child is gone.
pub(crate) fn set(pid: i32) -> Result<(), Errno> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    for (resource, soft, hard) in LIMITS {
        let set = |current, maximum| prlimit(Some(pid), resource, Rlimit { current, maximum });
        match set(soft, hard) {
            Err(Errno::PERM) => {
                let most = getrlimit(resource).maximum;
                set(least(soft, most), least(hard, most))
            }
            other => other,
        }?;
    }
    Ok(())
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

/// The limit of descriptors (number, soft, hard) for the child's workload to set itself: until then the child has a copy of our
/// table, which may hold more. Only what it may not raise is raised here.
pub(crate) fn descriptors(pid: i32) -> (u32, u64, u64) {
    let (soft, hard) = DESCRIPTORS;
    let own = getrlimit(Resource::Nofile);
    let raise = || {
        let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
        prlimit(Some(pid), Resource::Nofile, Rlimit { maximum: Some(hard), ..own })
    };
    match own.maximum.filter(|most| *most < hard) {
        Some(most) if raise().is_err() => (NOFILE, soft.min(most), most),
        _ => (NOFILE, soft, hard),
    }
}
