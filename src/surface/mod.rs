//! `isolab surface`: which system calls of the host's kernel each level may ask for, and which it did.
//!
//! In order, for each level: what the filters allow, from the filters themselves ([`mod@allowed`]); then runs ([`run`]), each traced by the
//! kernel in a trace of its own ([`instance`]); their lines ([`events`]) are put down to the workload, the monitor's threads, or isolab
//! ([`tally`]). With `--depth` one more run has all tracepoints on ([`mod@depth`], [`pages`]). No time and no memory is taken of such a run.

mod allowed;
mod depth;
mod events;
pub(crate) mod instance;
mod pages;
mod run;
mod tally;

use std::path::Path;

use anyhow::{Context, bail};
use isolab_bench::environment::Host;
use isolab_bench::report::surface as text;
use isolab_bench::surface::{BLIND_SPOTS, Depth, LevelSurface, SCHEMA, SurfaceRecord};
use isolab_container::seccomp::GROUPS;

use self::allowed::allowed;
use self::depth::Tracepoints;
use self::instance::Instance;
use self::run::Ended;
use self::tally::{Launcher, Shape, Tally};
use crate::cli::SurfaceArgs;
use crate::compare::{self, RECORD_IN_LAB};
use crate::config::JobConfig;
use crate::output::{is_stdout, put_to, text_style};
use crate::place::{Place, check_lab_options, choose};
use crate::resolve::{self, Resolved};
use crate::signals::Signals;
use crate::{OWN_ERROR, arguments, clock, say};

/// Traces, in its place.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn surface(args: &SurfaceArgs) -> anyhow::Result<u8> {
    if args.job.interactive || args.job.tty {
        bail!("surface gives its runs no input of yours; leave -i and -t out");
    }
    if args.job.print_config {
        bail!("--print-config is for run, compare and bench");
    }
    check_lab_options(&args.job)?;
    let config = JobConfig::new(&args.job, None)?;
    let levels = compare::levels_of(args.levels.as_ref())?;
    if let Some(path) = &args.json {
        crate::output::check_path(path)?;
    }
    let image = resolve::image(&config.image)?;
    let record = match choose(args.job.on, levels.iter().any(|level| level == "vm")) {
        Place::Host => match on_host(args, &levels, &config, &image)? {
            Ok(record) => record,
            Err(signal) => return Ok(128_u8.saturating_add(signal)),
        },
        Place::Lab(why) => {
            eprintln!("isolab: running in the lab: {why}");
            match from_lab(args, &config, image)? {
                Ok(record) => record,
                // The isolab inside has said on standard error what there is to say.
                Err(status) => return Ok(status),
            }
        }
    };
    let silent = args.json.as_deref().is_some_and(is_stdout);
    let table = if silent { Ok(()) } else { say::all(text::render(&record, text_style(true), args.names)) };
    let json = put_to(args.json.as_ref(), || Ok(record.to_json()?));
    table.and(json).map(|()| 0)
}

/// The record of the same inside the lab, or the status of the isolab there.
fn from_lab(
    args: &SurfaceArgs,
    config: &JobConfig,
    image: Resolved,
) -> anyhow::Result<Result<SurfaceRecord, u8>> {
    let mut arguments = vec!["surface".to_owned(), format!("--json={RECORD_IN_LAB}")];
    arguments.extend(args.levels.as_ref().map(|levels| format!("--levels={}", levels.join(","))));
    arguments.push(format!("--runs={}", args.runs));
    arguments.extend(args.sweep.then(|| "--sweep".to_owned()));
    arguments.extend(args.depth.then(|| "--depth".to_owned()));
    arguments.extend(arguments::of_job(&args.job, image.entry.reference()));
    let name = args.job.image.clone();
    let seed = compare::seed(None);
    let bytes = match compare::file_from_lab(&args.job, &name, &[config], seed, image, arguments)? {
        Ok(bytes) => bytes,
        Err(status) => return Ok(Err(status)),
    };
    let mut record = SurfaceRecord::from_json(&bytes).context("read the lab's record")?;
    // The lab's clock says the same in each run.
    record.started_unix_ns = clock::now_unix_ns()?;
    record.argv = std::env::args().collect();
    record.image = name;
    Ok(Ok(record))
}

