//! The mount plan as data: what is mounted where, and why.

use core::ffi::CStr;

use isolab_bare::sys::mount::flag::{NODEV, NOEXEC, NOSUID, RDONLY};

/// Where an entry applies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Container and guest.
    Both,
    /// Guest only.
    Guest,
}

/// Options of a file system.
#[derive(Clone, Copy)]
pub(crate) enum Options {
    /// None.
    No,
    /// These.
    Fixed(&'static CStr),
    /// These; without the second list, where the kernel refuses it (a group that is not mapped).
    Either(&'static CStr, &'static CStr),
    /// These, `,size=` with the job's limit and `,nr_inodes=` with what goes with it.
    Sized(&'static str),
}

/// One mount.
pub(crate) struct Mount {
    /// Name of the mount point.
    pub(crate) at: &'static CStr,
    /// File system.
    pub(crate) fs: &'static CStr,
    /// Flags.
    pub(crate) flags: usize,
    /// Options.
    pub(crate) options: Options,
    /// Levels.
    pub(crate) level: Level,
}

/// Mounts on directories of the image, which must be real directories there.
pub(crate) static ON_IMAGE: [Mount; 3] = [
    // The whole of /proc: programs read meminfo, mounts and self; what tells of the host is masked.
    Mount {
        at: c"proc",
        fs: c"proc",
        flags: NOSUID | NODEV | NOEXEC,
        options: Options::No,
        level: Level::Both,
    },
    // Only a guest has a kernel of its own to show. A container would see the host's devices.
    Mount {
        at: c"sys",
        fs: c"sysfs",
        flags: RDONLY | NOSUID | NODEV | NOEXEC,
        options: Options::No,
        level: Level::Guest,
    },
    // Our own, so that no device of the host or the image is in it but `NODES`.
    Mount {
        at: c"dev",
        fs: c"tmpfs",
        flags: NOSUID | NOEXEC,
        options: Options::Fixed(c"mode=755,size=64k,nr_inodes=64"),
        level: Level::Both,
    },
];

/// On a root without a writable layer, where the image has a real directory for it: programs expect to write there.
pub(crate) static TEMPORARY: Mount = Mount {
    at: c"tmp",
    fs: c"tmpfs",
    flags: NOSUID | NODEV,
    options: Options::Sized("mode=1777"),
    level: Level::Both,
};

/// Mounts below our own /dev.
pub(crate) static ON_DEV: [Mount; 2] = [
    // An instance of its own: terminals of the host are out of reach. Group 5 is `tty` everywhere.
    Mount {
        at: c"pts",
        fs: c"devpts",
        flags: NOSUID | NOEXEC,
        options: Options::Either(
            c"newinstance,ptmxmode=0666,mode=0620,gid=5",
            c"newinstance,ptmxmode=0666,mode=0620",
        ),
        level: Level::Both,
    },
    // POSIX shared memory.
    Mount {
        at: c"shm",
        fs: c"tmpfs",
        flags: NOSUID | NODEV | NOEXEC,
        options: Options::Sized("mode=1777"),
        level: Level::Both,
    },
];

/// A device: name below /dev, the host's own path of it, major, minor.
pub(crate) type Node = (&'static CStr, &'static CStr, u32, u32);

/// Where below /dev the image's own, read-only mount is seen.
pub(crate) static IMAGE: &CStr = c".image";

/// The devices that every program may expect, none of which reaches hardware.
pub(crate) static NODES: [Node; 6] = [
    (c"null", c"/dev/null", 1, 3),
    (c"zero", c"/dev/zero", 1, 5),
    (c"full", c"/dev/full", 1, 7),
    (c"random", c"/dev/random", 1, 8),
    (c"urandom", c"/dev/urandom", 1, 9),
    (c"tty", c"/dev/tty", 5, 0),
];

/// Links below /dev.
pub(crate) static LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// Hidden in a container: they tell of the host or of its hardware (Docker's list of 2026). What this kernel does not
/// have is left out. These files become /dev/null.
pub(crate) static MASKED_FILES: [&CStr; 7] = [
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/latency_stats",
    c"/proc/sched_debug",
    c"/proc/timer_list",
    c"/proc/timer_stats",
];

/// Hidden like the files; these directories become empty ones.
pub(crate) static MASKED_DIRS: [&CStr; 5] =
    [c"/proc/acpi", c"/proc/asound", c"/proc/scsi", c"/sys/devices/virtual/powercap", c"/sys/firmware"];

/// Write-protected in a container: settings of the shared kernel, and what has it watch for pressure in a thread of its own.
pub(crate) static PROTECTED: [&CStr; 6] =
    [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/pressure", c"/proc/sys", c"/proc/sysrq-trigger"];
