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

/// What the device thread needs besides: disk, streams and random numbers.
pub(crate) const OF_DEVICES: &[i64] = &[
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_getrandom,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_lseek,
    // The allocator's.
    libc::SYS_sched_getaffinity,
];

/// And where a template is made: to interrupt the processors.
pub(crate) const OF_TEMPLATES: &[i64] = &[libc::SYS_rt_sigaction];

/// To start the processors' threads, and to confine each thread further: gone when the guest runs.
pub(crate) const TO_START: &[i64] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prctl,
    libc::SYS_seccomp,
];

/// Kinds of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first one, which all threads have below their own. The kernel asks a filter about every number there is when it is
    /// installed, and the next one only about those that the first allows: so it is cheaper than a whole filter for each thread.
    Start,
    /// Of a thread that runs a processor of the guest.
    Processor,
    /// Of the thread that serves the devices.
    Devices,
    /// The same where a template is made of the guest: its state is read out of KVM.
    TemplatesDevices,
}

impl Kind {
    /// Its calls.
    pub(crate) fn calls(self) -> Vec<i64> {
        match self {
            Self::Start => [OF_PROCESSOR, OF_DEVICES, OF_TEMPLATES, TO_START].concat(),
            Self::Processor => OF_PROCESSOR.to_vec(),
            Self::Devices => [OF_PROCESSOR, OF_DEVICES].concat(),
            Self::TemplatesDevices => [OF_PROCESSOR, OF_DEVICES, OF_TEMPLATES].concat(),
        }
    }
}

/// Stands in the compiled filters for the number of the process that they are for.
pub(crate) const OWN_PROCESS: u32 = 0x8015_01ab;

/// Type of KVM's requests, in bits 8 to 15 (`KVMIO`).
const KVM: u32 = 0xae;

/// Under which arguments such a call is allowed: where an argument has this value in these bits, for any of these; all where there
/// are none.
pub(crate) fn conditions(kind: Kind, call: i64) -> &'static [(u32, u32, u32)] {
    const ALL: u32 = u32::MAX;
    const FIONREAD: u32 = 0x541b;
    const KVM_RUN: u32 = 0xae80;
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
        libc::SYS_ioctl => match kind {
            Kind::Processor => &[(1, ALL, KVM_RUN), (1, ALL, FIONREAD)],
            Kind::Devices => &[(1, ALL, FIONREAD)],
            Kind::Start | Kind::TemplatesDevices => &[(1, 0xff00, KVM << 8), (1, ALL, FIONREAD)],
        },
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
        libc::SYS_tgkill => &[(0, ALL, OWN_PROCESS)],
        _ => &[],
    }
}
