//! Where a command runs: on this machine or in the lab. Never silently somewhere else.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use isolab_bench::density::SystemMemory;
use isolab_images::escape::escaped;
use isolab_images::job::Stdio;
use isolab_images::kernels::{KernelEntry, STOCK};
use isolab_images::store::Store;
use isolab_vmm::probe;

use crate::cli::{JobOptions, LabArgs, LabClock, On, RunArgs};
use crate::config::JobConfig;
use crate::fault::StageFault;
use crate::lab::{self, LabImage, LabOutcome, LabProgress, LabRequest, LabStdio, NotStarted};
use crate::resolve::{self, Resolved};
use crate::units::parse_size;
use crate::{arguments, hint, kernel, levels, run, snapshot, terminal};

/// Memory of the lab beside what the job asks for, in MiB.
const LAB_MIB: u64 = 768;

/// Where, and why not on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Host,
    /// In the lab, because of this.
    Lab(String),
}

/// Decides. `needs_vm`: the host must be able to run a guest kernel in hardware.
pub(crate) fn choose(on: On, needs_vm: bool) -> Place {
    if hint::in_lab() {
        return Place::Host;
    }
    match on {
        On::Host => Place::Host,
        On::Lab => Place::Lab("asked for with --on lab".into()),
        On::Auto if !needs_vm => Place::Host,
        On::Auto => hint::vm_on_host(probe::quick()).map_or(Place::Host, |hint| Place::Lab(hint.reason)),
    }
}

/// `isolab run`, in its place.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn run(args: &RunArgs, main_ns: u64) -> anyhow::Result<u8> {
    let config = JobConfig::new(&args.job, terminal::window())?;
    levels::check_name(&args.level)?;
    // A comparison gives one job to all its levels, and its record says which of them have limits.
    if args.report_fd.is_none() {
        levels::check_options(&args.level, config.asked)?;
        if args.level == "vm" && config.asked.memory {
            check_memory("--memory", config.memory_bytes)?;
        }
    }
    if args.guest_console && args.level != "vm" {
        bail!(
            "--guest-console shows what a guest's kernel says, and level {} has none; use --level vm",
            args.level
        );
    }
    check_lab_options(&args.job)?;
    let budget = args.max_output.as_ref().map(|size| parse_size("--max-output", size)).transpose()?;
    if args.job.print_config {
        say!("{}", isolab_images::escape::json(&config)?);
        return Ok(0);
    }
    match choose(args.job.on, args.level == "vm") {
        Place::Host => {
            if args.report_fd.is_none() {
                snapshot::ensure_in_lab(&config)?;
            }
            run::run(args, &config, budget, main_ns)
        }
        Place::Lab(why) => {
            eprintln!("isolab: running in the lab: {why}");
            let image = resolve::image(&config.image)?;
            let mut arguments = vec!["run".to_owned(), "--level".into(), args.level.clone()];
            if args.guest_console {
                arguments.push("--guest-console".into());
            }
            arguments.extend(budget.map(|bytes| format!("--max-output={bytes}")));
            arguments.extend(args.knob.iter().map(|knob| format!("--knob={knob}")));
            arguments.extend(StageFault::options(&args.test_fault));
            arguments.extend(arguments::of_job(&args.job, image.entry.reference()));
            let stdio = match config.stdio {
                Stdio::Output => LabStdio::Output,
                Stdio::Interactive => LabStdio::Interactive,
                Stdio::Terminal { .. } => LabStdio::Terminal,
            };
            Ok(in_lab(
                LabJob::of(&args.job, &[&config], arguments, stdio)?,
                vec![image],
                vec![],
                &mut |_| {},
            )?
            .status)
        }
    }
}

