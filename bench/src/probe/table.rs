//! The published table: what each probe asks, how, and what comes out at each level of isolab's default configuration. The one
//! place of it: runs are judged by it, and `docs/probe.md` is compared with it.

use super::Outcome;

/// The published outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Reached (or there is nothing to reach on this machine).
    Reached,
    /// Blocked (or there is nothing to reach on this machine).
    Blocked,
    /// There is nothing that it could mean at this level.
    NotApplicable,
    /// It depends on the machine: reported, not judged.
    Any,
}

impl Expected {
    /// As an outcome; nothing where it is only reported.
    #[must_use]
    pub const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Reached => Some(Outcome::Reached),
            Self::Blocked => Some(Outcome::Blocked),
            Self::NotApplicable => Some(Outcome::NotApplicable),
            Self::Any => None,
        }
    }
}

/// What is published for a cell.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// The outcome.
    pub outcome: Expected,
    /// The items that may be reached, and no others; nothing: any where it is reached, none where it is blocked.
    pub items: Option<&'static [&'static str]>,
    /// What it means. "yes" at its beginning: that it is reached is of the processor, which all share, and so of no kernel.
    pub means: &'static str,
}

impl Expect {
    /// Whether what is reached belongs to the guest's own kernel where the level has one.
    #[must_use]
    pub fn is_of_the_kernel(&self) -> bool {
        !self.means.starts_with("yes")
    }
}

/// A probe.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its id.
    pub id: &'static str,
    /// Its name.
    pub title: &'static str,
    /// What it asks.
    pub question: &'static str,
    /// How it finds out.
    pub method: &'static str,
    /// Published for each level: process, container, vm.
    pub levels: [Expect; 3],
}

impl Row {
    /// What is published for a level; of one that is not in the table nothing.
    #[must_use]
    pub fn at(&self, level: &str) -> Expect {
        let [process, container, vm] = self.levels;
        match level {
            "process" => process,
            "container" => container,
            "vm" => vm,
            _ => Expect { outcome: Expected::Any, items: None, means: "not in the published table" },
        }
    }
}

/// The row of an id.
#[must_use]
pub fn row(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.id == id)
}

const fn host(means: &'static str) -> Expect {
    Expect { outcome: Expected::Reached, items: None, means }
}

const fn blocked(means: &'static str) -> Expect {
    Expect { outcome: Expected::Blocked, items: None, means }
}

const fn reached(items: &'static [&'static str], means: &'static str) -> Expect {
    Expect { outcome: Expected::Reached, items: Some(items), means }
}

const fn any(means: &'static str) -> Expect {
    Expect { outcome: Expected::Any, items: None, means }
}

const NONE: Expect = Expect { outcome: Expected::NotApplicable, items: None, means: "asks about a guest" };

const NOT_RUN: Expect =
    Expect { outcome: Expected::NotApplicable, items: None, means: "not run: it has no limits" };

