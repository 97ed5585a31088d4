//! `isolab compare`: interleaved rounds of all levels, one record, one table, one page.

mod arms;
pub(crate) mod executor;
mod fixed_loop;
mod output;
pub(crate) mod page_cache;
mod progress;
pub(crate) mod settle;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use isolab_bench::comparability::refusal;
use isolab_bench::conditions::CacheState;
use isolab_bench::environment::{ClockKind, Host, HostClass, Noise};
use isolab_bench::measure::{Measured, measure};
use isolab_bench::plan::{PAIRS_FOR_TAIL, PAIRS_IN_LAB, Plan, WARMUP_IN_LAB, WARMUP_ON_HOST, pairs_done};
use isolab_bench::record::{Arm, Record, Rootfs, Run, Skipped, Tool, Workload};
use isolab_bench::sample::Sample;
use isolab_bench::stop::{MOST_PAIRS, Stop};
use isolab_images::digest::Digest;
use isolab_vmm::probe;

use crate::cli::{CompareArgs, JobOptions, LabClock};
use crate::config::JobConfig;
use crate::fault::StageFault;
use crate::lab::{LabStdio, Stuck};
use crate::levels::{self, Setup};
use crate::output::is_stdout;
use crate::place::{LabJob, Place, choose, in_lab};
use crate::resolve::{self, Resolved};
use crate::signals::Signals;
use crate::{OWN_ERROR, REFUSED, arguments, escaped, hint, snapshot};
use arms::ArmPlan;
use executor::RunExecutor;
use page_cache::PageCache;
use progress::{Progress, Step, Table};
use settle::Settle;

/// Where the lab leaves the record.
pub(crate) const RECORD_IN_LAB: &str = "/root/record.json";
/// Labs started for one comparison where QEMU gets stuck. Nothing of a stuck one is kept, so that no sample is chosen.
const LAB_TRIES: u32 = 8;

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
        say!("{}", isolab_images::escape::json(&config)?);
        return Ok(0);
    }
    let (levels, arms) = if args.vary.is_empty() {
        let levels = levels_of(args.levels.as_ref())?;
        let arms = ArmPlan::of_levels(&levels, &args.job)?;
        (levels, arms)
    } else {
        let level = arms::varied_level(args)?;
        levels::check_name(&level)?;
        let arms = ArmPlan::of_knobs(&level, &args.vary, &args.job)?;
        (vec![level], arms)
    };
    check_snapshot(&config, &levels)?;
    if args.cold && config.from_snapshot {
        bail!("--cold does not reach the files of a snapshot, which running guests hold; leave it out");
    }
    args.output.check()?;
    let image = resolve::image(&config.image)?;
    let record = match choose(args.job.on, levels.iter().any(|level| level == "vm")) {
        Place::Host => on_host(args, (&levels, arms), &config, image)?,
        Place::Lab(why) => {
            eprintln!("isolab: running in the lab: {why}");
            match from_lab(args, &arms, image)? {
                Ok(record) => record,
                // The isolab inside has said on standard error what there is to say.
                Err(status) => return Ok(status),
            }
        }
    };
    output::write(&args.output, &record)?;
    let (status, line) = end(&record);
    // The table says why it is refused, where there is one.
    let line = line.or_else(|| refusal(&record.comparability.checks).filter(|_| args.output.silent()));
    // In the lab the isolab outside says it, as the record reaches it.
    if let Some(line) = line.filter(|_| !args.progress_lines) {
        let kept =
            args.output.json.as_ref().filter(|path| record.run.interrupted.is_some() && !is_stdout(path));
        let kept = kept.map(|path| format!("; the record is {}", path.display())).unwrap_or_default();
        eprintln!("isolab: {}", escaped(&(line + &kept)));
    }
    Ok(status)
}

/// Refuses to set instances that continue from a snapshot against others: no sentence would be true of both (T15).
///
/// # Errors
/// With the levels that have no snapshots.
pub(crate) fn check_snapshot(config: &JobConfig, levels: &[String]) -> anyhow::Result<()> {
    if config.from_snapshot && levels.iter().any(|level| level != "vm") {
        bail!(
            "--from-snapshot measures restored guests, which are not compared with cold starts (T15); use --levels vm"
        );
    }
    Ok(())
}

