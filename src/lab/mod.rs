//! The lab: an emulated machine that runs this very binary, for hosts whose KVM can't run a guest kernel, for tests
//! without noise, and for exact instruction counts.
//!
//! In order: [`run`] packs the running binary as `/init` with the lab kernel's modules, the job and the kernels handed in
//! into an initramfs; starts QEMU with each image as a read-only drive; waits for the lab to come up; passes standard
//! input, output, error, signals and the terminal's size through virtio-serial ports; takes the files back, checked by
//! length and digest; ends QEMU. Inside, `inside::main` is process 1: mounts, modules, the store's view, isolab itself.
//!
//! The lab has no network and no access to host files besides what is handed in.

mod bridge;
mod console;
mod inside;
mod machine;
mod protocol;
mod streams;
mod terminal;
mod watchdog;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use isolab_images::escape::escaped;
use isolab_images::initramfs::{self, Archive};
use isolab_images::kernels::{KernelEntry, KernelFormat, ModuleSet};

use self::console::Broken;
pub(crate) use self::machine::LabClock;
use self::machine::{MAX_IMAGES, Machine, drive_name};
pub(crate) use self::protocol::NotStarted;
use self::protocol::{JobImage, LabJob};
pub(crate) use self::watchdog::Stuck;

/// The wall clock of a repeatable lab at its start: 2026-01-01 00:00:00 UTC.
const REPEATABLE_START_S: u64 = 1_767_225_600;

/// How the isolab inside is connected to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabStdio {
    /// Output only.
    Output,
    /// The same, with each line of standard output as [`LabProgress::Line`] and not on ours.
    Lines,
    /// With standard input.
    Interactive,
    /// With a terminal, whose size follows ours.
    Terminal,
}

/// An image handed into the lab.
#[derive(Debug)]
pub(crate) struct LabImage {
    /// Files of its names in the store, with their content.
    pub names: Vec<(String, String)>,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// The store's record of it (`images/sha256-HEX.json`).
    pub record: String,
    /// The verified EROFS file.
    pub file: File,
}

/// Larger images stay on their drive in a repeatable lab, too.
const MOST_IN_MEMORY: u64 = 512 << 20;

/// What to run in the lab, and with what.
#[derive(Debug)]
pub(crate) struct LabRequest {
    /// Arguments for isolab, without its own name.
    pub args: Vec<String>,
    /// The arguments are a program inside and its arguments.
    pub exec: bool,
    /// Files and directories for [`protocol::WITH`].
    pub with: Vec<PathBuf>,
    /// Environment for it; `ISOLAB_HOME` is set besides.
    pub env: Vec<(String, String)>,
    /// Images of the lab's store.
    pub images: Vec<LabImage>,
    /// The lab's own kernel.
    pub kernel: KernelEntry,
    /// Kernels of the lab's store.
    pub kernels: Vec<KernelEntry>,
    /// The lab's clock.
    pub clock: LabClock,
    /// The lab's memory.
    pub memory_mib: u32,
    /// The lab's CPUs; more than one only with [`LabClock::Wall`].
    pub cpus: u32,
    /// With a seed, the machine does the same in each run, as far as the host's disks and clock are not in it: random
    /// numbers come from the seed, the wall clock starts at the same moment.
    pub seed: Option<u64>,
    /// Standard streams.
    pub stdio: LabStdio,
    /// Paths inside the lab whose files come back in [`LabOutcome::files`].
    pub returns: Vec<String>,
}

/// How it went.
#[derive(Debug)]
pub(crate) struct LabOutcome {
    /// Exit status of the isolab inside, 128+n for signal n.
    pub status: u8,
    /// The files asked for, in order; nothing where there was none.
    pub files: Vec<Option<Vec<u8>>>,
}

/// What is going on, for a progress line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LabProgress {
    /// QEMU starts.
    Starting,
    /// The lab's kernel is up.
    Up {
        /// Its release.
        kernel: String,
        /// How long that took by the host's clock.
        after: Duration,
        /// What did not come up as it should.
        warnings: Vec<String>,
    },
    /// isolab runs inside.
    Running,
    /// It has said this line.
    Line(String),
    /// It has ended.
    Done,
}

/// Runs isolab in a lab machine and waits for it. Must be called from a thread that lives as long as the machine
/// (the kernel ends QEMU when that thread ends).
///
/// # Errors
/// The request can't be met, QEMU is missing, the lab does not come up or breaks; the console's last lines are in the
/// message. The machine is gone when this returns.
pub(crate) fn run(request: LabRequest, progress: &mut dyn FnMut(LabProgress)) -> Result<LabOutcome> {
    check(&request)?;
    machine::find_qemu()?;
    progress(LabProgress::Starting);
    let images = job_images(&request)?;
    let terminal = (request.stdio == LabStdio::Terminal).then(terminal::size);
    let job = LabJob {
        args: request.args,
        exec: request.exec,
        env: request.env,
        terminal,
        returns: request.returns,
        images,
        now_s: match request.seed {
            Some(_) => REPEATABLE_START_S,
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
        },
    };
    let in_memory: u64 = job.images.iter().filter_map(|image| image.to_memory).sum();
    let more_mib = u32::try_from(in_memory.div_ceil(1 << 20)).context("the images are too large")?;
    let initramfs = pack(&request.kernel, &request.kernels, &request.with, &job)?;
    let images: Vec<File> = request.images.into_iter().map(|image| image.file).collect();
    // The ELF kernel starts at once, a bzImage unpacks itself on the emulated CPU first.
    let kernel = request.kernel.vmlinux().unwrap_or_else(|| request.kernel.kernel());
    let machine = Machine {
        kernel: &kernel,
        initramfs: &initramfs,
        images: &images,
        clock: request.clock,
        memory_mib: request.memory_mib.saturating_add(more_mib),
        cpus: request.cpus,
        seed: request.seed,
    };
    let running = machine.start()?;
    drop(initramfs);
    bridge::Bridge::new(running, request.stdio, job.returns.len())?.run(progress)
}

