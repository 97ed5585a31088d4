//! `isolab bench`: workload suites and density over the levels, one JSON line for each sample or curve, one table.

mod density;
pub(crate) mod output;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, anyhow, bail};
use isolab_bench::comparability::{Check, Evidence, Verdict, judge, refusal};
use isolab_bench::conditions::CacheState;
use isolab_bench::density::Density;
use isolab_bench::environment::{ClockKind, Host, Noise};
use isolab_bench::plan::{Plan, WARMUP_IN_LAB, WARMUP_ON_HOST};
use isolab_bench::record::{Arm, Workload, identity};
use isolab_bench::run_report::Detail;
use isolab_bench::sample::Sample;
use isolab_bench::suite::lines::{EndLine, Line, RunLine, SCHEMA, SuiteRecord};
use isolab_bench::suite::{
    PAIRS_IN_LAB, PAIRS_ON_HOST, SUITES, Suite, SuitePlan, SuiteSample, Work, WorkLine, suite, summarise,
};

use crate::cli::{BenchArgs, JobArgs};
use crate::compare::executor::RunExecutor;
use crate::compare::page_cache::PageCache;
use crate::compare::settle::Settle;
use crate::compare::{self, RECORD_IN_LAB, file_from_lab};
use crate::config::JobConfig;
use crate::levels::{self, Setup};
use crate::place::{Place, check_lab_options, choose};
use crate::resolve::{self, DEMO, Resolved};
use crate::signals::Signals;
use crate::{OWN_ERROR, REFUSED, arguments, escaped, hint, snapshot};
use output::Sink;

/// Checks that ask for what a suite does not do: the same output of each run, and pairs by the rule of a comparison.
const NOT_ASKED: [&str; 7] = [
    "same-output",
    "T10-number-of-pairs",
    // A round of a suite holds several workloads, so that these would compare one with another.
    "T10-order",
    "T10-drift",
    "T10-autocorrelation",
    "T11-missing-runs",
    "T13-harness",
];
/// Checks of the machine alone, the ones that density has.
const OF_THE_MACHINE: [&str; 5] =
    ["T01-kvm-backend", "T02-nested", "T12-cpu-pressure", "T12-steal", "T12-swap"];
/// The word for the ramp of idle instances.
const DENSITY: &str = "density";

/// Measures, in its place.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<u8> {
    let Words { suites, density, image } = split_words(&args.words)?;
    if args.max_instances.is_some() && !density {
        bail!("--max-instances has no effect without {DENSITY}; leave it out, or add {DENSITY}");
    }
    if args.options.interactive || args.options.tty {
        bail!("bench gives its workloads no standard input; leave -i and -t out");
    }
    check_lab_options(&args.options)?;
    let job = JobArgs { options: args.options.clone(), image, command: vec![] };
    let config = JobConfig::new(&job, None)?;
    if args.options.print_config {
        say!("{}", isolab_images::escape::json(&config)?);
        return Ok(0);
    }
    let levels = compare::levels_of(args.levels.as_ref())?;
    compare::check_snapshot(&config, &levels)?;
    args.output.check()?;
    let image = resolve::image(&config.image)?;
    let record = match choose(args.options.on, levels.iter().any(|level| level == "vm")) {
        Place::Host => {
            let record = on_host(args, (&suites, density), &levels, &job, &config, image)?;
            if let Some(line) = ending(&record, args.output.silent()) {
                eprintln!("isolab: {}", escaped(&line));
            }
            record
        }
        Place::Lab(why) => {
            eprintln!("isolab: running in the lab: {why}");
            match from_lab(args, (&suites, density), &job, &config, image)? {
                Ok(record) => record,
                // The isolab inside has said on standard error what there is to say.
                Err(status) => return Ok(status),
            }
        }
    };
    output::write(&args.output, &record)?;
    Ok(status(&record))
}

/// What the words of the command line name.
struct Words {
    suites: Vec<&'static Suite>,
    density: bool,
    image: String,
}