/// The exit status of a comparison, and what to say about it.
fn end(record: &Record) -> (u8, Option<String>) {
    let refused = record.comparability.forbids_statements();
    if let Some(signal) = record.run.interrupted {
        let (done, plan) = (pairs_done(&record.run.plan, &record.samples), &record.run.plan);
        let least = plan.least_pairs();
        let of = if done < least { least.to_string() } else { format!("at most {}", plan.pairs) };
        return (128_u8.saturating_add(signal), Some(format!("interrupted after {done} of {of} pairs")));
    }
    let failed = record.samples.iter().find(|s| !s.ok);
    let Some(first) = failed.filter(|_| !record.samples.iter().any(Sample::analysed)) else {
        return (if refused { REFUSED } else { 0 }, None);
    };
    // An error of isolab's own stays one.
    let own = first.error.is_some() || first.status == Some(OWN_ERROR);
    let why = first.error.as_ref().or_else(|| first.flags.first());
    let line = format!("no run succeeded: {}", why.map_or("none ended by itself", String::as_str));
    (if own { OWN_ERROR } else { REFUSED }, Some(line))
}

/// The levels that were asked for, or all.
///
/// # Errors
/// No level, or one twice.
pub(crate) fn levels_of(asked: Option<&Vec<String>>) -> anyhow::Result<Vec<String>> {
    let levels = asked.cloned().unwrap_or_else(|| levels::names().map(str::to_owned).collect());
    for (i, level) in levels.iter().enumerate() {
        levels::check_name(level)?;
        if levels[..i].contains(level) {
            bail!("--levels names {level} twice; name each level once");
        }
    }
    Ok(levels)
}

/// The record of the same comparison inside the lab, or the status of the isolab there.
fn from_lab(args: &CompareArgs, arms: &[ArmPlan], image: Resolved) -> anyhow::Result<Result<Record, u8>> {
    let mut arguments = vec!["compare".to_owned()];
    arguments.extend(args.levels.as_ref().map(|levels| format!("--levels={}", levels.join(","))));
    arguments.extend(args.vary.iter().map(|knob| format!("--vary={knob}")));
    arguments.push(format!("--json={RECORD_IN_LAB}"));
    arguments.push("--quiet".into());
    // Whether or not somebody watches: what is measured does not depend on it.
    arguments.push("--progress-lines".into());
    arguments.extend(args.pairs.map(|n| format!("--pairs={n}")));
    arguments.extend(args.warmup.map(|n| format!("--warmup={n}")));
    let flags = [
        (args.tail, "--tail"),
        (args.cold, "--cold"),
        (args.warm, "--warm"),
        (args.allow_incomparable, "--allow-incomparable"),
    ];
    arguments.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()));
    arguments.extend(StageFault::options(&args.test_fault));
    // Chosen out here: inside, the clock starts at the same moment each time.
    let seed = seed(args.seed);
    arguments.push(format!("--seed={seed}"));
    arguments.extend(arguments::of_job(&args.job, image.entry.reference()));
    let name = args.job.image.clone();
    let jobs: Vec<&JobConfig> = arms.iter().map(ArmPlan::config).collect();
    let bytes = match file_from_lab(&args.job, &name, &jobs, seed, image, arguments)? {
        Ok(bytes) => bytes,
        Err(status) => return Ok(Err(status)),
    };
    let mut record = Record::from_json(&bytes)?;
    // The lab's clock says the same in each run.
    record.run.stamp()?;
    record.workload.image = name;
    record.quote();
    record.run.argv = std::env::args().collect();
    Ok(Ok(record))
}

