//! `isolab snapshot`: guests that wait for their command, made once and continued many times.

use anyhow::{Context, bail};
use isolab_bench::port::{End, HostStdio};
use isolab_images::job::{Job, Stdio, User};
use isolab_images::kernels::KernelInfo;
use isolab_images::snapshots::{SnapshotInfo, SnapshotStore, Subject};
use isolab_images::store::Store;
use isolab_vmm::{TemplateFiles, probe, template};
use isolab_wire::mark::Exit;
use isolab_wire::trace::Tracer;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;

use crate::cli::{SnapshotArgs, SnapshotCommand};
use crate::config::{self, Asked, JobConfig};
use crate::knobs::Knobs;
use crate::levels::{self, Setup};
use crate::resolve::{self, Resolved};
use crate::signals::Signals;
use crate::supervise::{Cause, Deadlines, START, supervise};
use crate::{hint, stdio};

/// The snapshots of the store.
///
/// # Errors
/// No home directory.
pub(crate) fn store() -> anyhow::Result<SnapshotStore> {
    Ok(SnapshotStore::new(Store::home()?.join("snapshots")))
}

/// What the snapshot of this job is made of.
pub(crate) fn subject(image_name: &str, job: &Job, kernel: &KernelInfo, reporting: bool) -> Subject {
    Subject {
        free_page_reporting: reporting,
        memory_bytes: job.memory_bytes,
        cpus: job.cpus,
        read_only: job.read_only,
        ..Subject::new((image_name, &job.image), kernel, template::FORMAT)
    }
}

/// What each of the guest's jobs has in common.
#[derive(Clone, Debug)]
struct Guest {
    kernel: Option<String>,
    memory_bytes: u64,
    cpus: u32,
    read_only: bool,
    free_page_reporting: bool,
}

impl Guest {
    fn of(config: &JobConfig) -> Self {
        Self {
            kernel: config.kernel.clone(),
            memory_bytes: config.memory_bytes,
            cpus: config.cpus,
            read_only: config.read_only,
            free_page_reporting: config.free_page_reporting,
        }
    }

    fn subject(&self, image: &Resolved, job: &Job, kernel: &KernelInfo) -> Subject {
        subject(image.entry.reference(), job, kernel, self.free_page_reporting)
    }

    /// A job of it, whose command is never run, but read into the guest's memory.
    fn job(&self, image: &Resolved) -> Job {
        let config = &image.entry.config;
        let own = config.entrypoint.iter().chain(&config.cmd).next().cloned();
        Job {
            image: image.entry.digest.clone(),
            argv: vec![own.unwrap_or_else(|| "-".into())],
            env: vec![],
            workdir: "/".into(),
            user: User::default(),
            hostname: String::new(),
            memory_bytes: self.memory_bytes,
            cpus: self.cpus,
            pids: 0,
            read_only: self.read_only,
            // So that standard input is there for those jobs that want it.
            stdio: Stdio::Interactive,
            timeout: None,
            marks: false,
        }
    }
}

/// Carries out the command.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn command(args: &SnapshotArgs) -> anyhow::Result<u8> {
    match &args.command {
        Some(SnapshotCommand::Ls(json)) => list(json.json)?,
        Some(SnapshotCommand::Rm { names }) => {
            let store = store()?;
            for name in names {
                store.remove(name)?;
                say!("removed snapshot {name}");
            }
        }
        None => {
            let (memory_bytes, cpus) = config::machine(args.memory.as_deref(), args.cpus.as_deref())?;
            let (kernel, read_only) = (args.kernel.clone(), args.read_only);
            let free_page_reporting = args.free_page_reporting;
            let guest = Guest { kernel, memory_bytes, cpus, read_only, free_page_reporting };
            let image = resolve::image(args.image.as_deref().unwrap_or_default())?;
            let (name, info) = match make(&guest, &image)? {
                Ok(made) => made,
                Err(signal) => return Ok(128 + signal),
            };
            if args.json {
                say!("{}", isolab_images::escape::json(&described(&name, Some(&info)))?);
            } else {
                say!("{name} {} MiB", bytes(&info).div_ceil(1 << 20));
            }
        }
    }
    Ok(0)
}