/// All probes; those that begin with D only with `--stress`.
pub const ROWS: &[Row] = &[
    Row {
        id: "P01",
        title: "kernel identity",
        question: "Is it the host's kernel that answers?",
        method: "uname, /proc/version, boot_id and boot time, compared with the host's",
        levels: [host("the host's"), host("the host's: shared by design"), blocked("a kernel of its own")],
    },
    Row {
        id: "P02",
        title: "hypervisor name",
        question: "Does the processor name the hypervisor that the host sees?",
        method: "CPUID leaf 0x40000000, compared with the host's",
        levels: [
            host("the host's"),
            host("the host's: one processor"),
            blocked("what isolab's monitor says"),
        ],
    },
    Row {
        id: "P03",
        title: "kernel command line",
        question: "Can the host's kernel command line be read?",
        method: "/proc/cmdline, compared with the host's",
        levels: [
            host("the host's"),
            reached(&["command line"], "the host's: procfs has one for all"),
            blocked("the guest's own"),
        ],
    },
    Row {
        id: "P04",
        title: "kernel addresses",
        question: "Are addresses of the kernel, or its memory, shown?",
        method: "addresses other than 0 in kallsyms, modules and iomem; the head of kcore",
        levels: [
            host("the host's policy for root"),
            blocked("zeroed or masked"),
            reached(&["kallsyms", "modules", "iomem", "kcore"], "the guest's own"),
        ],
    },
    Row {
        id: "P05",
        title: "kernel log",
        question: "Can the kernel's messages be read?",
        method: "syslog(2) asking for the size of the buffer; /dev/kmsg opened",
        levels: [
            host("the host's"),
            blocked("by the filter; no such node"),
            reached(&["syslog", "/dev/kmsg"], "the guest's own"),
        ],
    },
    Row {
        id: "P06",
        title: "system calls",
        question: "Which system calls get through?",
        method: "each number below 512 in a child of its own, with arguments that fail after the checks; in the container compared \
                 number by number with the filter's table",
        levels: [
            host("all that the kernel has"),
            reached(&["allowed calls"], "exactly the filter's table, into the host's kernel"),
            reached(&["allowed calls"], "all that the guest's own kernel has"),
        ],
    },
    Row {
        id: "P07",
        title: "other call tables",
        question: "Do the 32-bit and x32 tables answer?",
        method: "getpid by int 0x80 and by an x32 number, each in a child",
        levels: [
            host("as the kernel was built"),
            blocked("killed or unknown, by the filter"),
            any("as the guest's kernel was built"),
        ],
    },
    Row {
        id: "P08",
        title: "privileges",
        question: "Does root inside have privileges?",
        method: "the five capability sets, securebits, no_new_privs and filter mode of the own process",
        levels: [
            host("isolab's own"),
            blocked("no capability in any set, no_new_privs, a filter"),
            reached(
                &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "securebits"],
                "all, over the guest's own kernel",
            ),
        ],
    },
    Row {
        id: "P09",
        title: "gained rights",
        question: "Does a program gain rights when it is executed?",
        method: "executes itself as nobody, from a file without a name that is root's and set-user-id, and from one with a capability: in \
                 /tmp, in /dev/shm, and on a file system that it mounts itself",
        levels: [
            host("root may mount a file system on which they count"),
            blocked("no mount on which they count, and none can be made"),
            reached(
                &["set-user-id on a mount of its own", "file capability on a mount of its own"],
                "by the guest's root; not on the mounts that it is given",
            ),
        ],
    },
    Row {
        id: "P10",
        title: "new namespaces",
        question: "Can namespaces be made?",
        method: "unshare and clone with each flag, and clone3, in children",
        levels: [
            host("every kind"),
            blocked("by the filter"),
            reached(
                &[
                    "unshare time",
                    "unshare mount",
                    "clone mount",
                    "unshare cgroup",
                    "clone cgroup",
                    "unshare uts",
                    "clone uts",
                    "unshare ipc",
                    "clone ipc",
                    "unshare user",
                    "clone user",
                    "unshare pid",
                    "clone pid",
                    "unshare net",
                    "clone net",
                    "clone3 user",
                ],
                "in the guest's own kernel",
            ),
        ],
    },
    Row {
        id: "P11",
        title: "socket families",
        question: "Which families of sockets can be made?",
        method: "socket(2) for 22 families and up to four types each; nothing is done with the socket",
        levels: [
            host("all that the kernel has"),
            reached(&["unix", "inet", "inet6", "netlink"], "these four, in an empty network namespace"),
            Expect { outcome: Expected::Reached, items: None, means: "in the guest's own kernel" },
        ],
    },
    Row {
        id: "P12",
        title: "far-reaching calls",
        question: "Are calls allowed that reach beyond a process?",
        method: "38 calls (bpf, io_uring, keyrings, mounts, modules, kexec, ptrace of a child, ...) that fail after the checks",
        levels: [
            host("isolab's own rights"),
            blocked("by the filter"),
            Expect { outcome: Expected::Reached, items: None, means: "in the guest's own kernel" },
        ],
    },
    Row {
        id: "P13",
        title: "devices",
        question: "Are there device nodes beyond the harmless, or can some be made?",
        method: "lists /dev; opens nine nodes behind which there is more; mknod of 1:3 and 8:0, removed again",
        levels: [
            host("the host's /dev"),
            blocked("null zero full random urandom tty ptmx, and none can be made"),
            reached(&["mknod null", "mknod disk"], "nodes can be made, for the guest's own devices"),
        ],
    },
    Row {
        id: "P14",
        title: "host-wide numbers",
        question: "Are the host's own numbers shown?",
        method: "values of files in /proc, each between or equal to those that the host read before and after",
        levels: [
            host("the host's"),
            reached(
                &[
                    "meminfo",
                    "stat",
                    "uptime",
                    "loadavg",
                    "vmstat",
                    "softirqs",
                    "diskstats",
                    "partitions",
                    "schedstat",
                    "pressure",
                    "modules",
                    "input devices",
                ],
                "known leaks: procfs has one of these for all; interrupts, timers and keys are masked",
            ),
            blocked("none of the host's"),
        ],
    },
    Row {
        id: "P15",
        title: "kernel settings",
        question: "Can settings of the kernel be written?",
        method: "opens everything below /proc/sys, and eight more files, for writing; writes nothing",
        levels: [
            host("the host's"),
            blocked("they belong to the host's root, below read-only mounts"),
            reached(
                &[
                    "/proc/sys",
                    "/proc/sysrq-trigger",
                    "/proc/sys/kernel/core_pattern",
                    "/proc/sys/kernel/modprobe",
                    "/proc/mtrr",
                    "/proc/irq/default_smp_affinity",
                    "/proc/sys/fs/binfmt_misc/register",
                ],
                "the guest's own",
            ),
        ],
    },
    Row {
        id: "P16",
        title: "sensors",
        question: "Can energy, temperature or frequency be read?",
        method: "looks for powercap, thermal, hwmon, cpufreq and msr",
        levels: [host("the host's, where it has some"), blocked("no sysfs"), blocked("a guest has none")],
    },
    Row {
        id: "P17",
        title: "disks and mounts",
        question: "Are the host's disks and mounts shown?",
        method: "sources in the mount tables of the own process and of process 1, /sys/block and disk ids, compared with the host's",
        levels: [host("the host's"), blocked("none of the host's"), blocked("none of the host's")],
    },
    Row {
        id: "P18",
        title: "other processes' insides",
        question: "Can roots, programs, memory and environments of other processes be seen?",
        method: "links and files of /proc/1; searches all environments for the planted variable",
        levels: [
            host("the host's processes"),
            blocked("process 1 is closed, the host's are not there"),
            reached(
                &[
                    "/proc/1/root",
                    "/proc/1/cwd",
                    "/proc/1/exe",
                    "/proc/1/fd/0",
                    "/proc/1/environ",
                    "/proc/1/maps",
                    "/proc/1/mem",
                ],
                "the guest's own process 1",
            ),
        ],
    },
    Row {
        id: "P19",
        title: "inheritance",
        question: "Does the program inherit anything but its streams and the job's environment?",
        method: "open descriptors, names in the environment, ignored signals; isolab itself has more of the first two, open for inheritance",
        levels: [blocked("nothing: so it is at every level"), blocked("nothing"), blocked("nothing")],
    },
    Row {
        id: "P20",
        title: "shared kernel objects",
        question: "Are IPC, abstract sockets or namespaces shared with the host?",
        method: "planted System V and POSIX memory and abstract socket; namespace ids compared with the host's",
        levels: [
            host("all but the mount namespace"),
            reached(
                &["time namespace"],
                "the host's clock offsets only: a container has no time namespace of its own",
            ),
            blocked("another kernel's"),
        ],
    },
    Row {
        id: "P21",
        title: "processes",
        question: "Can the host's processes be seen or signalled?",
        method: "searches /proc for the planted process, sends it signal 0; counts processes that are not this run's",
        levels: [
            host("all of them"),
            blocked("a pid namespace of its own"),
            reached(&["other processes"], "the guest's own kernel threads"),
        ],
    },
    Row {
        id: "P22",
        title: "cgroups",
        question: "Is the cgroup's place shown, and could it be changed?",
        method: "/proc/self/cgroup, mounted cgroup file systems, their process lists and release agents opened for writing",
        levels: [host("the host's"), blocked("its own root, none mounted"), blocked("none mounted")],
    },
    Row {
        id: "P23",
        title: "image is read-only",
        question: "Can the image be changed?",
        method: "makes a file in the image's own mount, also after trying to remount it; opens the host's image file for writing",
        levels: [
            host("the host's file, by the rights of isolab's user"),
            blocked("a read-only file system without a way to remount it"),
            blocked("a read-only file system on a read-only disk"),
        ],
    },
    Row {
        id: "P24",
        title: "room to write",
        question: "Is there a place to write without isolab's limit?",
        method: "each writable mount's size, against the limit of the job",
        levels: [
            host("the host's shared memory"),
            blocked("each has its limit"),
            blocked("each has its limit"),
        ],
    },
    Row {
        id: "P25",
        title: "ways out of the root",
        question: "Is there a way to the host's root directory?",
        method: "the parent of the root, the chroot trick, the planted file through other processes' roots",
        levels: [host("through the host's processes"), blocked("none"), blocked("none")],
    },
    Row {
        id: "P26",
        title: "isolab's own program",
        question: "Can the host's isolab, or the program of process 1, be reached?",
        method: "device and inode of every /proc/*/exe; that of process 1 opened for writing",
        levels: [
            host("the host's"),
            blocked("process 1 is a sealed copy, and closed"),
            reached(&["program of process 1"], "the guest's own init"),
        ],
    },
    Row {
        id: "P27",
        title: "network",
        question: "Is there a network, or the host's loopback?",
        method: "connects to the planted port of 127.0.0.1; lists interfaces and routes. No other address is tried",
        levels: [host("the host's"), blocked("an empty network namespace"), blocked("no network device")],
    },
    Row {
        id: "P28",
        title: "sockets of daemons",
        question: "Are there sockets of the host's daemons in the file system?",
        method: "connects to the planted socket file; looks for sockets below the root",
        levels: [host("through the host's processes"), blocked("none"), blocked("none")],
    },
    Row {
        id: "P29",
        title: "names of secrets",
        question: "Are there variables or files named as secrets are, which the job did not bring?",
        method: "looks for ten parts of names in all environments and for 18 files below all roots, and for the planted ones; what the \
                 job's configuration and the image give is counted only, values are never told",
        levels: [
            host("the host's processes and files"),
            blocked("what the job and its image give"),
            blocked("what the job and its image give"),
        ],
    },
    Row {
        id: "P30",
        title: "faked terminal input",
        question: "Can input be faked for a terminal?",
        method: "TIOCSTI on a terminal of its own, in a session of its own; whether standard input is a terminal",
        levels: [
            host("root may"),
            blocked("by the filter"),
            reached(&["TIOCSTI"], "on the guest's own terminals"),
        ],
    },
    Row {
        id: "P31",
        title: "guest's devices",
        question: "Does a guest have any device besides disk, console and random numbers?",
        method: "virtio devices, other buses and disks in the guest's sysfs, against the published list",
        levels: [NONE, NONE, blocked("block, console and rng, each once")],
    },
    Row {
        id: "P32",
        title: "processor features",
        question: "Are virtualisation, performance counters or transactions of the host's processor named?",
        method: "CPUID, where the host has the feature",
        levels: [
            host("the host's"),
            host("the host's: one processor"),
            blocked("masked by isolab's monitor"),
        ],
    },
    Row {
        id: "P33",
        title: "nested virtual machines",
        question: "Can virtual machines be made from here?",
        method: "/dev/kvm opened and asked for its version",
        levels: [host("the host's /dev/kvm"), blocked("no such node"), blocked("no such node")],
    },
    Row {
        id: "P34",
        title: "writing the image's disk",
        question: "Does the device take a write to the image's disk from the guest's root?",
        method: "a sector written with its own bytes through a node of its own, also after root has cleared the read-only flag; the \
                 host compares the file's beginning before and after",
        levels: [
            NONE,
            NONE,
            blocked("the guest's kernel keeps to the device's read-only flag, the file is the same"),
        ],
    },
    Row {
        id: "P35",
        title: "traces of the host",
        question: "Does the run's random text appear anywhere in /proc, /sys, /dev/shm, /tmp or /run?",
        method: "reads what can be read there, up to 64 KiB of each file, and searches it",
        levels: [host("in the host's processes and sockets"), blocked("nowhere"), blocked("nowhere")],
    },
    Row {
        id: "P36",
        title: "processor weaknesses",
        question: "What does the level see of mitigations?",
        method: "/sys/devices/system/cpu/vulnerabilities beside the host's",
        levels: [
            any("the host's"),
            any("no sysfs; the host's state applies"),
            any("the guest kernel's own view; the host's state applies as well"),
        ],
    },
    Row {
        id: "P37",
        title: "fine timers",
        question: "Are there clocks fine enough to watch others by?",
        method: "the time stamp counter read in a child; resolution of the raw clock",
        levels: [host("yes"), host("yes: no level takes them away"), host("yes: no level takes them away")],
    },
    Row {
        id: "P38",
        title: "shared pages",
        question: "Are pages in memory shared with other instances?",
        method: "whether the kernel may merge own pages, beside the host's switch; the device of the image's file system, beside a mount \
                 of isolab's own at the same time; pages of the host's image file, by mincore",
        levels: [
            host("the host's page cache of the image file"),
            Expect {
                outcome: Expected::Blocked,
                items: Some(&["pages of the image's disk"]),
                means: "a file system of its own, and no merging",
            },
            blocked("the guest's own"),
        ],
    },
    Row {
        id: "P39",
        title: "load of the host",
        question: "Can the load of others be seen?",
        method: "the numbers of running tasks, four times in each step of a load of known shape that isolab makes on the host; stolen \
                 time is reported",
        levels: [
            host("the host's"),
            reached(
                &["running in /proc/stat", "running in /proc/loadavg"],
                "known leaks: procfs has one of these for all",
            ),
            blocked("the guest's own"),
        ],
    },
    Row {
        id: "P40",
        title: "entry points of known holes",
        question: "Does the first harmless call succeed on the way to kernel code that had well-known holes?",
        method: "AF_ALG, vsock, packet, CAN, TIPC, io_uring, bpf, perf, keyrings, userfaultfd, splice; nf_tables, fsconfig and overlay \
                 in a user namespace",
        levels: [
            host("the host's"),
            reached(&["splice", "vmsplice"], "only pipes' own calls, which programs need"),
            Expect { outcome: Expected::Reached, items: None, means: "of the guest's own kernel" },
        ],
    },
    Row {
        id: "P41",
        title: "kernel policy",
        question: "Which restrictions has the kernel that answers?",
        method: "settings of BPF, pointers, log, perf and io_uring, and the list of security modules, beside the host's",
        levels: [any("the host's"), any("the host's"), any("the guest kernel's own")],
    },
    Row {
        id: "D01",
        title: "exhaust processes",
        question: "Can processes be made without end?",
        method: "forks until refused, 8192 at most; with --stress only",
        levels: [NOT_RUN, blocked("the cgroup's limit"), blocked("the guest kernel's limit")],
    },
    Row {
        id: "D02",
        title: "exhaust memory",
        question: "Can memory be taken without end?",
        method: "a child writes twice of what the level has; with --stress only",
        levels: [NOT_RUN, blocked("the cgroup's limit"), blocked("the guest's RAM")],
    },
    Row {
        id: "D03",
        title: "exhaust descriptors",
        question: "Can files be opened without end?",
        method: "a child opens /dev/null until refused, 2097152 times at most; with --stress only",
        levels: [
            NOT_RUN,
            blocked("the limit of the process, or of its memory"),
            blocked("the limit of the process"),
        ],
    },
    Row {
        id: "D04",
        title: "exhaust room",
        question: "Can room for files be filled beyond the job's limit?",
        method: "fills /tmp and /dev/shm with twice of the limit, and removes it; with --stress only",
        levels: [NOT_RUN, blocked("each file system's limit"), blocked("each file system's limit")],
    },
    Row {
        id: "D05",
        title: "hog processors",
        question: "Can more processor time be had than the job's?",
        method: "twice as many busy processes as processors, for three seconds; isolab reads the processor time of its ended children, and tells how \
                 late its own sleeps of 1 ms end before and meanwhile; with --stress only",
        levels: [NOT_RUN, blocked("the cgroup's limit"), blocked("the monitor's cgroup")],
    },
    Row {
        id: "D06",
        title: "make the kernel work",
        question: "Does the host's kernel do work, or keep memory, beyond the job's limits?",
        method: "crashes, mappings and missing names, each for a second; isolab reads the processor time of its ended children and the growth of the \
                 kernel's memory, and tells what the host spent besides; with --stress only",
        levels: [NOT_RUN, blocked("the cgroup's limits"), blocked("the monitor's cgroup")],
    },
    Row {
        id: "D07",
        title: "flood of output",
        question: "Does output pile up in isolab?",
        method: "writes 32 MiB to standard error; isolab reads the most memory that it had itself; with --stress only",
        levels: [NOT_RUN, blocked("it is read and dropped"), blocked("it is read and dropped")],
    },
    Row {
        id: "D08",
        title: "storm of exits",
        question: "Does a guest that leaves its processor all the time take more processor time than the job's?",
        method: "a port, the processor's name and short sleeps, each for a second; isolab reads the processor time of the monitor when that \
                 has ended; with --stress only",
        levels: [NONE, NONE, blocked("the monitor's cgroup")],
    },
];

/// Whether a probe uses things up.
#[must_use]
pub fn is_stress(id: &str) -> bool {
    id.starts_with('D')
}
