//! Which system calls are left to which thread. Also read by `build.rs`.

/// What a processor's thread needs: the guest, its marks, the locks of devices, memory of the allocator, and its own end.
pub(crate) const OF_PROCESSOR: &[i64] = &[
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
pub(crate) const OF_DEVICES: &[i64] = &[
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

/// Type of KVM's requests, in bits 8 to 15 (`KVMIO`).
const KVM: u32 = 0xae;

/// Under which arguments such a call is allowed: where an argument has this value in these bits, for any of these; all where there
/// are none.
pub(crate) fn conditions(call: i64) -> &'static [(u32, u32, u32)] {
    const ALL: u32 = u32::MAX;
    const FIONREAD: u32 = 0x541b;
    const PROT_EXEC: u32 = 4;
    const PR_SET_NAME: u32 = 15;
    const PR_SET_NO_NEW_PRIVS: u32 = 38;
    const F_GETFL: u32 = 3;
    const MADV_DONTNEED: u32 = 4;
    const MADV_HUGEPAGE: u32 = 14;
    // Linux 6.13.
    const MADV_GUARD_INSTALL: u32 = 102;
    const MADV_GUARD_REMOVE: u32 = 103;
    match call {
        libc::SYS_ioctl => &[(1, 0xff00, KVM << 8), (1, ALL, FIONREAD)],
        libc::SYS_mmap | libc::SYS_mprotect => &[(2, PROT_EXEC, 0)],
        libc::SYS_prctl => &[(0, ALL, PR_SET_NAME), (0, ALL, PR_SET_NO_NEW_PRIVS)],
        // Reported pages, and the allocator's, which an environment (GLIBC_TUNABLES) can have ask for large ones; and the guard
        // pages with which newer C libraries (glibc 2.42) begin a thread's stack.
        libc::SYS_madvise => &[
            (2, ALL, MADV_DONTNEED),
            (2, ALL, MADV_HUGEPAGE),
            (2, ALL, MADV_GUARD_INSTALL),
            (2, ALL, MADV_GUARD_REMOVE),
        ],
        libc::SYS_fcntl => &[(1, ALL, F_GETFL)],
        _ => &[],
    }
}