/// Refuses options of the lab where it is excluded.
///
/// # Errors
/// With the option.
pub(crate) fn check_lab_options(job: &JobOptions) -> anyhow::Result<()> {
    let of_lab = [
        ("--lab-memory", job.lab_memory.is_some()),
        ("--lab-cpus", job.lab_cpus != 1),
        ("--lab-clock", job.lab_clock != LabClock::Instructions),
    ];
    match of_lab.iter().find(|(_, given)| *given) {
        Some((option, _)) if job.on == On::Host => {
            bail!("{option} is for the lab and --on host excludes it; leave one of the two out")
        }
        _ => Ok(()),
    }
}

/// `isolab lab`: any command inside.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn lab(args: &LabArgs) -> anyhow::Result<u8> {
    if hint::in_lab() {
        let hint = hint::lab_in_lab();
        bail!("{}; {}", hint.reason, hint.remedy);
    }
    let words: Option<Vec<String>> = args.args.iter().map(|word| word.to_str().map(str::to_owned)).collect();
    let words = words.context("an argument for the lab is not UTF-8")?;
    let mut wanted = vec![resolve::image(resolve::DEMO)?];
    let store = Store::open_or_create()?;
    for word in &words {
        if let Ok(entry) = store.resolve(word)
            && wanted.iter().all(|known| known.entry.digest != entry.digest)
        {
            wanted.push(Resolved { file: entry.open()?, entry });
        }
    }
    let stdio = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        LabStdio::Terminal
    } else {
        LabStdio::Interactive
    };
    let job = LabJob {
        arguments: words,
        stdio,
        clock: args.lab_clock,
        memory_mib: lab_memory(args.lab_memory.as_deref(), 1 << 30)?,
        cpus: args.lab_cpus,
        kernels: [kernel::store()?.default_name()]
            .into_iter()
            .filter(|name| *name != STOCK)
            .map(str::to_owned)
            .collect(),
        with: args.with.clone(),
        exec: args.exec,
        seed: None,
    };
    match in_lab(job, wanted, vec![], &mut |_| {}) {
        Ok(outcome) => Ok(outcome.status),
        Err(error) => {
            let program: NotStarted = error.downcast()?;
            eprintln!("isolab: {}", escaped(&program.to_string()));
            Ok(program.status())
        }
    }
}

/// What a lab is asked to do.
#[derive(Debug)]
pub(crate) struct LabJob {
    arguments: Vec<String>,
    stdio: LabStdio,
    clock: LabClock,
    memory_mib: u32,
    cpus: u32,
    /// Guest kernels by name, without [`STOCK`], which is always there.
    kernels: Vec<String>,
    with: Vec<PathBuf>,
    exec: bool,
    seed: Option<u64>,
}

