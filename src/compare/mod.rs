//! `isolab compare`: interleaved rounds of all levels, one record, one table, one page.

mod executor;
mod output;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use isolab_bench::comparability::Verdict;
use isolab_bench::environment::{ClockKind, Host, HostClass, Noise};
use isolab_bench::measure::{Observer, measure};
use isolab_bench::plan::{PAIRS_IN_LAB, PAIRS_ON_HOST, Plan, Slot, WARMUP_PAIRS};
use isolab_bench::record::{Arm, Record, Rootfs, Run, Skipped, Tool, Workload};
use isolab_bench::sample::Sample;
use isolab_vmm::probe;

use crate::cli::CompareArgs;
use crate::config::JobConfig;
use crate::lab::{LabStdio, Stuck};
use crate::levels::{self, Setup};
use crate::place::{LabJob, Place, choose, in_lab};
use crate::resolve::{self, Resolved};
use crate::{arguments, hint};
use executor::RunExecutor;

/// Where the lab leaves the record.
const RECORD_IN_LAB: &str = "/root/record.json";
/// Labs started for one comparison where QEMU gets stuck. Nothing of a stuck one is kept, so that no sample is chosen.
const LAB_TRIES: u32 = 8;
/// Exit status of a comparison that was refused.
const REFUSED: u8 = 3;

/// Compares, in its place.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<u8> {
    let config = JobConfig::new(&args.job, None)?;
    if args.job.interactive {
        bail!("compare gives its workloads no standard input; leave -i out");
    }
    if args.job.print_config {
        println!("{}", serde_json::to_string_pretty(&config)?);
        return Ok(0);
    }
    for level in &args.levels {
        levels::check_name(level)?;
    }
    output::check(args)?;
    let image = resolve::image(&config.image)?;
    let record = match choose(args.job.on, args.levels.iter().any(|level| level == "vm")) {
        Place::Host => on_host(args, &config, image)?,
        Place::Lab(why) => {
            eprintln!("isolab: running in the lab: {why}");
            match from_lab(args, image)? {
                Ok(record) => record,
                Err(status) => return Ok(status),
            }
        }
    };
    output::write(args, &record)?;
    if record.samples.iter().all(|sample| !sample.ok) {
        let error = record.samples.iter().find_map(|s| s.error.clone());
        bail!("no run succeeded: {}", error.unwrap_or_else(|| "see the record".into()));
    }
    Ok(if record.comparability.verdict == Verdict::Refused { REFUSED } else { 0 })
}

/// The record of the same comparison inside the lab, or the status of the isolab there.
fn from_lab(args: &CompareArgs, image: Resolved) -> anyhow::Result<Result<Record, u8>> {
    let mut arguments = vec!["compare".to_owned(), "--levels".into(), args.levels.join(",")];
    arguments.push(format!("--json={RECORD_IN_LAB}"));
    arguments.push("--quiet".into());
    arguments.extend(args.pairs.map(|n| format!("--pairs={n}")));
    // Chosen out here: inside, the clock starts at the same moment each time.
    arguments.push(format!("--seed={}", seed(args)));
    arguments.extend(arguments::of_job(&args.job, image.entry.reference()));
    let name = args.job.image.clone();
    let mut image = Some(image);
    let mut tries = 1..=LAB_TRIES;
    let outcome = loop {
        let image = image.take().map_or_else(|| resolve::image(&args.job.image), Ok)?;
        let job = LabJob::of(&args.job, arguments.clone(), LabStdio::Output)?;
        match in_lab(job, vec![image], vec![RECORD_IN_LAB.to_owned()]) {
            Err(error) if error.is::<Stuck>() && tries.next().is_some_and(|n| n < LAB_TRIES) => {
                eprintln!("isolab: {error:#}: starting the comparison over in a new lab");
            }
            outcome => break outcome?,
        }
    };
    let Some(bytes) = outcome.files.into_iter().next().flatten() else {
        if outcome.status == 0 {
            bail!("the lab ended without a record");
        }
        return Ok(Err(outcome.status));
    };
    let mut record = Record::from_json(&bytes)?;
    record.workload.image = name;
    record.run.argv = std::env::args().collect();
    Ok(Ok(record))
}

fn seed(args: &CompareArgs) -> u64 {
    let now = || {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::from(d.subsec_nanos()) + d.as_secs())
    };
    args.seed.unwrap_or_else(now)
}

