//! Marks: the moments of a run, as fixed records.
//!
//! In a container (and from the VMM process to its launcher) a mark is one [`Mark`] record of 16 bytes on a
//! pipe, so that the kernel delivers it whole (`PIPE_BUF`). In a guest it is one or two port writes: a 32-bit
//! `out` to [`VALUE_PORT`] where the value is not zero, then one byte, the code, to [`CODE_PORT`]; the VMM
//! stamps the exit with `CLOCK_MONOTONIC` and sends the record on.

/// I/O port of the mark code (8-bit `out`).
pub const CODE_PORT: u16 = 0x510;
/// I/O port of the value that belongs to the next code (32-bit `out`); read once, then zero again.
pub const VALUE_PORT: u16 = 0x514;
/// First port and number of ports of the mark device, for `ioperm(2)`.
pub const PORTS: (u16, u16) = (CODE_PORT, 8);

/// Bytes of a record.
pub const RECORD_LEN: usize = 16;

/// Value of [`Code::Ready`] from a workload that waits for its release.
pub const HOLDS: u32 = 1;

/// Which moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Code {
    /// The launcher is about to start the instance: just before `clone3`, or the first `KVM_RUN`. By the host.
    RunBegin = b'B',
    /// Process 1 runs its first instruction. In a container it is told together with [`Code::Exec`], so that the launcher wakes
    /// once; where a step before that fails, not at all.
    Init = b'I',
    /// `execve` of the workload is about to be called, at every level; where it fails, [`Code::Failed`] follows. Written
    /// before the call so that it always comes before [`Code::Work`].
    Exec = b'E',
    /// First instruction of `isolab-work`.
    Work = b'W',
    /// The workload says that it is ready. Value [`HOLDS`]: it goes on when it is released ([`crate::RELEASE`]).
    Ready = b'R',
    /// The ready workload was released: its account has been read. By the host.
    Released = b'C',
    /// A [`crate::trace::Subphase`] of process 1 ended; the value is its number. Told with the last mark.
    Subphase = b'P',
    /// RAM that the kernel inside says there is, in KiB, when the workload has ended: a claim. Told with the last mark.
    Ram = b'M',
    /// As [`Code::Ram`]: RAM that it says is free.
    FreeRam = b'N',
    /// Process 1 of a guest waits for its job, with everything prepared that each job needs. Only the VMM that makes a template
    /// listens to it: this is the moment that is stored.
    Template = b'T',
    /// The workload ended; value is [`Exit`] encoded. The last mark of an instance.
    Exit = b'X',
    /// A step failed; value is [`Failure`] encoded. The workload never ran; no [`Code::Exit`] follows.
    Failed = b'F',
}

impl Code {
    /// Whether only the host may say it: from inside it would be a lie.
    #[must_use]
    pub const fn is_of_host(self) -> bool {
        matches!(self, Self::RunBegin | Self::Released)
    }

    /// The code of a byte, or nothing for a byte that means nothing.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            b'B' => Self::RunBegin,
            b'I' => Self::Init,
            b'E' => Self::Exec,
            b'W' => Self::Work,
            b'R' => Self::Ready,
            b'C' => Self::Released,
            b'P' => Self::Subphase,
            b'M' => Self::Ram,
            b'N' => Self::FreeRam,
            b'T' => Self::Template,
            b'X' => Self::Exit,
            b'F' => Self::Failed,
            _ => return None,
        })
    }
}

/// What a stamp counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Clock {
    /// Nothing: stamp it where it arrives.
    None = 0,
    /// Nanoseconds of the host's `CLOCK_MONOTONIC`.
    Monotonic = 1,
    /// The host's time stamp counter.
    Tsc = 2,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which moment.
    pub code: Code,
    /// What `stamp` counts.
    pub clock: Clock,
    /// Exit status or failure, else 0.
    pub value: u32,
    /// When, in units of `clock`.
    pub stamp: u64,
}

impl Mark {
    /// The record's bytes: code, clock, two zeros, value, stamp; little endian.
    #[must_use]
    pub const fn encode(&self) -> [u8; RECORD_LEN] {
        let value = self.value.to_le_bytes();
        let stamp = self.stamp.to_le_bytes();
        [
            self.code as u8,
            self.clock as u8,
            0,
            0,
            value[0],
            value[1],
            value[2],
            value[3],
            stamp[0],
            stamp[1],
            stamp[2],
            stamp[3],
            stamp[4],
            stamp[5],
            stamp[6],
            stamp[7],
        ]
    }