/// The file that an isolab with these arguments leaves in a lab as [`RECORD_IN_LAB`], or its status where it leaves none.
///
/// # Errors
/// The lab can't be started or breaks.
pub(crate) fn file_from_lab(
    options: &JobOptions,
    name: &str,
    jobs: &[&JobConfig],
    seed: u64,
    image: Resolved,
    arguments: Vec<String>,
) -> anyhow::Result<Result<Vec<u8>, u8>> {
    let mut image = Some(image);
    let mut tries = 1..=LAB_TRIES;
    let outcome = loop {
        let image = image.take().map_or_else(|| resolve::image(name), Ok)?;
        let job = LabJob::of(options, jobs, arguments.clone(), LabStdio::Lines)?.repeatable(seed);
        let mut table = Table::on_a_terminal(options.lab_clock == LabClock::Instructions);
        let mut watch = |line: &str| {
            if let (Some(table), Ok(step)) = (&mut table, serde_json::from_str::<Step>(line)) {
                table.show(&step);
            }
        };
        match in_lab(job, vec![image], vec![RECORD_IN_LAB.to_owned()], &mut watch) {
            Err(error) if error.is::<Stuck>() && tries.next().is_some_and(|n| n < LAB_TRIES) => {
                eprintln!("isolab: {error:#}: starting the measuring over in a new lab");
            }
            outcome => break outcome?,
        }
    };
    match outcome.files.into_iter().next().flatten() {
        Some(bytes) => Ok(Ok(bytes)),
        None if outcome.status == 0 => bail!("the lab ended without a record"),
        None => {
            if outcome.status > 128 {
                eprintln!("isolab: interrupted: the lab ended without a record");
            }
            Ok(Err(outcome.status))
        }
    }
}

/// This program, as records name it. Reads all of its file: once for each record.
pub(crate) fn tool() -> Tool {
    Tool {
        name: "isolab".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        git: option_env!("ISOLAB_GIT").map(str::to_owned),
        dirty: None,
        profile: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
        digest: File::open("/proc/self/exe").and_then(Digest::of_file).ok().map(|digest| digest.to_string()),
    }
}

/// The seed that was asked for, or one from the clock.
pub(crate) fn seed(asked: Option<u64>) -> u64 {
    let now = || {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::from(d.subsec_nanos()) + d.as_secs())
    };
    asked.unwrap_or_else(now)
}

fn on_host(
    args: &CompareArgs,
    (levels, mut arms): (&[String], Vec<ArmPlan>),
    config: &JobConfig,
    image: Resolved,
) -> anyhow::Result<Record> {
    arms.iter().try_for_each(|arm| snapshot::ensure_in_lab(arm.config()))?;
    let (digest, reference) = (image.entry.digest.clone(), image.entry.reference().to_owned());
    let job = resolve::job(config, &image, true)?;
    let (runnable, skipped) =
        split(args.levels.is_some() || !args.vary.is_empty(), args.output.silent(), levels, config, &image)?;
    arms.retain(|arm| runnable.contains(&arm.level));
    let plan = plan(args, arms.iter().map(|arm| arm.name.clone()).collect())?;
    let mut run = Run::starting_now(tool(), std::env::args().collect(), plan.clone())?;
    let (class, clock) = class();
    let mut host = Host::read(Path::new("/"), class, clock);
    // A clock of instructions has no frequency.
    let loop_ns = || (!hint::in_lab()).then(fixed_loop::time_ns);
    let loop_before = loop_ns();
    let before = Noise::now(Path::new("/"));
    let interrupted = Rc::new(Cell::new(None));
    let kernel = PageCache::kernel_of(&runnable, args.job.kernel.as_deref())?;
    let mut executor = RunExecutor {
        page_cache: PageCache::new(cache_state(args), &image.file, kernel.as_deref())?,
        arms: arms.iter().map(|arm| (arm.name.clone(), arm.run(&reference))).collect(),
        faults: args.test_fault.clone(),
        signals: Signals::catch().context("catch signals")?,
        settle: (clock == ClockKind::Instructions).then(Settle::new),
        interrupted: Rc::clone(&interrupted),
    };
    let mut progress = Progress::new(&plan, Rc::clone(&interrupted), args.progress_lines);
    let Measured { mut samples, ended } = measure(&plan, &mut executor, &mut progress);
    drop(progress);
    run.interrupted = interrupted.get();
    if run.interrupted.is_some() {
        // What was ended is no measurement.
        samples.pop();
    }
    run.ended = Some(ended);
    host.finish(Path::new("/"), &before);
    host.noise.fixed_loop_ns = loop_before.zip(loop_ns()).map(|(before, after)| [before, after]);
    let known = arms.iter().map(|arm| (arm.name.clone(), arm.arm(&digest))).collect::<BTreeMap<_, _>>();
    let workload = Workload {
        name: format!("{} {}", config.image, job.argv.join(" ")),
        version: env!("CARGO_PKG_VERSION").into(),
        binary_digest: None,
        image: config.image.clone(),
        args: job.argv,
        times_files: None,
    };
    let mut record = Record::new(run, host, known, workload, samples);
    if !args.vary.is_empty() {
        record = record.with_changes(arms.into_iter().filter_map(|arm| arm.change).collect());
    }
    record.skipped = skipped;
    if args.allow_incomparable {
        record.comparability.allow_incomparable();
    }
    for (level, arm) in &record.arms {
        let lost: Vec<&str> = arm.limits_not_enforced.iter().map(String::as_str).collect();
        if !lost.is_empty() {
            eprintln!("isolab: {}", levels::limits::without_defaults(level, &lost));
        }
    }
    Ok(record)
}

