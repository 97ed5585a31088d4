//! What can be typed. `config.rs` turns it into what is run.

mod choose;
mod probe;
mod records;
mod store;
mod surface;

use std::ffi::OsString;
use std::ops::Deref;
use std::path::PathBuf;

use crate::fault::StageFault;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::choose::ChooseArgs;
pub(crate) use self::probe::ProbeArgs;
pub(crate) use self::records::{CheckArgs, DiffArgs, ReportArgs, ReportFormat};
pub(crate) use self::store::{ExportFormat, ImageCommand, KernelCommand, SnapshotArgs, SnapshotCommand};
pub(crate) use self::surface::SurfaceArgs;

/// One image at three levels of isolation, measured side by side.
#[derive(Debug, Parser)]
#[command(name = "isolab", version, about, long_about = None, max_term_width = 100,
    after_help = "\
Examples:
  isolab compare demo                          all levels side by side, in the lab where there is no hardware KVM
  isolab run --level container demo -- /isolab-work echo hello
  isolab image import debian.tar --name debian && isolab run --level vm debian -- uname -r
  isolab doctor                                what this machine can do, and what to install

Exit status: the workload's own; 124 deadline, 125 isolab's own error, 126 not executable, 127 not found,
128+n signal n, 153 too much output, 3 comparison refused.")]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const RUN_EXAMPLES: &str = "\
Examples:
  isolab run demo -- /isolab-work echo hello     as a container
  isolab run demo -- /isolab-work help           what the image demo can do
  isolab run --level vm --memory 256M debian -- python3 -c 'print(1)'
  tar c . | isolab run -i --level vm debian -- tar t
  isolab run --level vm --from-snapshot debian -- uname -r
  isolab run -it debian -- bash";

/// Run a command in an image at one level
#[derive(Debug, Parser)]
#[command(name = "run", bin_name = "isolab run", after_help = RUN_EXAMPLES, long_about = None, max_term_width = 100)]
struct RunOnly {
    #[command(flatten)]
    args: RunArgs,
}