    /// Reads a record; nothing for bytes that are not one.
    #[must_use]
    pub const fn decode(b: &[u8; RECORD_LEN]) -> Option<Self> {
        let Some(code) = Code::from_byte(b[0]) else { return None };
        let clock = match b[1] {
            0 => Clock::None,
            1 => Clock::Monotonic,
            2 => Clock::Tsc,
            _ => return None,
        };
        if b[2] != 0 || b[3] != 0 {
            return None;
        }
        let value = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
        let stamp = u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]);
        Some(Self { code, clock, value, stamp })
    }
}

/// How the workload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `_exit` with this code.
    Code(u8),
    /// Death by this signal.
    Signal(u8),
}

impl Exit {
    /// As the value of a mark: code in bits 0..8, signal in bits 8..16.
    #[must_use]
    pub const fn encode(self) -> u32 {
        match self {
            Self::Code(code) => code as u32,
            Self::Signal(signal) => (signal as u32) << 8,
        }
    }

    /// From the value of a mark; nothing for values that [`Exit::encode`] never makes.
    #[must_use]
    pub const fn decode(value: u32) -> Option<Self> {
        let [code, signal, 0, 0] = value.to_le_bytes() else { return None };
        match (code, signal) {
            (code, 0) => Some(Self::Code(code)),
            (0, signal) if signal < 128 => Some(Self::Signal(signal)),
            _ => None,
        }
    }

    /// The shell's convention: the code, or 128 + signal.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128_u8.saturating_add(signal),
        }
    }
}

/// The step of init that failed. New steps go to the end: the numbers travel between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Step {
    /// Read and check the job block.
    Job = 1,
    /// Load a kernel module of the initramfs.
    Modules = 2,
    /// Open the console ports or inherited descriptors.
    Channels = 3,
    /// Mount the image as the lower layer.
    Lower = 4,
    /// Mount the overlay and its tmpfs.
    Overlay = 5,
    /// Mount /proc, /sys, /dev and their parts (a symlink or file at a mount point fails here).
    Mounts = 6,
    /// `pivot_root` or switch of root.
    Root = 7,
    /// Mask or write-protect kernel paths.
    Masks = 8,
    /// Set the host name.
    Hostname = 9,
    /// Set a resource limit.
    Limits = 10,
    /// Set groups, group and user.
    User = 11,
    /// Drop capabilities, set `no_new_privs`.
    Privileges = 12,
    /// Install the seccomp filter.
    Seccomp = 13,
    /// Enter the working directory.
    Workdir = 14,
    /// Make the terminal.
    Terminal = 15,
    /// Start the workload's process.
    Fork = 16,
    /// Execute the command (`ENOENT`: status 127; any other error: 126).
    Exec = 17,
    /// Isolab's own child before init: join the cgroup, take the mapped ids, place descriptors.
    Prepare = 18,
    /// Isolab's own child: make its namespaces.
    Namespaces = 19,
    /// Continue from a template: random numbers, wall clock, a job that fits.
    Restore = 20,
}

impl Step {
    /// The step of a number.
    #[must_use]
    pub const fn from_number(n: u16) -> Option<Self> {
        Some(match n {
            1 => Self::Job,
            2 => Self::Modules,
            3 => Self::Channels,
            4 => Self::Lower,
            5 => Self::Overlay,
            6 => Self::Mounts,
            7 => Self::Root,
            8 => Self::Masks,
            9 => Self::Hostname,
            10 => Self::Limits,
            11 => Self::User,
            12 => Self::Privileges,
            13 => Self::Seccomp,
            14 => Self::Workdir,
            15 => Self::Terminal,
            16 => Self::Fork,
            17 => Self::Exec,
            18 => Self::Prepare,
            19 => Self::Namespaces,
            20 => Self::Restore,
            _ => return None,
        })
    }
}

/// A failed step with its error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which step.
    pub step: Step,
    /// `errno`; 0 where none applies.
    pub errno: u16,
}

impl Failure {
    /// As the value of a mark.
    #[must_use]
    pub const fn encode(self) -> u32 {
        (self.step as u32) << 16 | self.errno as u32
    }

    /// From the value of a mark.
    #[must_use]
    pub const fn decode(value: u32) -> Option<Self> {
        let [e0, e1, s0, s1] = value.to_le_bytes();
        let Some(step) = Step::from_number(u16::from_le_bytes([s0, s1])) else { return None };
        Some(Self { step, errno: u16::from_le_bytes([e0, e1]) })
    }
}