fn on_host(
    args: &SurfaceArgs,
    levels: &[String],
    config: &JobConfig,
    image: &Resolved,
) -> anyhow::Result<Result<SurfaceRecord, u8>> {
    let started_unix_ns = clock::now_unix_ns()?;
    crate::snapshot::ensure_in_lab(config)?;
    let (levels, _) = compare::split(args.levels.is_some(), true, levels, config, image)?;
    let mut signals = Signals::catch_ending().context("catch signals")?;
    let instance = Instance::new()?;
    let (class, clock) = compare::class();
    let mut surfaces = Vec::new();
    for level in levels {
        match at_level(args, &level, config, image, &instance, &mut signals)? {
            Ok(surface) => surfaces.push(surface),
            Err(signal) => return Ok(Err(signal)),
        }
    }
    let command = if args.sweep { vec![] } else { resolve::job(config, image, false)?.argv };
    Ok(Ok(SurfaceRecord {
        schema: SCHEMA.to_owned(),
        tool: compare::tool(),
        started_unix_ns,
        argv: std::env::args().collect(),
        host: Host::read(Path::new("/"), class, clock),
        image: config.image.clone(),
        command,
        runs: args.runs,
        known_calls: GROUPS.iter().map(|group| group.calls.len()).sum(),
        levels: surfaces,
        blind_spots: BLIND_SPOTS.iter().map(|spot| (*spot).to_owned()).collect(),
    }))
}

fn at_level(
    args: &SurfaceArgs,
    level: &str,
    config: &JobConfig,
    image: &Resolved,
    instance: &Instance,
    signals: &mut Signals,
) -> anyhow::Result<Result<LevelSurface, u8>> {
    let mut tally = Tally::new(shape(level, args.sweep));
    let mut statuses = Vec::new();
    let ours = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).context("our own number")?;
    let launcher = if args.sweep { Launcher::Is(ours) } else { Launcher::StartedBy(ours) };
    for _ in 0..args.runs {
        instance.start()?;
        let ran = match args.sweep {
            true => run::sweep(level, config, image, signals),
            false => run::run(args, level, image, signals),
        };
        let trace = instance.stop();
        let Ended { status, complaint } = match ran? {
            Ok(ended) => ended,
            Err(signal) => return Ok(Err(signal)),
        };
        let trace = trace?;
        let complaint = complaint.unwrap_or_default();
        let status = match status {
            None | Some(OWN_ERROR) => bail!("a run at level {level} failed: {complaint}"),
            // Of a command that did not begin, as isolab says, there is nothing to tell.
            Some(126 | 127) if !complaint.is_empty() => bail!("a run at level {level} failed: {complaint}"),
            Some(status) => status,
        };
        statuses.push(status);
        let events: Vec<_> = events::read(&trace).collect();
        tally.add(&events, launcher).map_err(|why| anyhow::anyhow!("level {level}: {why}: {complaint}"))?;
    }
    let (reached, door) = (tally.reached(), tally.door());
    let depth = match args.depth.then(|| depth(args, level, config, image, (instance, launcher), signals)) {
        Some(Ok(Err(signal))) => return Ok(Err(signal)),
        Some(Ok(Ok(depth))) => Some(depth),
        // The rest of the level stands without it.
        Some(Err(why)) => Some(depth::not_measured(&why)),
        None => None,
    };
    Ok(Ok(LevelSurface { level: level.to_owned(), allowed: allowed(level), reached, door, statuses, depth }))
}

/// One more run, with every tracepoint on.
fn depth(
    args: &SurfaceArgs,
    level: &str,
    config: &JobConfig,
    image: &Resolved,
    (instance, launcher): (&Instance, Launcher),
    signals: &mut Signals,
) -> anyhow::Result<Result<Depth, u8>> {
    let points = Tracepoints::read(instance)?;
    let started = points.start(instance);
    let ran = started.and_then(|()| match args.sweep {
        true => run::sweep(level, config, image, signals),
        false => run::run(args, level, image, signals),
    });
    let stopped = points.stop(instance);
    if let Err(signal) = ran? {
        return Ok(Err(signal));
    }
    stopped?;
    points.passed(instance, shape(level, args.sweep), launcher).map(Ok)
}

/// What becomes a program before the command: an isolab of its own where it has one, and process 1 of a container.
fn shape(level: &str, from_here: bool) -> Shape {
    match level {
        "vm" => Shape::Guest,
        "container" => Shape::Programs(2 - usize::from(from_here)),
        _ => Shape::Programs(1 - usize::from(from_here)),
    }
}