impl LabJob {
    /// In a machine that does the same in each run of this seed: its random numbers come from it, its wall clock starts at
    /// the same moment.
    pub(crate) fn repeatable(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// By the options of these jobs: memory for the largest of them, the kernels of all.
    ///
    /// # Errors
    /// A size that can't be read, or no home directory.
    pub(crate) fn of(
        job: &JobOptions,
        jobs: &[&JobConfig],
        arguments: Vec<String>,
        stdio: LabStdio,
    ) -> anyhow::Result<Self> {
        let memory_bytes = jobs.iter().map(|job| job.memory_bytes).max().unwrap_or_default();
        check_memory("--memory", memory_bytes)?;
        let store = kernel::store()?;
        let named = |job: &&JobConfig| job.kernel.clone().unwrap_or_else(|| store.default_name().to_owned());
        let mut kernels: Vec<String> = jobs.iter().map(named).collect();
        kernels.retain(|name| name != STOCK);
        kernels.sort_unstable();
        kernels.dedup();
        Ok(Self {
            arguments,
            stdio,
            clock: job.lab_clock,
            memory_mib: lab_memory(job.lab_memory.as_deref(), memory_bytes)?,
            cpus: job.lab_cpus,
            kernels,
            with: Vec::new(),
            exec: false,
            seed: None,
        })
    }
}

fn lab_memory(asked: Option<&str>, job_bytes: u64) -> anyhow::Result<u32> {
    let mib = match asked {
        Some(text) => {
            let bytes = parse_size("--lab-memory", text)?;
            check_memory("--lab-memory", bytes)?;
            bytes >> 20
        }
        None => LAB_MIB + (job_bytes >> 20),
    };
    u32::try_from(mib).context("the memory of the lab is too large")
}

/// Refuses a machine with more memory than this one has.
fn check_memory(option: &str, bytes: u64) -> anyhow::Result<()> {
    let here = SystemMemory::now(Path::new("/")).context("read the machine's memory")?;
    if bytes > here.total {
        bail!(
            "{option} asks for {} MiB, and this machine has {} MiB, of which {} MiB are available; give less",
            bytes >> 20,
            here.total >> 20,
            here.available >> 20
        );
    }
    Ok(())
}

/// Runs isolab in the lab with these images; `returns` are files inside that come back, `watch` is given the lines of
/// [`LabStdio::Lines`].
///
/// # Errors
/// The lab can't be started or breaks.
pub(crate) fn in_lab(
    job: LabJob,
    images: Vec<Resolved>,
    returns: Vec<String>,
    watch: &mut dyn FnMut(&str),
) -> anyhow::Result<LabOutcome> {
    let stock = stock()?;
    let mut kernels = vec![stock.clone()];
    for name in &job.kernels {
        kernels.push(kernel::store()?.get(name)?);
    }
    let images = images.into_iter().map(handed_in).collect::<anyhow::Result<_>>()?;
    let request = LabRequest {
        args: job.arguments,
        exec: job.exec,
        with: job.with,
        env: vec![(hint::LAB_ENV.to_owned(), clock_name(job.clock).to_owned())],
        images,
        kernel: stock,
        kernels,
        clock: match job.clock {
            LabClock::Instructions => lab::LabClock::Instructions,
            LabClock::Wall => lab::LabClock::Wall,
        },
        memory_mib: job.memory_mib,
        cpus: job.cpus,
        seed: job.seed,
        stdio: job.stdio,
        returns,
    };
    lab::run(request, &mut |progress| match &progress {
        LabProgress::Line(line) => watch(line),
        other => tell(other),
    })
}

/// The value of [`hint::LAB_ENV`].
const fn clock_name(clock: LabClock) -> &'static str {
    match clock {
        LabClock::Instructions => "instructions",
        LabClock::Wall => "wall",
    }
}

fn stock() -> anyhow::Result<KernelEntry> {
    kernel::store()?.get(STOCK).map_err(|_| {
        let hint = hint::no_guest_kernel(STOCK);
        anyhow::anyhow!("{}; {}", hint.reason, hint.remedy)
    })
}

fn handed_in(image: Resolved) -> anyhow::Result<LabImage> {
    let (record, names) = Store::open_or_create()?.records_of(&image.entry)?;
    Ok(LabImage { names, digest: image.entry.digest, record, file: image.file })
}

/// Progress, on a terminal only; warnings always.
fn tell(progress: &LabProgress) {
    let terminal = std::io::stderr().is_terminal();
    match progress {
        LabProgress::Starting if terminal => eprintln!("isolab: lab: starting"),
        LabProgress::Up { kernel, after, warnings } => {
            if terminal {
                eprintln!("isolab: lab: kernel {kernel} up after {:.1} s", after.as_secs_f64());
            }
            for warning in warnings {
                eprintln!("isolab: lab: {warning}");
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_than_the_machine_has_is_refused_by_its_option() {
        let told = |error: anyhow::Error| error.to_string();
        let of_lab = lab_memory(Some("999T"), 0).map_err(told).expect_err("too much");
        assert!(
            of_lab.starts_with("--lab-memory asks for 1047527424 MiB, and this machine has "),
            "{of_lab}"
        );
        let of_job = check_memory("--memory", 999 << 40).map_err(told).expect_err("too much");
        assert!(of_job.starts_with("--memory asks for 1047527424 MiB"), "{of_job}");
        assert_eq!(lab_memory(Some("600M"), 0).expect("there"), 600);
        assert_eq!(lab_memory(None, 4 << 20).expect("there"), 772);
    }
}