/// The suites, whether density, and the image that the last word names where it names no suite.
fn split_words(words: &[String]) -> anyhow::Result<Words> {
    let mut suites: Vec<&'static Suite> = Vec::new();
    let (mut density, mut image) = (false, None);
    for (i, word) in words.iter().enumerate() {
        let found: Vec<&'static Suite> =
            if word == "all" { SUITES.iter().collect() } else { suite(word).into_iter().collect() };
        if word == DENSITY {
            density = true;
        } else if found.is_empty() && i > 0 && i + 1 == words.len() {
            image = Some(word.clone());
        } else if found.is_empty() {
            let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
            bail!("there is no suite {word:?}; the suites are {}, {DENSITY}, and all", names.join(", "));
        }
        for suite in found {
            if suites.iter().all(|known| known.name != suite.name) {
                suites.push(suite);
            }
        }
    }
    Ok(Words { suites, density, image: image.unwrap_or_else(|| DEMO.to_owned()) })
}

/// What to say besides the table, which an interrupted run has none of; without a table (`silent`), what that would say.
fn ending(record: &SuiteRecord, silent: bool) -> Option<String> {
    if record.end.interrupted.is_some() {
        let (done, of) = (record.samples.len(), record.run.plan.order().len());
        // Density alone has no runs of a plan.
        let after = if of > 0 { format!(" after {done} of {of} runs") } else { String::new() };
        return Some(format!("interrupted{after}"));
    }
    record.end.failed.clone().or_else(|| refusal(&record.end.checks)).filter(|_| silent)
}

fn status(record: &SuiteRecord) -> u8 {
    if let Some(signal) = record.end.interrupted {
        return 128_u8.saturating_add(signal);
    }
    if record.end.failed.is_some() {
        return OWN_ERROR;
    }
    let nothing = !record.run.plan.tasks.is_empty() && record.samples.iter().all(|sample| !sample.ok);
    if nothing || record.end.verdict == Verdict::Refused { REFUSED } else { 0 }
}

