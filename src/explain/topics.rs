//! The topics but the traps, as data.

use super::Topic;

pub(super) const fn topic(
    name: &'static str,
    aliases: &'static [&'static str],
    title: &'static str,
    text: &'static [&'static str],
) -> Topic {
    Topic { name, aliases, title, text }
}

/// All of them, in the order of the list.
pub(super) const TOPICS: &[Topic] = &[
    topic(
        "lab",
        &["on", "emulated-lab", "lab-clock", "tcg"],
        "the emulated machine of --on lab",
        &[
            "The lab is a whole machine with an AMD processor with SVM, emulated by QEMU. The same isolab runs inside it, \
         and its /dev/kvm is the real KVM code of a stock kernel, so that all levels run on any Linux machine and in any CI.",
            "By default its clock counts instructions, 2 ns each, on any machine and under any load. Comparisons of one --seed agree \
         within 0.1 % (medians; seen: 0.012 %), and in memory to the byte. With another seed other runs precede each run, and the timer \
         ticks elsewhere in it: the intervals say how much that is. With --lab-clock wall it is wall time, with all the noise of an emulator.",
            "Lab figures are instruction counts under an emulated processor. Cache and TLB behaviour, memory bandwidth, the \
         real cost of a switch between guest and host, timing between processors and device DMA are not in them. Claim \
         ratios of instruction counts, never milliseconds, and never what KVM costs.",
            "--on auto takes the host where its KVM runs guest kernels in hardware, else the lab, and its first line says which.",
        ],
    ),
    topic(
        "levels",
        &["level", "process", "container", "vm", "isolation"],
        "what a workload gets at each level, and what it shares",
        &[
            "process: the image as its root directory, and nothing else. It sees and shares everything of the host; it is the floor of \
         each comparison.",
            "container: namespaces (mounts, processes, network, host name, IPC, users, cgroups), a cgroup with its limits, no capabilities, \
         a seccomp filter, masked files in /proc. It shares the host's kernel: `uname -r` says the same inside and outside.",
            "vm: a guest of KVM with a kernel and virtual hardware of its own, run by isolab's own monitor. It shares the processor and \
         the interface of KVM; `uname -r` is the guest kernel's.",
            "All three take their root from the same EROFS file, and the same process 1 starts the command in a container and in a guest. \
         What one mechanism costs: `isolab explain vary`.",
        ],
    ),
    topic(
        "snapshot",
        &["from-snapshot", "restore", "template", "snapshots"],
        "guests that continue where another one waits for its command",
        &[
            "isolab snapshot IMAGE boots a guest up to where it waits for its command and stores it; run --level vm --from-snapshot IMAGE -- CMD \
         continues a private copy. One snapshot serves any command, user, environment and kind of standard streams; memory, CPUs, \
         kernel, --read-only and --free-page-reporting are those that it was made with.",
            "A restored guest gets random bytes of the host before it reads its job, and the host's wall clock. What the guest's \
         kernel drew before is the same in all guests of a snapshot (its place in memory, keys of its hash tables), and its uptime goes on from there. Where \
         guests must not know of each other's kernel, start them cold.",
            "It is refused, with the command that makes it anew, where image, kernel, isolab's process 1, memory, CPUs, the processor's \
         features or the format differ, or a file was cut short or altered. The files are yours alone (mode 0600): they hold a guest's memory.",
            "A restored start and a cold one are never compared in one sentence (T15). A lab keeps no snapshots: there, \
         --from-snapshot makes it first. Contents and order of restoring: docs/snapshot.md.",
        ],
    ),
    topic(
        "probe",
        &["probes", "evidence", "finding", "not-as-published"],
        "what `isolab probe` shows, and what a finding is",
        &[
            "isolab probe runs one program at each level, handed in by descriptor, and plants things on the host beside it: files, \
         sockets, shared memory, a process with a variable, threads. What a level sees, reaches or is refused is compared with what the \
         host knows, and with a published table (docs/probe.md). Level process runs first: it has no isolation and shows what \
         there is to isolate on this machine.",
            concat!(
                "  reached         seen, opened, or past every check of the kernel\n",
                "  blocked         refused or hidden, with the layer: seccomp, capability, namespace, ...\n",
                "  not applicable  this machine has nothing of the kind\n",
                "  unknown         the attempt failed otherwise: it shows nothing; never counted as blocked",
            ),
            "A cell that is not as published is a finding, and the exit status is 1. What a container shares with the host by design is in the \
         table as reached: a fact, not a finding. In a guest `reached (own kernel)` is about the guest's own kernel.",
            "isolab probe --level container --only P14 IMAGE runs one cell again, with all its evidence. isolab probe --self-test IMAGE \
         shows that each probe can say reached.",
        ],
    ),
    topic(
        "vary",
        &["knob", "knobs", "net", "overlay-off"],
        "what a single mechanism costs",
        &[
            "compare --vary KNOB=A,B runs one level against itself with one mechanism changed: seccomp=on,off net=private,host \
         uts=private,host ipc=private,host cgroupns=private,host limits=on,off jail=on,off overlay=on,off console=off,on memory=SIZE,.. cpus=N,.. pids=N,.. kernel=NAME,.. The first values together are the \
         base; every other value is an arm of its own. --levels names the level (default: container).",
            "The table shows by how much time and memory each arm differs from the base, with intervals. An arm that isolates less is \
         marked: its number is what the mechanism costs, and no advice to leave it out.",
        ],
    ),
    topic(
        "bench",
        &["suite", "suites", "density", "max-instances"],
        "what an operation costs, and what one more instance costs",
        &[
            "bench SUITE.. runs workloads that time one operation in batches (a system call, a page fault, a switch, a file), of one batch \
         size at every level. A number is the median over rounds of the median of the batches; a ratio is the median of the ratios within rounds.",
            "bench density starts 1, 2, 4, .. idle instances of a level side by side, and fits a line: what one more costs, by the charge of \
         its cgroup and by the whole machine's memory, and how long a start takes beside so many others. --max-instances is where it ends.",
        ],
    ),
    topic(
        "records",
        &["record", "report", "diff", "check", "json", "export"],
        "what is kept of a comparison, and what can be done with it",
        &[
            "--json keeps every run with its moments, its memory and its conditions. All else follows from it: `isolab report` shows it \
         again, as text, Markdown, HTML or in the formats of other tools; `isolab diff A B` says whether B got slower or larger (status 1), \
         and refuses what is not of one experiment (status 3); `isolab check FILE --against SPEC` says whether it is whole, agrees with \
         itself, and holds what an exercise asks for (status 1 where not). docs/records.md describes each field.",
        ],
    ),
    topic(
        "verdict",
        &["comparable", "flagged", "refused", "checks"],
        "whether a comparison compares what it says",
        &[
            concat!(
                "  comparable  nothing differs but the levels\n",
                "  flagged     more differs, as it says, or the machine was not quiet: mind that\n",
                "  refused     the numbers mean nothing: none are printed, and the status is 3"
            ),
            "Each line below the verdict begins with its check: `isolab explain T06` says what it means and what to do. A level that isolates \
         is always flagged beside one that does not (T18). --allow-incomparable prints the numbers of a refused comparison, with a mark.",
        ],
    ),
    topic(
        "instrument",
        &[
            "crosscheck",
            "crosschecks",
            "remainder",
            "part-of-whole",
            "phase-sum",
            "subphase-sum",
            "stamps-ordered",
            "cpu-time",
        ],
        "the instrument's checks of itself",
        &[
            concat!(
                "  phase-sum        the phases of a run add up to its whole, to the nanosecond\n",
                "  subphase-sum     so do the steps of the phases\n",
                "  stamps-ordered   no moment lies before one that must precede it\n",
                "  part-of-whole    no part of a memory account is larger than the whole\n",
                "  remainder        less than 2 % of the charge at ready has no name\n",
                "  cpu-time         CPU time is above zero and at most wall time on every CPU"
            ),
            "One that fails is named below the verdict. A large remainder is memory that the cgroup is charged for and no counter \
         names; the charge itself stands. docs/method.md says what each number is made of.",
        ],
    ),
    topic(
        "host-class",
        &["class", "kvm-class", "kvm", "nested", "shadow", "hardware"],
        "what runs guest kernel code here",
        &[
            "/dev/kvm and its API version prove nothing, so isolab looks at behaviour: a guest of sixteen pages counts down in a \
         loop at ring 0 and at ring 3, the same loop runs on the host, and KVM's own counters say what was interpreted.",
            concat!(
                "  hardware      VT-x or SVM with second-level paging\n",
                "  nested        the same, offered by a hypervisor below: exits cost several times more\n",
                "  shadow        processor support without second-level paging (ept=0 or npt=0)\n",
                "  software      guest kernel code is interpreted, or the processor is emulated\n",
                "  none          no usable KVM\n",
                "  emulated-lab  inside the lab of --on lab",
            ),
            "`isolab doctor` prints the class with its numbers, and every result record holds it.",
        ],
    ),
    topic(
        "kvm-software",
        &["software", "pvm", "kvm-pvm"],
        "a /dev/kvm without VT-x or SVM behind it",
        &[
            "Some hosts, often virtual machines themselves, offer a KVM that works by page tables alone (module kvm_pvm). It \
         creates VMs and runs guest user code at native speed, but interprets guest kernel code, hundreds to thousands of \
         times slower than the host, and gives up on some instructions. A stock kernel would boot for minutes, if at all.",
            "So the vm level is refused on such a host. Use --on lab, or a machine whose processor offers VT-x or SVM.",
        ],
    ),
    topic(
        "exit-codes",
        &["exit", "exit-status", "status", "125", "126", "127", "153"],
        "what isolab's exit status means",
        &[
            concat!(
                "  0 to 255  the workload's own status passes through, at each level\n",
                "  128+n     the workload died of signal n; 137: also when its memory limit killed it\n",
                "  124       the deadline of --timeout\n",
                "  125       isolab's own error, which one line on standard error names; also --start-timeout\n",
                "  126       the command is there but can't be executed\n",
                "  127       the command is not there\n",
                "  153       the output came to more than --max-output\n",
                "  1         diff, check, probe, choose, doctor: a finding, or no level that fits or runs\n",
                "  3         compare: the comparison was refused\n",
                "  130       interrupted with Ctrl-C"
            ),
            "`isolab doctor` ends with 0 where every level can run somewhere (host or lab), with 1 otherwise.",
        ],
    ),
    topic(
        "memory",
        &["memory-limit", "oom", "137"],
        "what --memory limits at each level",
        &[
            "Container: the limit of its own cgroup, so page cache and kernel memory that the workload causes count too. VM: the \
         guest's RAM, of which the guest kernel takes its part first. Going over it ends the run with status 137 at \
         both levels; the host is untouched.",
            "The process level has no limit: it is the floor of every comparison.",
            "A limit that was asked for and can't be enforced (no memory controller, no delegation) is an error, not a warning. The \
         default of 128 MiB is enforced where that is possible: see `isolab explain cgroup`.",
        ],
    ),
    topic(
        "cgroup",
        &["cgroups", "delegation", "limits"],
        "where the limits of a container come from",
        &[
            "Memory, CPU and process limits need the cgroup controllers memory, cpu and pids, of version 2 or 1, in a place where \
         this user may make cgroups. Root may; a user needs a delegated part of the version 2 tree:",
            "  systemd-run --user --scope -p Delegate=yes isolab run ...",
            "Version 1 knows no safe delegation: there a user runs as root, or with --on lab. `isolab doctor` shows each controller.",
            "--memory, --cpus and --pids are enforced or the run is refused. Their defaults (128M, 1, 1024) stop nothing: where they \
         can't be enforced, run says so on a terminal, compare on standard error and in the record (limits_not_enforced).",
        ],
    ),
    topic(
        "rootless",
        &["userns", "user-namespaces", "unprivileged"],
        "running without root",
        &[
            "A user needs user namespaces (user.max_user_namespaces, and where they exist kernel.unprivileged_userns_clone=1 and \
         kernel.apparmor_restrict_unprivileged_userns=0) and, for more than one user inside, a range in /etc/subuid and \
         /etc/subgid.",
            "Root inside is the user outside. With a range, and newuidmap and newgidmap to give it out, --user and an image's own \
         user work; without, such a job is refused, and supplementary groups stay those of the user outside.",
            "An unprivileged user can't mount EROFS, so each run unpacks the image into a private copy in the store, read-only below \
         an overlay in memory (Linux 5.11). All its files belong to root inside. The record names this medium, and comparisons with \
         other media are flagged (T06). Where the process level has no cgroup, what its command started outlives an isolab that \
         is itself killed with SIGKILL; else all of it ends with the run. For limits see `isolab explain cgroup`.",
        ],
    ),
    topic(
        "erofs",
        &["image-format", "loop", "overlay"],
        "one image file for all levels",
        &[
            "An image is converted once into one read-only EROFS file, named by its digest: same input, same bytes. The \
         container mounts this file and the guest reads it as a block device, so that both levels work on the same bytes.",
            "From Linux 6.12 on, the kernel mounts the file itself; before, through a loop device. Writes go to an overlay on tmpfs. \
         isolab mounts only EROFS that its own writer made and its checker walked.",
        ],
    ),
    topic(
        "read-only",
        &[],
        "no writable overlay",
        &[
            "With --read-only the root is the image itself at each level: every write to it fails with EROFS (read-only file \
         system). /tmp and /dev/shm stay writable tmpfs.",
            "Without it, writes go to an overlay on tmpfs, limited to half of --memory, and are gone after the run.",
        ],
    ),
    topic(
        "timeout",
        &["deadline", "124", "start-timeout"],
        "the deadlines of a run",
        &[
            "--timeout 30s ends the run from outside when the wall clock says so, whatever the workload or a guest kernel does, \
         and the status is 124. Units: ms, s, m, h.",
            "--start-timeout 10s is the same for the start, a guest's boot included: until the command runs. It is two minutes where \
         nobody asks for another time; the status is 125 and the line says how far the start had come.",
            "In the lab the deadline counts the lab's own time, 2 ns an instruction by default, which passes many times more slowly \
         than the wall clock: ten seconds there can be minutes here. With --lab-clock wall it is wall time.",
        ],
    ),
    topic(
        "max-output",
        &["output", "budget"],
        "the most that a run may write",
        &[
            "--max-output 10M ends the run when its output and error together come to more: so much is passed on to the byte, the rest is \
         lost, and the status is 153. Units: K, M, G.",
            "Without it there is no limit, as for any program that is started in a shell: what goes to a file fills the disk. isolab itself \
         counts, outside of container and guest; all output goes through a pipe of its own then.",
        ],
    ),
    topic(
        "console",
        &["guest-console", "stdio"],
        "why the guest's console is off",
        &[
            "Standard input, output and error are three separate byte-exact channels at each level; no console lies in between. A \
         serial console costs one exit per character, so a guest kernel that prints boots several times slower: --guest-console \
         shows its messages on standard error and is for looking, not for measuring (T07).",
        ],
    ),
    topic(
        "kernel",
        &["guest-kernel", "stock", "tuned"],
        "which kernel a guest boots",
        &[
            "`isolab kernel fetch` unpacks the distribution's cloud kernel into the store as entry `stock`; nothing is installed on \
         the host. `isolab kernel build` compiles a small one from the distribution's source package as entry `tuned`, which \
         starts several times faster. `isolab kernel add PATH --name NAME` adds any vmlinux or bzImage.",
            "A guest gets `tuned` where it has been built, else `stock`; --kernel NAME picks one. The lab machine itself always runs \
         `stock`. Figures of guests with different kernels are not comparable; each record names the version that ran.",
        ],
    ),
    topic(
        "marks",
        &["mark"],
        "how moments inside an instance reach isolab",
        &[
            "isolab-init and isolab-work signal each moment by one port write (VM) or one record on a pipe (container). The host \
         stamps them with CLOCK_MONOTONIC, so no guest clock is ever part of a number.",
            concat!(
                "  B  about to start: before clone3, or before the first KVM_RUN\n",
                "  I  process 1 runs its first instruction\n",
                "  E  the workload was executed\n",
                "  W  first instruction of isolab-work\n",
                "  R  the workload says that it is ready\n",
                "  X  the workload ended, with its status\n",
                "  F  a step before the workload failed",
            ),
        ],
    ),
    topic(
        "surface",
        &["sweep", "door", "syscalls"],
        "system calls that reach the host's kernel",
        &[
            "isolab surface counts which calls of the host's kernel a level may ask for (by its filters) and which were made while a \
         command ran (by a trace of the kernel). A guest's calls are its own kernel's; what it touches of the host is the door: exits, ports, \
         device registers. No number is a measure of safety, and there is no sum of them: docs/surface.md.",
        ],
    ),
    topic(
        "choose",
        &[
            "threat",
            "need",
            "which-level",
            "mistakes",
            "curious-code",
            "leaks",
            "exhaustion",
            "privileged-code",
            "untrusted-code",
            "side-channels",
        ],
        "which level does what is asked",
        &[
            "isolab choose says for each level what it keeps from a workload (--threat), what it gives to it (--need), and whether its start \
         and memory are inside of a limit. Points come from the published table of docs/probe.md, or with --probe from the record of this \
         machine; costs only from a record of compare (--record). Nothing is weighed. What no probe can judge is named by its entry in \
         docs/security.md.",
        ],
    ),
    topic(
        "timeline",
        &["stamps", "boot-time", "start-up"],
        "the stamps of a run and the three headlines",
        &[
            concat!(
                "  request            before isolab is started\n",
                "  main               first line of isolab\n",
                "  run_begin          before clone3, or before the first KVM_RUN\n",
                "  guest_kernel_done  VM only: first instruction of process 1\n",
                "  resumed            VM from a snapshot only: process 1 has its job\n",
                "  first_user_insn    first instruction of the workload binary\n",
                "  ready              the workload says so\n",
                "  exit               the workload's status is known\n",
                "  clean              everything is freed",
            ),
            "Boot time has no agreed boundaries, and the choice moves the number by half or more. So only three intervals are \
         headlines: request to first_user_insn, request to ready, request to clean. All else is diagnostic.",
        ],
    ),
];
