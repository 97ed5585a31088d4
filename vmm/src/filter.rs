//! The system calls that are left to the monitor's threads once the guest may run. Whoever gets into one of them through a device
//! finds no other: any other call ends the process. No new program, no file, no socket, no memory that can be executed.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// A filter can't be made or installed.
#[derive(Debug, thiserror::Error)]
#[error("confine the monitor's system calls: {0}")]
pub struct FilterError(String);

/// What a processor's thread needs: the guest, its marks, the locks of devices, memory of the allocator, and its own end.
const OF_PROCESSOR: &[i64] = &[
    libc::SYS_ioctl,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_pread64,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_close,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What the device thread needs besides: disk, streams, random numbers, and to start the processors' threads, which it confines
/// further.
const OF_DEVICES: &[i64] = &[
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_getrandom,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_prctl,
    libc::SYS_seccomp,
];

/// One thread's filter.
#[derive(Clone, Debug)]
pub(crate) struct Filter(BpfProgram);

impl Filter {
    /// Of the device thread, and of the threads that it starts.
    pub(crate) fn of_devices() -> Result<Self, FilterError> {
        Self::new(OF_PROCESSOR.iter().chain(OF_DEVICES), SeccompAction::KillProcess)
    }

    /// Of a processor's thread, which has that one already.
    pub(crate) fn of_processor() -> Result<Self, FilterError> {
        Self::new(OF_PROCESSOR.iter(), SeccompAction::KillProcess)
    }

    fn new<'a>(calls: impl Iterator<Item = &'a i64>, otherwise: SeccompAction) -> Result<Self, FilterError> {
        let failed = |e: seccompiler::BackendError| FilterError(e.to_string());
        let mut rules = BTreeMap::new();
        for call in calls {
            rules.insert(*call, conditions(*call).map_err(failed)?);
        }
        let filter = SeccompFilter::new(rules, otherwise, SeccompAction::Allow, TargetArch::x86_64);
        Ok(Self(filter.and_then(TryInto::try_into).map_err(failed)?))
    }

    /// Confines the calling thread.
    pub(crate) fn apply(&self) -> Result<(), FilterError> {
        seccompiler::apply_filter(&self.0).map_err(|e| FilterError(e.to_string()))
    }
}

/// Under which arguments a call is allowed: any of these; all arguments where there are none.
fn conditions(call: i64) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    /// Type of KVM's requests, in bits 8 to 15.
    const KVM: u64 = kvm_bindings::KVMIO as u64;
    /// Linux 6.13.
    const MADV_GUARD_INSTALL: u64 = 102;
    const MADV_GUARD_REMOVE: u64 = 103;
    let bits = SeccompCmpOp::MaskedEq;
    let allowed: &[(u8, SeccompCmpOp, u64)] = match call {
        libc::SYS_ioctl => &[(1, bits(0xff00), KVM << 8), (1, SeccompCmpOp::Eq, libc::FIONREAD)],
        libc::SYS_mmap | libc::SYS_mprotect => &[(2, bits(libc::PROT_EXEC as u64), 0)],
        libc::SYS_prctl => &[
            (0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64),
            (0, SeccompCmpOp::Eq, libc::PR_SET_NO_NEW_PRIVS as u64),
        ],
        // Reported pages, and the allocator's; and the guard pages with which newer C libraries (glibc 2.42) begin a thread's stack.
        libc::SYS_madvise => &[
            (2, SeccompCmpOp::Eq, libc::MADV_DONTNEED as u64),
            (2, SeccompCmpOp::Eq, MADV_GUARD_INSTALL),
            (2, SeccompCmpOp::Eq, MADV_GUARD_REMOVE),
        ],
        libc::SYS_fcntl => &[(1, SeccompCmpOp::Eq, libc::F_GETFL as u64)],
        _ => &[],
    };
    let rule = |(argument, compared, value): &(u8, SeccompCmpOp, u64)| {
        let condition = SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, compared.clone(), *value)?;
        SeccompRule::new(vec![condition])
    };
    allowed.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, UdpSocket};
    use std::process::Command;
    use std::thread;

    use rustix::io::{Errno, FdFlags};
    use vm_memory::mmap::MmapRegionError;
    use vm_memory::{GuestAddress, MmapRegion};

    use super::*;
    use crate::sys;

    /// In a thread with these calls, of which the others fail instead of ending the tests.
    fn confined<T: Send + 'static>(calls: &'static [&[i64]], body: impl FnOnce() -> T + Send + 'static) -> T {
        let refuse = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
        let filter = Filter::new(calls.iter().copied().flatten(), refuse).unwrap();
        let thread = thread::spawn(move || {
            filter.apply().unwrap();
            body()
        });
        thread.join().unwrap()
    }

    fn map(protection: i32) -> std::io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        match MmapRegion::<()>::build(None, 4096, protection, flags) {
            Ok(_) => Ok(()),
            Err(MmapRegionError::Mmap(e)) => Err(e),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn no_file_no_program_no_socket_and_no_code_for_any_thread() {
        for calls in [&[OF_PROCESSOR][..], &[OF_PROCESSOR, OF_DEVICES]] {
            confined(calls, || {
                let refused = [
                    File::open("/dev/null").map(drop),
                    TcpListener::bind("127.0.0.1:0").map(drop),
                    UdpSocket::bind("127.0.0.1:0").map(drop),
                    Command::new("/bin/true").status().map(drop),
                    std::fs::remove_file("/nonexistent"),
                    std::os::unix::fs::chroot("/"),
                    map(libc::PROT_READ | libc::PROT_EXEC),
                ];
                for result in refused {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
                }
                map(libc::PROT_READ | libc::PROT_WRITE).unwrap();
            });
        }
    }

    #[test]
    fn of_requests_to_devices_only_those_to_kvm_pass() {
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(b"abc").unwrap();
        confined(&[OF_PROCESSOR, OF_DEVICES], move || {
            assert_eq!(rustix::io::ioctl_fionread(&read), Ok(3));
            assert_eq!(rustix::io::ioctl_fionbio(&read, true), Err(Errno::PERM));
            assert_eq!(rustix::io::fcntl_setfd(&read, FdFlags::empty()), Err(Errno::PERM));
        });
    }

    #[test]
    fn of_advice_on_memory_only_that_it_can_go_passes() {
        let ram = crate::memory::map(1 << 20).unwrap();
        confined(&[OF_PROCESSOR, OF_DEVICES], move || {
            sys::discard(&ram, GuestAddress(0), 0x1000).unwrap();
            // Core dumps, merging, huge pages.
            assert_eq!(sys::advise_ram(&ram).unwrap_err().kind(), ErrorKind::PermissionDenied);
        });
    }

    #[test]
    fn a_processors_thread_starts_no_other() {
        let spawned = confined(&[OF_PROCESSOR], || thread::Builder::new().spawn(|| ()).map(drop));
        assert_eq!(spawned.unwrap_err().kind(), ErrorKind::PermissionDenied);
        let spawned = confined(&[OF_PROCESSOR, OF_DEVICES], || thread::spawn(|| 7).join().unwrap());
        assert_eq!(spawned, 7);
    }
}
