//! The traps of comparing, T01 to T18, as data.

use super::Topic;
use super::topics::topic;

/// All of them, in the order of the list.
pub(super) const TRAPS: &[Topic] = &[
    topic(
        "T01",
        &[],
        "refused: emulated processor, software or shadow KVM",
        &[
            "Guest kernel code is interpreted here, up to thousands of times slower, so the figures say nothing about KVM. Use a \
         machine with VT-x or SVM, or --on lab, where all levels run on the same emulated processor and only instruction \
         counts are compared.",
        ],
    ),
    topic(
        "T02",
        &[],
        "refused or flagged: nested virtualisation",
        &[
            "KVM runs on a hypervisor below, whose exits cost several times those of bare hardware. What KVM costs can't be \
         said from here; comparing with earlier runs on the same machine can, and is flagged. Use bare metal.",
        ],
    ),
    topic(
        "T03",
        &[],
        "refused or flagged: page cache not in the declared state",
        &[
            "One level read its image, kernel or program from disk and the other from memory: that is a difference of the cache and not of the levels. Before each run compare brings image and guest kernel into the state that the plan declares, warm (read into memory, the default) or --cold (thrown out), and asks the kernel which of their pages are in memory (mincore). Its answers are in each sample (conditions.page_cache).",
            "It refuses where the levels found different states, or where --cold left pages in memory: another process maps the file, or it lies in a file system that lives in memory, as in the lab. It flags a file that is warm in part only, alike at each level: there is too little memory for it. Fix: end what uses the file, leave --cold out, or take a smaller image.",
        ],
    ),
    topic(
        "T04",
        &[],
        "refused: different boundaries",
        &[
            "A moment is missing at one level and there at another, so that an interval does not begin or end at the same moment. Only the three headline intervals are compared (see `isolab explain timeline`). Fix: use a workload that behaves alike at each level, and says when it is ready at each or at none.",
        ],
    ),
    topic(
        "T05",
        &[],
        "flagged: different kernel or mitigations",
        &[
            "The container runs on the host's kernel and the guest on its own. Release, configuration, mitigations of processor weaknesses, huge pages and timer frequency differ and move the figures. Fix: give the guest the host's kernel (`isolab kernel add`), or say both kernels beside the figure. Mitigations are judged where both kernels told theirs.",
        ],
    ),
    topic(
        "T06",
        &[],
        "flagged: different file system or medium",
        &[
            "The image lies on another medium at one level. With a vm among the levels this is so by design: a container mounts \
         the image's file (in the lab: a block device), a guest reads the same bytes from a virtio-blk disk, and what that \
         costs is part of what a vm costs. There is nothing to do; read figures of file workloads with it in mind.",
            "Without a vm, it is an unpacked copy (rootless) beside an EROFS mount: run as root, so that all levels mount the \
         same file.",
        ],
    ),
    topic(
        "T07",
        &[],
        "refused or flagged: console, keyboard and probing time-outs",
        &[
            "T07-console refuses: a console in one level only costs one exit per character. Fix: leave --guest-console off.",
            "T07-fixed-wait flags: an instance did nothing for more than 20 ms before it was ready. Device probing waits for fixed times that look like boot time. Fix: a guest kernel without a keyboard controller and serial ports. Judged where a record tells idle times.",
        ],
    ),
    topic(
        "T08",
        &["seccomp"],
        "refused or flagged: limits or filter differ",
        &[
            "T08-seccomp flags that only the container runs under a system call filter: process none, container default, vm none. \
         That is what the levels are: there is nothing to do, and no option for it. The filter adds some time to each system \
         call of the container.",
            "T08-init refuses: process 1 is not the same program in the limited levels. T08-limits refuses: CPUs and memory of the limited levels (container, vm) are not the same, mostly because this user \
         can't enforce those of the container (see `isolab explain cgroup`). Run as root, in a delegated cgroup, or with \
         --on lab. The process level has no limits by design and is left out of this check.",
        ],
    ),
    topic(
        "T09",
        &[],
        "refused: memory by the wrong counter",
        &[
            "RSS of a VMM, configured RAM or a change of MemFree miss or invent hundreds of KiB to hundreds of MiB. The charge of the instance's own cgroup is the measure, by the same counter at each level: version 1 and version 2 count differently, so a mixture is refused. Fix: one hierarchy with the memory controller for all levels; `isolab doctor` shows which is in use.",
        ],
    ),
    topic(
        "T10",
        &["noise-floor", "drift"],
        "refused or flagged: order, number of pairs, drift, noise floor",
        &[
            "  T10-order            refuses: the runs of a pair do not follow one another\n  T10-number-of-pairs  flags: fewer than 30 pairs on a host, or fewer than planned\n  T10-drift            flags: last third of the runs against the first\n  T10-autocorrelation  flags: each pair depends on the one before\n  T10-noise-floor      flags: a level differs from itself",
            "All of A and then all of B turns any drift of the machine into a difference, so pairs are always interleaved in random order, and there is no option to change that.",
            "Below 6 pairs, also in the lab, no interval and no finding is printed: the medians are a description only. Raise --pairs. T10-number-of-pairs also flags a comparison that was ended before its last pair.",
            "T10-drift: the median of a level's last third of runs lies more than 2 % from that of its first, with the whole 95 % interval of their ratio. From 15 runs of a level on; with fewer it is not looked at. T10-autocorrelation: neighbours are correlated over 0.2 and over what chance gives; the intervals are then made from blocks of neighbours, and are wider. Fix for both: wait until the machine is quiet, and measure again.",
            "T10-noise-floor: the first level runs twice in each pair, and the two differ by more than 2 % with an interval that leaves out 1. That is chance once in twenty times; twice in a row it is a fault of the machine or of isolab.",
        ],
    ),
    topic(
        "T11",
        &[],
        "flagged: runs are missing from the record",
        &[
            "The best run, or a mean without the runs that look odd, is a choice made after seeing the data. The estimators are fixed before the first sample, all raw samples are stored, and outliers are counted and kept. It flags a record whose runs are not those of its plan in its order: some were taken away, or added. Fix: use the record as it was written.",
        ],
    ),
    topic(
        "T12",
        &[],
        "flagged or refused: noisy host",
        &[
            concat!(
                "  T12-cpu-pressure  flags: some task waited for a CPU in over 5 % of the time\n",
                "  T12-steal         flags: a hypervisor took over 0.5 % of the CPU time; over 1.5 % refuses\n",
                "  T12-swap          flags: pages were read from swap\n",
                "  T12-frequency     flags: a fixed loop took 2 % more or less time after the runs than before",
            ),
            "The kernel's CPU pressure counts isolab's own processes and the workload's too, so it never refuses. Pairs in random \
         order spread noise over all levels: it widens intervals more than it moves ratios.",
            "In the lab with its clock that \
         counts instructions none of these is looked at: nothing outside moves that clock. Use an idle machine, or --on lab.",
        ],
    ),
    topic(
        "T13",
        &[],
        "flagged: the harness is inside the number",
        &[
            "Each number begins when a fresh isolab process is started, and that start is in it, alike at each level. It flags a level of whose number this is more than half, or more than a tenth where the process level, the floor, is not among the levels. Fix: add process to --levels and read the others as differences to it. There are no shells, sleeping polls or logs in the timed part.",
        ],
    ),
    topic(
        "T14",
        &[],
        "flagged: sharing counted for one side only",
        &[
            "Copies of one image share page cache, and equal pages may be merged, at one level only. It flags a host that merges pages (KSM runs) with a vm among the levels, and levels that share memory in different ways. Fix: echo 0 > /sys/kernel/mm/ksm/run. Look at one instance and at the slope over many; sharing by KSM, DAX or snapshots is a level of its own.",
        ],
    ),
    topic(
        "T15",
        &[],
        "refused: snapshot restore against cold start",
        &[
            "A restored guest has booted already, and its page faults follow after the restore: start-up of the two is not one quantity. Fix: compare it with a restored or resumed peer, and until ready.",
        ],
    ),
    topic(
        "T16",
        &[],
        "refused: clocks mixed",
        &[
            "Guest wall clock, time namespaces and kernel message stamps do not count what the host's clock counts. All stamps come from one clock of the host. It refuses a record with moments that one clock can't have given: out of order, or an interval inside that is longer than the host's stamps around it. Fix: use the record as it was written, or report a fault of isolab.",
        ],
    ),
    topic(
        "T17",
        &["same-status", "same-image", "same-output"],
        "refused: failed runs, or not the same work",
        &[
            "More than 1 % of the runs did not end by themselves: the command can't be executed, a deadline, memory. They are \
         stored as failed and never averaged: look at the reason beside the check first.",
            "same-image, same-status (both refuse) and same-output (flags) compare the image's digest, the exit statuses and the \
         standard output of all levels: where they differ, the levels did not do the same work.",
        ],
    ),
    topic(
        "T18",
        &[],
        "flagged: speed beside less isolation",
        &[
            "The faster level mostly isolates less. What stands between each level and the host (whose kernel, system call filter, user namespace, devices) is printed beside its cost, and there is no single score. It is flagged whenever these differ, so in each comparison of levels: there is nothing to fix, but say it with the figure.",
        ],
    ),
];
