//! `isolab run`: one job at one level.

use std::fs::File;
use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use isolab_bench::port::{End, Level, Outcome};
use isolab_bench::run_report::RunReport;
use isolab_container::trace;
use isolab_images::erofs::{Image, NodeKind};
use isolab_images::escape::Escaped;
use isolab_images::job::{Job, Stdio};
use isolab_wire::mark::{Code, Failure, Step};
use isolab_wire::trace::{Subphase, Tracer};

use crate::cli::RunArgs;
use crate::config::JobConfig;
use crate::fault::StageFault;
use crate::hint::UsernsOff;
use crate::knobs::Knobs;
use crate::levels::{self, Setup};
use crate::resolve;
use crate::signals::Signals;
use crate::stdio::Budget;
use crate::supervise::{Cause, Deadlines, status, supervise};
use crate::terminal::RawTerminal;
use crate::{doctor, hint, report_fd, stdio};

/// Runs the job, which may write `most` bytes, and gives the exit status.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn run(args: &RunArgs, config: &JobConfig, most: Option<u64>, main_ns: u64) -> anyhow::Result<u8> {
    // Taken before anything else opens descriptors, so that a wrong number can't name one of ours.
    let report_to = args.report_fd.map(report_fd::take).transpose()?;
    report_to.as_ref().map_or(Ok(()), report_fd::tie)?;
    let tracer = tracer(args, report_to.is_some())?;
    let image = resolve::image(&config.image)?;
    tracer.end(Subphase::ImageOpen)?;
    // Not before: importing an image may take long, and a signal then ends us as it ends any program.
    let mut signals = Signals::catch().context("catch signals")?;
    let mut job = resolve::job(config, &image, report_to.is_some())?;
    job.env.extend(StageFault::for_workload(&args.test_fault));
    let setup = Setup {
        image_name: image.entry.reference().to_owned(),
        image: image.file,
        kernel: config.kernel.clone(),
        from_snapshot: config.from_snapshot,
        free_page_reporting: config.free_page_reporting,
        guest_console: args.guest_console,
        asked: config.asked,
        tracer,
        program: None,
        knobs: Knobs::new(&args.knob, &args.level)?,
    };
    // Where it is measured the record says it.
    if setup.knobs != Knobs::default() && report_to.is_none() {
        eprintln!("isolab: weaker isolation, for measuring: {}", args.knob.join(", "));
    }
    let level = levels::level(&args.level, setup)?;
    let deadlines = Deadlines { start: config.start_timeout, whole: job.timeout };
    let budget = most.map(Budget::new).transpose().context("make the budget of output")?;
    let (outcome, cause) = start(level.as_ref(), &job, deadlines, &mut signals, budget.as_ref(), tracer)?;
    let code = status(&outcome, cause);
    let lost = &outcome.detail.limits_not_enforced;
    if !lost.is_empty() && report_to.is_none() && std::io::stderr().is_terminal() {
        eprintln!(
            "isolab: no limits of {} in this run: not delegated; `isolab explain cgroup`",
            lost.join(", ")
        );
    }
    if cause == Cause::Deadline && report_to.is_none() {
        eprintln!("isolab: ended by the deadline of --timeout");
    }
    if cause == Cause::Output && report_to.is_none() {
        eprintln!("isolab: ended by the limit of --max-output");
    }
    if let Some(file) = report_to {
        report(file, level.as_ref(), main_ns, &outcome, code)?;
    }
    if cause == Cause::Start {
        bail!(
            "the command did not start within {:?}: {}; give more time with --start-timeout",
            config.start_timeout,
            stuck(level.name(), &outcome)
        );
    }
    explain(&outcome, &job)?;
    Ok(code)
}

/// Where the ends of subphases go: nowhere in a run that nobody measures or makes faults in.
fn tracer(args: &RunArgs, measured: bool) -> anyhow::Result<Tracer> {
    if !measured && args.test_fault.is_empty() {
        return Ok(Tracer::OFF);
    }
    StageFault::check(&args.test_fault, &args.level)?;
    let tracer = match args.level.as_str() {
        "vm" => trace::shared().context("make the page of the timeline")?,
        _ => trace::own(),
    };
    if let Some(trace) = tracer.trace() {
        args.test_fault.iter().for_each(|fault| trace.set_fault(fault.stage, fault.fault));
    }
    Ok(tracer)
}