/// Makes the snapshot of a job where there is none: a lab has only what was made in it.
///
/// # Errors
/// It can't be made.
pub(crate) fn ensure_in_lab(config: &JobConfig) -> anyhow::Result<()> {
    if !config.from_snapshot || !hint::in_lab() {
        return Ok(());
    }
    let (guest, image) = (Guest::of(config), resolve::image(&config.image)?);
    let kernel = levels::guest_kernel(guest.kernel.as_deref())?;
    let job = guest.job(&image);
    if !store()?.contains(&guest.subject(&image, &job, kernel.info())) {
        eprintln!("isolab: a lab keeps no snapshots: making that of {} first", image.entry.reference());
        if make(&guest, &image)?.is_err() {
            bail!("interrupted while the snapshot was made");
        }
    }
    Ok(())
}

/// Makes one, or gives the signal that ended it.
fn make(guest: &Guest, image: &Resolved) -> anyhow::Result<Result<(String, SnapshotInfo), u8>> {
    if !hint::in_lab()
        && let Some(hint) = hint::vm_on_host(probe::quick())
    {
        let name = image.entry.reference();
        bail!(
            "{}; in the lab, `isolab run --on lab --level vm --from-snapshot {name}` makes its own",
            hint.reason
        );
    }
    let mut signals = Signals::catch_ending().context("catch signals")?;
    let job = guest.job(image);
    let kernel = levels::guest_kernel(guest.kernel.as_deref())?;
    let new = store()?.create(guest.subject(image, &job, kernel.info()))?;
    let setup = Setup {
        image: image.file.try_clone().context("copy the image's descriptor")?,
        image_name: image.entry.reference().to_owned(),
        kernel: guest.kernel.clone(),
        from_snapshot: false,
        free_page_reporting: guest.free_page_reporting,
        program: None,
        guest_console: false,
        asked: Asked::default(),
        tracer: Tracer::OFF,
        knobs: Knobs::default(),
    };
    // Open to the end: a guest whose input had ended would be told so.
    let (stdin, _open) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
    let stdio = HostStdio { stdin: Some(stdin), stdout: stdio::null()?, stderr: stdio::null()? };
    let files = TemplateFiles {
        state: new.state.try_clone().context("share a file")?,
        memory: new.memory.try_clone().context("share a file")?,
    };
    let running = levels::start_template(setup, &job, stdio, files)?;
    let deadlines = Deadlines { start: START, whole: None };
    let (outcome, cause) = supervise(running, &mut signals, deadlines, None)?;
    match (outcome.end, cause) {
        (End::Workload(Exit::Code(0)), Cause::Itself) => Ok(Ok(new.publish()?)),
        (_, Cause::Signal(signal)) => Ok(Err(signal)),
        (_, Cause::Start | Cause::Deadline) => {
            bail!("the guest was not ready for its snapshot within {} s", START.as_secs())
        }
        (End::OutOfMemory, _) => bail!("the host's memory did not suffice to store the guest"),
        (end, _) => bail!("the guest failed before its snapshot: {end:?}"),
    }
}

fn bytes(info: &SnapshotInfo) -> u64 {
    info.state.bytes.saturating_add(info.memory.bytes)
}

fn described(name: &str, info: Option<&SnapshotInfo>) -> serde_json::Value {
    let Some(info) = info else { return json!({ "name": name, "damaged": true }) };
    let Subject { image_name, image, kernel, kernel_version, memory_bytes, cpus, .. } = &info.subject;
    let Subject { read_only, free_page_reporting, format, .. } = &info.subject;
    json!({
        "name": name,
        "image": image_name,
        "image_digest": image,
        "kernel": kernel,
        "kernel_version": kernel_version,
        "memory_bytes": memory_bytes,
        "cpus": cpus,
        "read_only": read_only,
        "free_page_reporting": free_page_reporting,
        "format": format,
        "size_bytes": bytes(info),
        "created_s": info.created_s,
    })
}

fn list(as_json: bool) -> anyhow::Result<()> {
    let all = store()?.list()?;
    if as_json {
        let all: Vec<_> = all.iter().map(|(name, info)| described(name, info.as_ref())).collect();
        say!("{}", isolab_images::escape::json(&all)?);
        return Ok(());
    }
    say!("{:32}  {:28}  {:>7}  {:>4}  {:>8}", "NAME", "KERNEL", "MEMORY", "CPUS", "SIZE MiB");
    for (name, info) in all {
        let name = crate::escaped(&name);
        let Some(info) = info else {
            say!("{name:32}  damaged: `isolab snapshot rm` removes it");
            continue;
        };
        let (subject, mib) = (&info.subject, bytes(&info).div_ceil(1 << 20));
        let (kernel, memory, cpus) =
            (crate::escaped(&subject.kernel_version), subject.memory_bytes >> 20, subject.cpus);
        say!("{name:32}  {kernel:28}  {memory:>6}M  {cpus:>4}  {mib:>8}");
    }
    Ok(())
}