/// To be called first thing in `main`: takes over where this process is the lab's process 1 or one of the lab's
/// intermediate programs, else does nothing. Where it takes over and returns, `main` ends with the status given.
pub(crate) fn take_over() -> Option<u8> {
    let mut args = std::env::args_os();
    let name: OsString = args.next().unwrap_or_default();
    let error = if name == machine::LAUNCHER {
        machine::launch(args)
    } else if name == inside::TERMINAL_CHILD {
        inside::exec_with_terminal(args)
    } else if std::process::id() == 1 && fs::exists(protocol::JOB_FILE).unwrap_or(false) {
        inside::main();
        return Some(125);
    } else {
        return None;
    };
    eprintln!("isolab: {error:#}");
    Some(error.downcast_ref().map_or(125, NotStarted::status))
}

/// An error with its causes, for a terminal: in one line, but for the console of a lab that broke.
pub(crate) fn shown(error: &anyhow::Error) -> String {
    let told = format!("{error:#}");
    if error.is::<Broken>() {
        told.lines().map(escaped).collect::<Vec<_>>().join("\n")
    } else {
        escaped(&told)
    }
}

fn check(request: &LabRequest) -> Result<()> {
    let name = &request.kernel.info().name;
    if request.kernel.info().lab_modules.is_empty() && request.kernel.info().format == KernelFormat::BzImage {
        bail!("kernel {name} has no modules for the lab: `isolab kernel fetch` gets one that has");
    }
    if request.clock == LabClock::Instructions && request.cpus != 1 {
        bail!(
            "a lab that counts instructions has one CPU, not {}: use --lab-clock wall for more",
            request.cpus
        );
    }
    if !(1..=8).contains(&request.cpus) {
        bail!("the lab has 1 to 8 CPUs, not {}", request.cpus);
    }
    if request.memory_mib < 512 {
        bail!("the lab needs at least 512 MiB of memory, not {} MiB", request.memory_mib);
    }
    if request.images.len() > MAX_IMAGES {
        bail!("the lab takes {MAX_IMAGES} images, not {}", request.images.len());
    }
    Ok(())
}

/// The images for the lab; those of a repeatable one in memory. When QEMU reads a file for a drive depends on the host, and
/// while the lab waits for it, its clock goes on to the next timer: a start was up to 8 % longer on a busy host.
fn job_images(request: &LabRequest) -> Result<Vec<JobImage>> {
    let describe = |(index, image): (usize, &LabImage)| {
        let bytes = image.file.metadata().context("read the size of an image")?.len();
        Ok(JobImage {
            names: image.names.clone(),
            digest: image.digest.clone(),
            record: image.record.clone(),
            drive: drive_name(index),
            to_memory: (request.seed.is_some() && bytes <= MOST_IN_MEMORY).then_some(bytes),
        })
    };
    request.images.iter().enumerate().map(describe).collect()
}

/// The lab's initramfs: this binary, the modules, the job, the kernels and files handed in.
fn pack(lab: &KernelEntry, kernels: &[KernelEntry], with: &[PathBuf], job: &LabJob) -> Result<Vec<u8>> {
    let own = fs::read("/proc/self/exe").context("read isolab's own binary")?;
    let mut archive = initramfs::start(lab, &own, ModuleSet::Lab)?;
    for dir in ["lab", "lab/home", "lab/home/kernels", "root", &protocol::WITH[1..]] {
        archive.dir(dir, 0o755)?;
    }
    archive.file("lab/job.json", 0o600, &serde_json::to_vec(job)?)?;
    for kernel in kernels {
        add(&mut archive, kernel.dir(), &format!("lab/home/kernels/{}", kernel.info().name))?;
    }
    for path in with {
        let name = path.file_name().and_then(OsStr::to_str);
        let name = name.with_context(|| format!("{} has no name for the lab", path.display()))?;
        add(&mut archive, path, &format!("{}/{name}", &protocol::WITH[1..]))?;
    }
    Ok(archive.finish()?)
}

/// Adds a file or a directory with all that it holds; symbolic links as what they name.
fn add(archive: &mut Archive, path: &Path, inside: &str) -> Result<()> {
    let read = || format!("read {}", path.display());
    let meta = fs::metadata(path).with_context(read)?;
    if !meta.is_dir() {
        let content = fs::read(path).with_context(read)?;
        return Ok(archive.file(inside, meta.permissions().mode() & 0o755, &content)?);
    }
    archive.dir(inside, 0o755)?;
    for entry in fs::read_dir(path).with_context(read)? {
        let entry = entry.with_context(read)?;
        let name = entry.file_name();
        let name =
            name.to_str().with_context(|| format!("{} has no name for the lab", entry.path().display()))?;
        add(archive, &entry.path(), &format!("{inside}/{name}"))?;
    }
    Ok(())
}