/// The record of the same command inside the lab, or the status of the isolab there.
fn from_lab(
    args: &BenchArgs,
    (suites, density): (&[&'static Suite], bool),
    job: &JobArgs,
    config: &JobConfig,
    image: Resolved,
) -> anyhow::Result<Result<SuiteRecord, u8>> {
    let mut arguments = vec!["bench".to_owned(), format!("--json={RECORD_IN_LAB}"), "--quiet".to_owned()];
    arguments.extend(suites.iter().map(|suite| suite.name.to_owned()));
    arguments.extend(density.then(|| DENSITY.to_owned()));
    arguments.extend(args.max_instances.map(|n| format!("--max-instances={n}")));
    arguments.extend(args.levels.as_ref().map(|levels| format!("--levels={}", levels.join(","))));
    arguments.extend(args.pairs.map(|n| format!("--pairs={n}")));
    arguments.extend(args.warmup.map(|n| format!("--warmup={n}")));
    // Chosen out here: inside, the clock starts at the same moment each time.
    let seed = compare::seed(args.seed);
    arguments.push(format!("--seed={seed}"));
    arguments.extend(arguments::of_job(job, image.entry.reference()));
    let bytes = match file_from_lab(&args.options, &job.image, &[config], seed, image, arguments)? {
        Ok(bytes) => bytes,
        Err(status) => return Ok(Err(status)),
    };
    let mut record = SuiteRecord::from_text(&bytes)?;
    // The lab's clock says the same in each run.
    (record.run.id, record.run.started_unix_ns) = identity()?;
    record.run.argv = std::env::args().collect();
    record.run.image.clone_from(&job.image);
    Sink::open(&args.output)?.whole(&record.to_text()?)?;
    Ok(Ok(record))
}

fn on_host(
    args: &BenchArgs,
    (suites, density): (&[&'static Suite], bool),
    levels: &[String],
    job: &JobArgs,
    config: &JobConfig,
    image: Resolved,
) -> anyhow::Result<SuiteRecord> {
    snapshot::ensure_in_lab(config)?;
    let (digest, reference) = (image.entry.digest.clone(), image.entry.reference().to_owned());
    let silent = args.output.silent();
    let (runnable, skipped) = compare::split(args.levels.is_some(), silent, levels, config, &image)?;
    let pairs = args.pairs.unwrap_or_else(|| if hint::in_lab() { PAIRS_IN_LAB } else { PAIRS_ON_HOST });
    let warmup = args.warmup.unwrap_or_else(|| if hint::in_lab() { WARMUP_IN_LAB } else { WARMUP_ON_HOST });
    let base = Plan::new(runnable.clone(), pairs, warmup, compare::seed(args.seed))?;
    let (class, clock) = compare::class();
    let interrupted = Rc::new(Cell::new(None));
    let kernel = PageCache::kernel_of(&runnable, job.kernel.as_deref())?;
    let mut bench = Bench {
        executor: RunExecutor {
            page_cache: PageCache::new(CacheState::Warm, &image.file, kernel.as_deref())?,
            arms: BTreeMap::new(),
            faults: Vec::new(),
            signals: Signals::catch().context("catch signals")?,
            settle: (clock == ClockKind::Instructions).then(Settle::new),
            interrupted: Rc::clone(&interrupted),
        },
        job,
        reference,
    };
    let mut sink = Sink::open(&args.output)?;
    let plan = SuitePlan::new(suites, &base, |work| bench.calibrate(work, &runnable[0]))?;
    let (id, started_unix_ns) = identity()?;
    let run = RunLine {
        schema: SCHEMA.to_owned(),
        id,
        started_unix_ns,
        tool: compare::tool(),
        argv: std::env::args().collect(),
        image: job.image.clone(),
        plan,
        host: Host::read(Path::new("/"), class, clock),
        skipped,
    };
    let before = Noise::now(Path::new("/"));
    sink.line(&Line::Run(Box::new(run.clone())))?;
    let (samples, runs) = bench.measure(&run.plan, &mut sink)?;
    let mut arms: BTreeMap<String, Arm> =
        runnable.iter().map(|level| (level.clone(), compare::arm(level, config, &digest))).collect();
    for (name, arm) in &mut arms {
        arm.learn(name, &runs);
    }
    let workload = Workload {
        name: suites.iter().map(|suite| suite.name).collect::<Vec<_>>().join(" "),
        version: env!("CARGO_PKG_VERSION").into(),
        binary_digest: None,
        image: job.image.clone(),
        args: vec![],
        times_files: Some(suites.iter().all(|suite| suite.name == "file")),
    };
    let summaries = summarise(&run.plan, &samples);
    for summary in &summaries {
        sink.line(&Line::Summary(summary.clone()))?;
    }
    let (mut densities, mut failed) = (Vec::new(), None);
    for level in runnable.iter().filter(|_| density) {
        if interrupted.get().is_some() {
            break;
        }
        let most = density::most(args.max_instances, level);
        let (curve, detail) = match bench.density(level, most, config, &image) {
            Ok(measured) => measured,
            Err(error) if samples.is_empty() && densities.is_empty() => return Err(error),
            // What is measured already is worth its record.
            Err(error) => {
                failed = Some(format!("{error:#}"));
                break;
            }
        };
        if let Some(arm) = arms.get_mut(level) {
            arm.learn_from(&detail);
        }
        sink.line(&Line::Density(curve.clone()))?;
        densities.push(curve);
    }
    let mut host = run.host.clone();
    host.noise = Noise::now(Path::new("/")).since(&before);
    let mut checks =
        checks(Evidence { plan: &base, host: &host, arms: &arms, workload: &workload, samples: &runs });
    if run.plan.tasks.is_empty() {
        checks.retain(|check| OF_THE_MACHINE.contains(&check.id.as_str()));
    }
    let verdict = Verdict::of(&checks);
    let end = EndLine { arms, verdict, checks, noise: host.noise, interrupted: interrupted.get(), failed };
    sink.line(&Line::End(Box::new(end.clone())))?;
    Ok(SuiteRecord { run, samples, summaries, densities, end })
}

fn checks(evidence: Evidence<'_>) -> Vec<Check> {
    let mut checks = judge(evidence).checks;
    checks.retain(|check| !NOT_ASKED.contains(&check.id.as_str()));
    checks
}

/// What runs the workloads.
struct Bench<'a> {
    executor: RunExecutor,
    job: &'a JobArgs,
    /// The image in the store.
    reference: String,
}

impl Bench<'_> {
    /// Arguments of `isolab run` for one command.
    fn arguments(&self, command: &[String]) -> Vec<String> {
        let job = JobArgs {
            options: self.job.options.clone(),
            image: self.reference.clone(),
            command: command.to_vec(),
        };
        arguments::of_job(&job, &self.reference)
    }

    /// The batch size that takes long enough at the base level.
    fn calibrate(&mut self, work: &'static Work, level: &str) -> anyhow::Result<u64> {
        let command = work.calibration();
        let arguments = self.arguments(&command);
        let name = work.name();
        let (execution, printed) = self
            .executor
            .run(level, &arguments)
            .map_err(|e| anyhow!(e))
            .with_context(|| format!("find the batch size of {name} at {level}"))?;
        match execution.report.status {
            0 => Ok(WorkLine::last_of(&printed)
                .with_context(|| format!("find the batch size of {name} at {level}"))?
                .n),
            127 => bail!(
                "image {:?} holds no {}; the image demo does",
                self.job.image,
                isolab_bench::suite::PROGRAM
            ),
            status => bail!("find the batch size of {name} at {level}: it ended with status {status}"),
        }
    }

    /// One level's density curve.
    fn density(
        &mut self,
        level: &str,
        most: u32,
        config: &JobConfig,
        image: &Resolved,
    ) -> anyhow::Result<(Density, Detail)> {
        progress(format_args!("up to {most} idle instances at {level}"));
        let command = density::IDLE.map(str::to_owned).to_vec();
        let config = JobConfig { command, ..config.clone() };
        let level = levels::level(level, Setup::of(&config, image)?)?;
        let ramp = density::Ramp {
            level: level.as_ref(),
            job: &resolve::job(&config, image, true)?,
            signals: &mut self.executor.signals,
            interrupted: Rc::clone(&self.executor.interrupted),
        };
        let curve = ramp.run(most);
        end_progress();
        curve
    }

    /// Carries out the plan.
    fn measure(
        &mut self,
        plan: &SuitePlan,
        sink: &mut Sink,
    ) -> anyhow::Result<(Vec<SuiteSample>, Vec<Sample>)> {
        let order = plan.order();
        let (mut samples, mut runs) = (Vec::new(), Vec::new());
        for slot in &order {
            let Some(task) = plan.tasks.get(slot.task) else { continue };
            let (n, of, arm) = (slot.slot.seq + 1, order.len(), &slot.slot.arm);
            progress(format_args!("{n}/{of}: {} at {arm}", task.workload));
            let arguments = self.arguments(&task.command);
            let executed = self.executor.run(&slot.slot.arm, &arguments);
            // What was ended is no measurement.
            if self.executor.interrupted.get().is_some() {
                break;
            }
            let (sample, run) = SuiteSample::new(plan, slot, executed);
            sink.line(&Line::Sample(Box::new(sample.clone())))?;
            samples.push(sample);
            runs.push(run);
        }
        end_progress();
        Ok((samples, runs))
    }
}

/// One line on a terminal.
fn progress(what: std::fmt::Arguments<'_>) {
    if std::io::stderr().is_terminal() {
        eprint!("\rmeasuring {what}\u{1b}[K");
        // Progress only.
        let _ = std::io::stderr().flush();
    }
}

fn end_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\u{1b}[K");
    }
}