fn on_host(args: &CompareArgs, config: &JobConfig, image: Resolved) -> anyhow::Result<Record> {
    let (digest, reference) = (image.entry.digest.clone(), image.entry.reference().to_owned());
    let job = resolve::job(config, &image, true)?;
    let (runnable, skipped) = split(args, config, &image)?;
    if runnable.is_empty() {
        bail!("none of the levels can run on this host; use --on lab, or see `isolab doctor`");
    }
    let pairs = args.pairs.unwrap_or_else(|| if hint::in_lab() { PAIRS_IN_LAB } else { PAIRS_ON_HOST });
    let plan = Plan::new(runnable.clone(), pairs, WARMUP_PAIRS, seed(args))?;
    let tool = Tool {
        name: "isolab".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        git: option_env!("ISOLAB_GIT").map(str::to_owned),
        dirty: None,
        profile: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
    };
    let run = Run::starting_now(tool, std::env::args().collect(), plan.clone())?;
    let (class, clock) = class();
    let mut host = Host::read(Path::new("/"), class, clock);
    let before = Noise::now(Path::new("/"));
    let mut executor = RunExecutor { arguments: arguments::of_job(&args.job, &reference) };
    let samples = measure(&plan, &mut executor, &mut Progress::new(&plan));
    host.noise = Noise::now(Path::new("/")).since(&before);
    let arms =
        runnable.iter().map(|level| (level.clone(), arm(level, config, &digest))).collect::<BTreeMap<_, _>>();
    let workload = Workload {
        name: format!("{} {}", config.image, job.argv.join(" ")),
        version: env!("CARGO_PKG_VERSION").into(),
        binary_digest: None,
        image: config.image.clone(),
        args: job.argv,
    };
    let mut record = Record::new(run, host, arms, workload, samples);
    record.skipped = skipped;
    for (level, arm) in &record.arms {
        let lost: Vec<&str> = arm.limits_not_enforced.iter().map(String::as_str).collect();
        if !lost.is_empty() {
            eprintln!("isolab: {}", levels::limits::without_defaults(level, &lost));
        }
    }
    Ok(record)
}

/// The levels that this host runs, and why not the others.
fn split(
    args: &CompareArgs,
    config: &JobConfig,
    image: &Resolved,
) -> anyhow::Result<(Vec<String>, Vec<Skipped>)> {
    let (mut runnable, mut skipped) = (Vec::new(), Vec::new());
    for name in &args.levels {
        let setup = Setup {
            image: image.file.try_clone().context("copy the image's descriptor")?,
            kernel: args.job.kernel.clone(),
            guest_console: false,
            asked: config.asked,
        };
        match levels::level(name, setup)?.check() {
            Ok(()) => runnable.push(name.clone()),
            Err(why) => {
                eprintln!("isolab: {name} can't run here: {}; {}", why.reason, why.remedy);
                skipped.push(Skipped { level: name.clone(), reason: why.reason, remedy: why.remedy });
            }
        }
    }
    Ok((runnable, skipped))
}

fn class() -> (HostClass, ClockKind) {
    let lab = std::env::var(hint::LAB_ENV).unwrap_or_default();
    let clock = if lab == "instructions" { ClockKind::Instructions } else { ClockKind::Monotonic };
    let name = if hint::in_lab() { "emulated-lab" } else { hint::host_class(probe::probe(), false) };
    let class = serde_json::from_value(name.into()).unwrap_or(HostClass::None);
    (class, clock)
}

fn arm(level: &str, config: &JobConfig, digest: &str) -> Arm {
    let mut arm = Arm::new(level);
    arm.cpus = Some(config.cpus);
    arm.mem_limit_bytes = (level != "process").then_some(config.memory_bytes);
    arm.rootfs = Rootfs { digest: Some(digest.to_owned()), ..Rootfs::default() };
    arm
}

/// One line on a terminal.
struct Progress {
    total: usize,
    done: usize,
    on: bool,
}

impl Progress {
    fn new(plan: &Plan) -> Self {
        Self { total: plan.order().len(), done: 0, on: std::io::stderr().is_terminal() }
    }
}

impl Observer for Progress {
    fn started(&mut self, slot: &Slot) {
        if self.on {
            eprint!("\rmeasuring {}/{}: {}\u{1b}[K", self.done + 1, self.total, slot.arm);
            let _ = std::io::stderr().flush();
        }
    }

    fn finished(&mut self, sample: &Sample) -> ControlFlow<()> {
        self.done += 1;
        if self.on && self.done == self.total {
            eprint!("\r\u{1b}[K");
        }
        // The first warm-up pair tells what can't run at all: no use in repeating it.
        if sample.error.is_some() && sample.pair == 0 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