fn start(
    level: &dyn Level,
    job: &Job,
    deadlines: Deadlines,
    signals: &mut Signals,
    budget: Option<&Budget>,
    tracer: Tracer,
) -> anyhow::Result<(Outcome, Cause)> {
    if let Err(unavailable) = level.check() {
        bail!("{}; {}", unavailable.reason, unavailable.remedy);
    }
    let connected = match (level.name(), job.stdio) {
        // No init is there to make a terminal inside.
        ("process", Stdio::Terminal { rows, cols }) => stdio::terminal(rows, cols, budget),
        (_, mode) => stdio::connect(mode, budget),
    };
    let (ends, pumps) = connected.context("connect standard input and output")?;
    tracer.end(Subphase::Job)?;
    let running = level.start(job, ends).map_err(anyhow::Error::from_boxed)?;
    // Not before the start: the launcher is single-threaded while it makes the instance.
    let terminal = match job.stdio {
        Stdio::Terminal { .. } => Some(RawTerminal::enter().context("switch the terminal to raw mode")?),
        _ => None,
    };
    let draining = pumps.start();
    let result = supervise(running, signals, deadlines, budget);
    let written = draining.finish();
    drop(terminal);
    let (outcome, cause) = result?;
    written.context("write what the command writes (the rest of it is lost)")?;
    // It may have ended while the last of its output was still to be counted.
    let over = cause == Cause::Itself && budget.is_some_and(Budget::is_used_up);
    Ok((outcome, if over { Cause::Output } else { cause }))
}

/// How far an instance had come that did not start its command in time.
fn stuck(level: &str, outcome: &Outcome) -> &'static str {
    let told = |code| outcome.stamps.iter().any(|stamp| stamp.code == code);
    match level {
        "vm" if told(Code::Init) => "the guest's process 1 ran, and did not come to it",
        "vm" if told(Code::RunBegin) => {
            "the guest's kernel did not come to its process 1 (--guest-console shows what it says)"
        }
        "vm" => "the monitor did not come to run the guest",
        _ => "the child process did not come to it",
    }
}

fn report(
    mut file: File,
    level: &dyn Level,
    main_ns: u64,
    outcome: &Outcome,
    code: u8,
) -> anyhow::Result<()> {
    let line = RunReport::new(level.name(), main_ns, outcome, code).to_line()?;
    file.write_all(line.as_bytes()).context("write the run report")
}

/// What the user should read beside the status.
fn explain(outcome: &Outcome, job: &Job) -> anyhow::Result<()> {
    let program = job.argv.first().map_or("", String::as_str);
    match outcome.end {
        End::OutOfMemory => {
            eprintln!("isolab: out of memory: the limit is {} MiB; raise --memory", job.memory_bytes >> 20);
        }
        End::Failed(Failure { step: Step::Exec, errno: 2 }) => {
            let program = Escaped::from(program);
            eprintln!(
                "isolab: command {program} not found in the image; `isolab image inspect` shows its own"
            );
        }
        End::Failed(Failure { step: Step::Exec, errno }) => {
            let error = std::io::Error::from_raw_os_error(i32::from(errno));
            let error =
                if is_directory(job, program) { "it is a directory".into() } else { error.to_string() };
            eprintln!("isolab: command {} can't be executed: {error}", Escaped::from(program));
        }
        End::Failed(Failure { step: Step::Namespaces, errno }) => {
            return Err(levels::namespaces_failed(errno).into());
        }
        End::Failed(Failure { step: Step::Mounts, errno: 1 }) if doctor::proc_is_masked() => {
            return Err(hint::masked_proc().into());
        }
        End::Failed(Failure { step, errno }) => {
            let error = std::io::Error::from_raw_os_error(i32::from(errno));
            // A user namespace whose maker has no privileges in it: the first mount is refused.
            if error.kind() == std::io::ErrorKind::PermissionDenied && doctor::apparmor_restricts() {
                return Err(hint::userns_off(UsernsOff::AppArmor).into());
            }
            match (step, error.kind()) {
                (Step::Workdir, _) => bail!(
                    "working directory {} can't be entered: {error}; give another one with --workdir",
                    Escaped::from(&job.workdir[..])
                ),
                (Step::Mounts, std::io::ErrorKind::NotFound) if job.read_only => bail!(
                    "the image lacks one of the directories /proc, /sys and /dev, which can't be made with --read-only; \
                     leave --read-only out, or add them to the image"
                ),
                (Step::Mounts, std::io::ErrorKind::NotADirectory) => bail!(
                    "the image has something else than a directory at /proc, /sys or /dev (a file or a symbolic link); \
                     use an image that has real directories there, or none"
                ),
                _ => bail!(
                    "process 1 failed at step {step:?}: {error}; `isolab doctor` says what this host lacks"
                ),
            }
        }
        End::Workload(_) | End::Killed => {}
    }
    Ok(())
}

/// Whether the image has a directory where the command is looked for.
fn is_directory(job: &Job, program: &str) -> bool {
    let path =
        if program.starts_with('/') { program.to_owned() } else { format!("{}/{program}", job.workdir) };
    resolve::image(&job.image).is_ok_and(|image| {
        let found = Image::open(&image.file).and_then(|image| image.lookup(path.as_bytes()));
        found.is_ok_and(|node| node.kind == NodeKind::Dir)
    })
}
