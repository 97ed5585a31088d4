//! `isolab kernel`: the guest kernels.

use std::mem;
use std::num::NonZero;
use std::thread::available_parallelism;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isolab_images::kernels::{
    AddKernel, BuildKernel, BuildStep, FetchStep, KernelBuildError, KernelEntry, KernelStore, add, build,
    fetch,
};
use isolab_images::store::Store;

use crate::cli::KernelCommand;
use crate::signals::Signals;

/// The kernels of the store.
///
/// # Errors
/// No home directory.
pub(crate) fn store() -> anyhow::Result<KernelStore> {
    Ok(KernelStore::new(Store::home()?.join("kernels")))
}

/// Fetches the distribution's kernel, telling how far it is.
///
/// # Errors
/// The step that failed.
pub(crate) fn fetch_stock() -> anyhow::Result<KernelEntry> {
    Ok(fetch(&store()?, &mut |step| eprintln!("isolab: {}", told(step)))?)
}

/// Carries out the command.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn kernel(command: KernelCommand) -> anyhow::Result<u8> {
    let store = store()?;
    match command {
        KernelCommand::Fetch => announce(&fetch_stock()?)?,
        KernelCommand::Build { jobs } => return build_tuned(&store, jobs),
        KernelCommand::Add { path, name, modules } => {
            announce(&add(&store, &AddKernel { path, name: Some(name), modules })?)?;
        }
        KernelCommand::Ls(json) => {
            let infos: Vec<_> = store.list()?.iter().map(|entry| entry.info().clone()).collect();
            if json.json {
                say!("{}", isolab_images::escape::json(&infos)?);
            } else {
                say!("{:12}  {:28}  {:8}  {:>7}  MODULES", "NAME", "VERSION", "FORMAT", "MiB");
                for info in infos {
                    let (name, version, mib) = (&info.name, &info.version, info.size_bytes >> 20);
                    let format = format!("{:?}", info.format).to_lowercase();
                    say!("{name:12}  {version:28}  {format:8}  {mib:>7}  {}", info.modules.len());
                }
            }
        }
        KernelCommand::Inspect { name } => {
            say!("{}", isolab_images::escape::json(store.get(&name)?.info())?);
        }
        KernelCommand::Rm { names } => {
            for name in names {
                store.remove(&name)?;
                say!("removed kernel {name}");
            }
        }
    }
    Ok(0)
}

/// Builds the small kernel; a signal ends the build and is the status.
fn build_tuned(store: &KernelStore, jobs: Option<u16>) -> anyhow::Result<u8> {
    let mut signals = Signals::catch_ending().context("catch signals")?;
    let jobs = jobs.map_or_else(|| available_parallelism().map_or(1, NonZero::get), usize::from);
    let mut shown = Shown::new();
    let result = {
        let how = BuildKernel { jobs, stop: signals.event() };
        build(store, &how, &mut |step| shown.step(step))
    };
    shown.bar.finish_and_clear();
    match result {
        Ok(entry) => announce(&entry)?,
        Err(KernelBuildError::Stopped) => {
            let signal = signals.pending().first().copied().unwrap_or_default();
            eprintln!("isolab: the build was stopped; the store is as it was");
            return Ok(128 + signal);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(0)
}

/// How far a build is: one line that changes on a terminal, else a line for each kind of step.
struct Shown {
    bar: ProgressBar,
    last: Option<mem::Discriminant<BuildStep>>,
}

impl Shown {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("isolab: {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, last: None }
    }

    fn step(&mut self, step: &BuildStep) {
        let text = built(step);
        if !self.bar.is_hidden() {
            self.bar.set_message(text);
            self.bar.tick();
        } else if self.last != Some(mem::discriminant(step)) {
            eprintln!("isolab: {text}");
        }
        self.last = Some(mem::discriminant(step));
    }
}

fn built(step: &BuildStep) -> String {
    match step {
        BuildStep::Downloading { package, version } => format!("downloading {package} {version}"),
        BuildStep::Unpacking { files: 0 } => "unpacking the source".into(),
        BuildStep::Unpacking { files } => format!("unpacking the source: {files} files"),
        BuildStep::Configuring => "configuring".into(),
        BuildStep::Compiling { objects: 0 } => "compiling".into(),
        BuildStep::Compiling { objects } => format!("compiling: {objects} objects"),
        BuildStep::Storing => "writing the entry".into(),
    }
}

fn told(step: &FetchStep) -> String {
    match step {
        FetchStep::Resolving => "asking apt for the newest cloud kernel".into(),
        FetchStep::Downloading { package, version } => format!("downloading {package} {version}"),
        FetchStep::Unpacking { bytes } => format!("unpacking {} MiB", bytes >> 20),
    }
}

fn announce(entry: &KernelEntry) -> anyhow::Result<()> {
    let info = entry.info();
    say!("{} {} {:?}, {} guest modules", info.name, info.version, info.format, info.modules.len());
    Ok(())
}