impl Cli {
    /// Reads the command line. `run` is read by itself: defining all other commands with their options would be part of
    /// the start of each instance.
    ///
    /// # Errors
    /// What is wrong with it, or the help that was asked for.
    pub(crate) fn of(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut arguments = arguments.peekable();
        let program = arguments.next();
        if arguments.peek().is_some_and(|name| name == "run") {
            return RunOnly::try_parse_from(arguments).map(|run| Self { command: Command::Run(run.args) });
        }
        Self::try_parse_from(program.into_iter().chain(arguments))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in an image at one level
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Run an image at several levels, interleaved, and show what each costs
    #[command(after_help = "\
Examples:
  isolab compare demo
  isolab compare --on host --levels process,container --pairs 50 demo -- /isolab-work null
  isolab compare --vary seccomp=on,off --vary net=private,host --vary memory=128M,1G demo
  isolab compare --json result.json --html report.html debian -- /usr/bin/python3 -c 'print(1)'")]
    Compare(CompareArgs),
    /// Run workload suites at several levels, interleaved, and show what an operation costs at each
    #[command(after_help = "\
Suites: startup, memory, cpu, syscall, fault, switch, process, timer, file, console, app; all: every one of them.
density: what one more idle instance costs (1, 2, 4, ... of them side by side)

Examples:
  isolab bench syscall fault
  isolab bench --on host --levels process,container --pairs 30 file
  isolab bench --json result.jsonl all
  isolab bench --levels container --max-instances 64 density")]
    Bench(BenchArgs),
    /// Show what of the host can be seen, reached and used at each level, with evidence
    #[command(after_help = "\
Examples:
  isolab probe demo
  isolab probe --levels container --only P06,P11 demo      one cell again, with its evidence
  isolab probe --json probe.json --html probe.html debian
  isolab probe --self-test demo                            whether each probe can fail

Exit status: 0 every cell as published, 1 a cell is not or a probe shows nothing, 125 isolab's own error.
What each probe does and the published table: docs/probe.md.")]
    Probe(ProbeArgs),
    /// Count the system calls that each level may ask of the host's kernel, and those that a command uses
    #[command(after_help = "\
Examples:
  isolab surface demo -- /isolab-work tree /
  isolab surface --on host --levels process,container --names debian -- python3 -c 'print(1)'
  isolab surface --sweep demo                              each system call in turn, at each level
  isolab surface --json surface.json demo

Needs root and the kernel's trace (tracefs), which the lab has. Nothing is timed. What the numbers are not: docs/surface.md.")]
    Surface(SurfaceArgs),
    /// Say which level does what is asked: what it keeps from a workload, gives to it, and costs
    #[command(after_help = "\
Examples:
  isolab choose --threat untrusted-code
  isolab choose --threat curious-code,exhaustion --need capabilities
  isolab compare --json record.json demo; isolab choose --threat leaks --memory-budget 64M --record record.json
  isolab probe --json probe.json demo; isolab choose --threat untrusted-code --probe probe.json

Exit status: 0 a level fits, 1 none is known to, 125 isolab's own error. Nothing is weighed: each point names its probe.")]
    Choose(ChooseArgs),
    /// Show records of `compare --json`, or export them for other tools
    #[command(after_help = "\
Examples:
  isolab report result.json
  isolab report --format html -o report.html result.json
  isolab report --format markdown monday.json tuesday.json > results.md
  isolab report --format hyperfine -o hyperfine.json result.json
  isolab report --format benchfmt old.json > old.txt && isolab report --format benchfmt new.json > new.txt
The same records give the same bytes. Formats of other tools: docs/records.md.")]
    Report(ReportArgs),
    /// Judge whether an arm got slower or larger from record A to record B
    #[command(after_help = "\
Examples:
  isolab diff before.json after.json
  isolab diff --metric startup.request_to_clean --margin 5 before.json after.json
  isolab diff --json before.json after.json

Exit status: 0 no regression shown, 1 regression, 3 the records are not of one experiment, 125 isolab's own error.
How it judges: docs/records.md.")]
    Diff(DiffArgs),
    /// Check that a record holds what an exercise asked for, and that its numbers follow from its samples
    #[command(after_help = "\
Examples:
  isolab check result.json --against docs/exercise.toml
  for r in submissions/*.json; do isolab check \"$r\" --against exercise.toml > \"$r.txt\" || echo \"$r\"; done

Exit status: 0 all demands met, 1 not all, 125 isolab's own error. The form of SPEC: docs/records.md.")]
    Check(CheckArgs),
    /// Import, build, list, inspect, export and remove images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Fetch, build, add, list, inspect and remove guest kernels
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// Make a snapshot: a guest that waits for its command, for `run --from-snapshot`
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "\
Examples:
  isolab snapshot demo                                   make it
  isolab run --level vm --from-snapshot demo -- /isolab-work echo hello
  isolab snapshot --memory 256M --cpus 2 debian          one for each memory and number of CPUs
  isolab snapshot ls && isolab snapshot rm demo@stock,128M,1

A lab keeps nothing: there, --from-snapshot makes the snapshot first where there is none.
What is in a snapshot, and what is not promised: docs/snapshot.md, `isolab explain snapshot`."
    )]
    Snapshot(SnapshotArgs),
    /// Say what this host can do for each level, why not, and the remedy
    #[command(after_help = "\
Examples:
  isolab doctor
  isolab doctor --fix          install what is missing

Exit status: 0 every level can run somewhere, 1 not all, 125 isolab's own error.")]
    Doctor(DoctorArgs),
    /// Run any isolab command inside the emulated lab machine
    #[command(after_help = "\
Examples:
  isolab lab -- doctor
  isolab lab -- run --level vm demo -- /isolab-work uname
  isolab lab --with ./tool --exec -- /lab/with/tool --its-option     a program of your own")]
    Lab(LabArgs),
    /// Say why a flag or refusal appeared, and the remedy
    #[command(after_help = "\
Examples:
  isolab explain               the list of topics
  isolab explain T06           a check of a verdict
  isolab explain exit-codes")]
    Explain(ExplainArgs),
    /// List and remove what killed runs left behind
    #[command(after_help = "\
Examples:
  isolab gc --dry-run
  isolab gc")]
    Gc(GcArgs),
    /// Print shell completions
    #[command(after_help = "Example:\n  isolab completions bash > /etc/bash_completion.d/isolab")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff) of isolab, or of one command
    #[command(after_help = "Example:\n  isolab man run > isolab-run.1 && man ./isolab-run.1")]
    Man {
        /// The command, such as `run` or `image import`.
        command: Vec<String>,
    },
    /// Run commands from standard input, one JSON line each (used by the tests)
    #[command(hide = true)]
    Batch {
        /// Images that the commands use: `isolab lab` hands in what its arguments name.
        images: Vec<String>,
    },
}

/// Where to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum On {
    /// On this machine.
    Host,
    /// In an emulated machine with KVM (QEMU), counting instructions.
    Lab,
    /// On this host, if it can run the levels that are asked for (vm needs hardware KVM), else in the lab.
    Auto,
}

/// What the lab's clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LabClock {
    /// Instructions, 2 ns each; exact, one lab CPU.
    Instructions,
    /// Wall time.
    Wall,
}

/// The job, the same for `run` and `compare`.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// Everything but what is run.
    #[command(flatten)]
    pub(crate) options: JobOptions,
    /// Store name, `demo`, or a path (directory, tar, OCI layout), which is imported
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Command and arguments instead of the image's own
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

impl Deref for JobArgs {
    type Target = JobOptions;

    fn deref(&self) -> &JobOptions {
        &self.options
    }
}

/// How a job is run, the same for `run`, `compare` and `bench`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Job options")]
pub(crate) struct JobOptions {
    /// Where to run
    #[arg(long, value_enum, default_value_t = On::Auto)]
    pub(crate) on: On,
    /// Memory: the container's limit, the guest's RAM [default: 128M]
    #[arg(long, allow_negative_numbers = true, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// CPUs: the container's quota, the guest's vCPUs [default: 1]
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub(crate) cpus: Option<String>,
    /// Most processes of a container [default: 1024]
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub(crate) pids: Option<u32>,
    /// Add or replace an environment variable
    #[arg(long, short, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// Working directory inside
    #[arg(long, short = 'w', value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User and group inside, names or numbers
    #[arg(long, short, value_name = "U[:G]")]
    pub(crate) user: Option<String>,
    /// Host name of a container or guest [default: isolab]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// No writable overlay
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Wall-clock limit, such as 30s or 2m (status 124)
    #[arg(long, allow_negative_numbers = true, value_name = "TIME")]
    pub(crate) timeout: Option<String>,
    /// How long an instance may take until its command runs, a guest's boot included (status 125) [default: 2m]
    #[arg(long, allow_negative_numbers = true, value_name = "TIME")]
    pub(crate) start_timeout: Option<String>,
    /// Guest kernel by name (see `isolab kernel ls`; default: `tuned` where it has been built, else `stock`)
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Option<String>,
    /// Continue the snapshot of IMAGE (`isolab snapshot IMAGE`) instead of starting a guest kernel (vm)
    #[arg(long)]
    pub(crate) from_snapshot: bool,
    /// Give memory that the guest frees back to the host, while it runs (vm)
    #[arg(long)]
    pub(crate) free_page_reporting: bool,
    /// Connect standard input
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// What the lab's clock counts
    #[arg(long, value_enum, default_value_t = LabClock::Instructions, help_heading = "Lab options")]
    pub(crate) lab_clock: LabClock,
    /// Memory of the lab machine
    #[arg(long, value_name = "SIZE", help_heading = "Lab options")]
    pub(crate) lab_memory: Option<String>,
    /// CPUs of the lab machine (2 needs --lab-clock wall)
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Lab options")]
    pub(crate) lab_cpus: u32,
    /// Print the resolved configuration as JSON and stop
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// `isolab run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Level of isolation
    #[arg(long, short, default_value = "container", value_name = "LEVEL")]
    pub(crate) level: String,
    /// Show the guest kernel's console on standard error (vm)
    #[arg(long)]
    pub(crate) guest_console: bool,
    /// End the run when its output and error come to more than this, such as 10M (status 153) [default: no limit]
    #[arg(long, allow_negative_numbers = true, value_name = "SIZE")]
    pub(crate) max_output: Option<String>,
    /// Write a report of the run as one JSON line to this descriptor (used by compare)
    #[arg(long, hide = true, value_name = "FD")]
    pub(crate) report_fd: Option<i32>,
    /// Where a stage of the start ends, make it longer by so many milliseconds, fail, panic or die (a test; repeatable)
    #[arg(long, hide = true, value_name = "STAGE=delay:MS|error|panic|kill")]
    pub(crate) test_fault: Vec<StageFault>,
    /// Leave a mechanism out: seccomp=off, net=host, limits=off of a container, jail=off of a guest (used by compare --vary)
    #[arg(long, hide = true, value_name = "KNOB=VALUE")]
    pub(crate) knob: Vec<String>,
    /// The job.
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// `isolab compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Levels to compare, in this order of the table [default: process,container,vm]
    #[arg(long, visible_alias = "level", value_delimiter = ',', value_name = "LIST")]
    pub(crate) levels: Option<Vec<String>>,
    /// Compare one level (default: container) with itself, one mechanism changed at a time (repeatable): seccomp=on,off
    /// net=private,host (also uts, ipc, cgroupns) limits=on,off jail=on,off overlay=on,off console=off,on free-page-reporting=off,on memory=SIZE,..
    /// cpus=N,.. pids=N,.. kernel=NAME,..;
    /// the first values are the base
    #[arg(long, value_name = "KNOB=A,B")]
    pub(crate) vary: Vec<String>,
    /// Interleaved pairs: all levels once each (default: on a host 30 to 200, until the intervals are narrow; 9 in the lab)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) pairs: Option<u32>,
    /// Pairs before the measured ones, flagged and not analysed [default: 3 on a host, 1 in the lab]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub(crate) warmup: Option<u32>,
    /// Measure 300 pairs, so that 95th and 99th percentiles mean something
    #[arg(long, conflicts_with = "pairs")]
    pub(crate) tail: bool,
    /// Start with image and guest kernel read into memory (the default)
    #[arg(long, conflicts_with = "cold")]
    pub(crate) warm: bool,
    /// Start with image and guest kernel thrown out of the page cache before each run
    #[arg(long)]
    pub(crate) cold: bool,
    /// Print the numbers of a comparison that is refused, with a mark, and end with 0
    #[arg(long)]
    pub(crate) allow_incomparable: bool,
    /// Seed of the order (default: from the clock; stored in the record)
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Where the results go.
    #[command(flatten)]
    pub(crate) output: OutputOptions,
    /// The same in each start (a test; repeatable)
    #[arg(long, hide = true, value_name = "STAGE=delay:MS|error|panic|kill")]
    pub(crate) test_fault: Vec<StageFault>,
    /// Tell on standard output of each run that is done, one line of JSON (used by compare in the lab)
    #[arg(long, hide = true)]
    pub(crate) progress_lines: bool,
    /// The job.
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// Where the results of a measurement or a probe go.
#[derive(Debug, Args)]
pub(crate) struct OutputOptions {
    /// Write the record here, of bench as JSON Lines (`-`: standard output, and nothing else there)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the HTML report here
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print no table
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// `isolab bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Suites, and last the image that holds the workloads [default: demo]
    #[arg(required = true, value_name = "SUITE|IMAGE")]
    pub(crate) words: Vec<String>,
    /// Levels, in this order of the table; the first is the base [default: process,container,vm]
    #[arg(long, visible_alias = "level", value_delimiter = ',', value_name = "LIST")]
    pub(crate) levels: Option<Vec<String>>,
    /// Rounds of every workload at every level (default: 10 on a host, 6 in the lab)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) pairs: Option<u32>,
    /// Rounds before the measured ones, flagged and not analysed, of workloads that are one run each; a batch warms up by
    /// itself [default: 3 on a host, 1 in the lab]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub(crate) warmup: Option<u32>,
    /// density: most instances (default: 16; 4 of vm in the lab)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) max_instances: Option<u32>,
    /// Seed of the order (default: from the clock; stored in the record)
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Where the results go.
    #[command(flatten)]
    pub(crate) output: OutputOptions,
    /// The job.
    #[command(flatten)]
    pub(crate) options: JobOptions,
}

/// `--json` of listings and results.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct JsonArg {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `isolab doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Install what is missing through the distribution's package manager
    #[arg(long)]
    pub(crate) fix: bool,
    /// With --fix: do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `isolab lab`.
#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    /// What the lab's clock counts
    #[arg(long, value_enum, default_value_t = LabClock::Instructions)]
    pub(crate) lab_clock: LabClock,
    /// Memory of the lab machine
    #[arg(long, value_name = "SIZE")]
    pub(crate) lab_memory: Option<String>,
    /// CPUs of the lab machine (2 needs --lab-clock wall)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) lab_cpus: u32,
    /// Copy a file or a directory into the lab, to /lab/with/NAME (repeatable)
    #[arg(long, value_name = "PATH")]
    pub(crate) with: Vec<PathBuf>,
    /// The arguments are a program inside and its arguments, not isolab's; it finds isolab as /lab/isolab
    #[arg(long)]
    pub(crate) exec: bool,
    /// Arguments of the isolab inside
    #[arg(last = true, required = true, value_name = "ISOLAB-ARGS")]
    pub(crate) args: Vec<OsString>,
}

/// `isolab explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Topic (without one: the list)
    pub(crate) topic: Option<String>,
}

/// `isolab gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Only list
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn each_command_that_does_something_has_an_example() {
        fn check(command: &clap::Command) {
            let below = command.get_subcommands().filter(|below| !below.is_hide_set());
            below.for_each(check);
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let asks = command.is_subcommand_required_set() && command.get_name() != "isolab";
            assert!(asks || help.contains("Example"), "{}", command.get_name());
        }
        check(&Cli::command());
    }
}