/// What is run: a number of pairs where the user gives one or the clock counts instructions, else until intervals are narrow.
fn plan(args: &CompareArgs, levels: Vec<String>) -> anyhow::Result<Plan> {
    let asked = args.pairs.or_else(|| args.tail.then_some(PAIRS_FOR_TAIL));
    let (default, warmup) =
        if hint::in_lab() { (PAIRS_IN_LAB, WARMUP_IN_LAB) } else { (MOST_PAIRS, WARMUP_ON_HOST) };
    let warmup = args.warmup.unwrap_or(warmup);
    let plan = Plan::new(levels, asked.unwrap_or(default), warmup, seed(args.seed))?.with_control();
    let plan = Plan { cache: Some(cache_state(args)), ..plan };
    Ok(if asked.is_some() || hint::in_lab() { plan } else { plan.stopping(Stop::ON_HOST) })
}

/// The state of the page cache before each run.
const fn cache_state(args: &CompareArgs) -> CacheState {
    if args.cold { CacheState::Cold } else { CacheState::Warm }
}

/// The levels that this host runs, and why not the others; said at once, where no table will say it.
///
/// # Errors
/// A level that was asked for can't run, or none can.
pub(crate) fn split(
    asked: bool,
    silent: bool,
    levels: &[String],
    config: &JobConfig,
    image: &Resolved,
) -> anyhow::Result<(Vec<String>, Vec<Skipped>)> {
    let (mut runnable, mut skipped) = (Vec::new(), Vec::new());
    for name in levels {
        match levels::level(name, Setup::of(config, image)?)?.check() {
            Ok(()) => runnable.push(name.clone()),
            Err(why) if asked => {
                bail!("{name} can't run here: {}; {}", why.reason, why.remedy);
            }
            Err(why) => {
                // The table says it, where there is one.
                if silent {
                    eprintln!("isolab: {name} can't run here: {}; {}", why.reason, why.remedy);
                }
                skipped.push(Skipped { level: name.clone(), reason: why.reason, remedy: why.remedy });
            }
        }
    }
    if runnable.is_empty() {
        bail!("none of the levels can run on this host; use --on lab, or see `isolab doctor`");
    }
    Ok((runnable, skipped))
}

/// What this machine is, and what its clock counts.
pub(crate) fn class() -> (HostClass, ClockKind) {
    let lab = std::env::var(hint::LAB_ENV).unwrap_or_default();
    let clock = if lab == "instructions" { ClockKind::Instructions } else { ClockKind::Monotonic };
    let name = if hint::in_lab() { "emulated-lab" } else { hint::host_class(probe::probe(), false) };
    let class = serde_json::from_value(name.into()).unwrap_or(HostClass::None);
    (class, clock)
}

/// What is known of an arm before it runs.
pub(crate) fn arm(level: &str, config: &JobConfig, digest: &str) -> Arm {
    let mut arm = Arm::new(level);
    arm.cpus = Some(config.cpus);
    arm.mem_limit_bytes = (level != "process").then_some(config.memory_bytes);
    arm.rootfs = Rootfs { digest: Some(digest.to_owned()), ..Rootfs::default() };
    let arm = if config.from_snapshot { arm.restored() } else { arm };
    if config.free_page_reporting && level == "vm" { arm.reporting() } else { arm }
}
