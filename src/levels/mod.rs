//! The levels. A new one is a file here and a line in [`LEVELS`].

mod container;
mod failures;
pub(crate) mod limits;
mod process;
mod started;
mod vm;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, bail};
use isolab_bench::port::{HostStdio, Level, Running};
use isolab_bench::run_report::Detail;
use isolab_container::root::RootSource;
use isolab_images::job::Job;
use isolab_images::kernels::KernelEntry;
use isolab_images::store::{Scratch, Store};
use isolab_images::unpack::unpack;
use isolab_vmm::TemplateFiles;
use isolab_wire::trace::Tracer;

use crate::config::{Asked, JobConfig};
use crate::knobs::Knobs;
use crate::resolve::Resolved;
use crate::stdio;

/// What a level is made from besides the job.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The image, opened and verified.
    pub(crate) image: File,
    /// Its name in the store, or its digest.
    pub(crate) image_name: String,
    /// Guest kernel by name; else the default.
    pub(crate) kernel: Option<String>,
    /// Continue a snapshot instead of starting a guest kernel.
    pub(crate) from_snapshot: bool,
    /// Memory that a guest frees returns to the host.
    pub(crate) free_page_reporting: bool,
    /// Show the guest kernel's console.
    pub(crate) guest_console: bool,
    /// Which limits were asked for.
    pub(crate) asked: Asked,
    /// Where the ends of the start's subphases go.
    pub(crate) tracer: Tracer,
    /// What to execute instead of the job's command: a static program that is in no image.
    pub(crate) program: Option<&'static [u8]>,
    /// Mechanisms left out for measuring.
    pub(crate) knobs: Knobs,
}

impl Setup {
    /// That of a job in this image, with no guest console.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(crate) fn of(config: &JobConfig, image: &Resolved) -> anyhow::Result<Self> {
        Ok(Self {
            image: image.file.try_clone().context("copy the image's descriptor")?,
            image_name: image.entry.reference().to_owned(),
            kernel: config.kernel.clone(),
            from_snapshot: config.from_snapshot,
            free_page_reporting: config.free_page_reporting,
            guest_console: false,
            asked: config.asked,
            tracer: Tracer::OFF,
            program: None,
            knobs: Knobs::default(),
        })
    }
}

pub(crate) use failures::namespaces_failed;
use failures::{explained, namespaces};

type Make = fn(Setup) -> Box<dyn Level>;

/// All levels, from the least isolated, each with those options that not all have.
const LEVELS: &[(&str, &[&str], Make)] = &[
    (process::NAME, &[], |setup| Box::new(process::Process::new(setup))),
    (container::NAME, &["--memory", "--cpus", "--pids", "--hostname"], |setup| {
        Box::new(container::Container::new(setup))
    }),
    (
        vm::NAME,
        &["--memory", "--cpus", "--hostname", "--kernel", "--from-snapshot", "--free-page-reporting"],
        |setup| Box::new(vm::Vm::new(setup)),
    ),
];

/// Refuses an option that was asked for and would have no effect at the level.
///
/// # Errors
/// With the levels that have it.
pub(crate) fn check_options(name: &str, asked: Asked) -> anyhow::Result<()> {
    let asked = [
        ("--memory", asked.memory),
        ("--cpus", asked.cpus),
        ("--pids", asked.pids),
        ("--hostname", asked.hostname),
        ("--kernel", asked.kernel),
        ("--from-snapshot", asked.from_snapshot),
        ("--free-page-reporting", asked.free_page_reporting),
    ];
    let has =
        |level: &str, option| LEVELS.iter().any(|(n, options, _)| *n == level && options.contains(option));
    if let Some((option, _)) = asked.iter().find(|(option, given)| *given && !has(name, option)) {
        let able: Vec<&str> = LEVELS
            .iter()
            .filter(|(_, options, _)| options.contains(option))
            .map(|(name, ..)| *name)
            .collect();
        bail!("{option} has no effect at level {name}; leave it out, or use --level {}", able.join(" or "));
    }
    Ok(())
}

/// Names of all levels, from the least isolated.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    LEVELS.iter().map(|(name, ..)| *name)
}

/// Refuses a name that is no level.
///
/// # Errors
/// With the names that there are.
pub(crate) fn check_name(name: &str) -> anyhow::Result<()> {
    if names().any(|known| known == name) {
        return Ok(());
    }
    bail!("there is no level {name:?}; the levels are {}", names().collect::<Vec<_>>().join(", "))
}

/// The level of a name.
///
/// # Errors
/// There is none.
pub(crate) fn level(name: &str, setup: Setup) -> anyhow::Result<Box<dyn Level>> {
    check_name(name)?;
    match LEVELS.iter().find(|(known, ..)| *known == name) {
        Some((.., make)) => Ok(make(setup)),
        None => bail!("there is no level {name:?}"),
    }
}

/// The guest kernel of this name, or the default one.
///
/// # Errors
/// There is none.
pub(crate) fn guest_kernel(asked: Option<&str>) -> anyhow::Result<KernelEntry> {
    vm::guest_kernel(asked).map_err(anyhow::Error::from_boxed)
}

/// Starts a guest that is stored in these files when it waits for its job.
///
/// # Errors
/// It can't run here, or can't be started.
pub(crate) fn start_template(
    setup: Setup,
    job: &Job,
    stdio: HostStdio,
    files: TemplateFiles,
) -> anyhow::Result<Box<dyn Running>> {
    let vm = vm::Vm::new(setup);
    vm.start_template(job, stdio, files).map_err(anyhow::Error::from_boxed)
}

/// The image as a root: the EROFS file itself, or where the user may not mount it, a private copy that vanishes with
/// the returned guard.
fn root_of(setup: &Setup) -> Result<(RootSource, Option<Scratch>), Box<dyn std::error::Error + Send + Sync>> {
    if rustix::process::geteuid().is_root() {
        return Ok((RootSource::Erofs(setup.image.try_clone()?), None));
    }
    let scratch = Store::open_or_create()?.scratch()?;
    unpack(&setup.image, scratch.dir())?;
    let dir = scratch.dir().as_fd().try_clone_to_owned()?;
    Ok((RootSource::Directory(dir), Some(scratch)))
}

/// What the levels on the host's own kernel know of an instance: its image, medium and kernel.
fn detail_of(job: &Job, root: &RootSource) -> Detail {
    let (fs, via) = match root {
        RootSource::Directory(dir) => (file_system(dir), "directory"),
        RootSource::Erofs(file) if is_block_device(file) => (Some("erofs"), "block"),
        RootSource::Erofs(_) => (Some("erofs"), "file"),
    };
    Detail {
        image_digest: Some(job.image.clone()),
        lower_fs: fs.map(str::to_owned),
        lower_via: Some(via.to_owned()),
        kernel: rustix::system::uname().release().to_str().ok().map(str::to_owned),
        limits_not_enforced: vec![],
        start: None,
    }
}

/// The type of the file system that holds a directory, of those that homes usually lie on.
fn file_system(dir: &OwnedFd) -> Option<&'static str> {
    const KNOWN: [(i64, &str); 9] = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlay"),
        (0xf2f5_2010, "f2fs"),
        (0x2fc1_2fc1, "zfs"),
        (0xca45_1a4e, "bcachefs"),
        (0x6969, "nfs"),
    ];
    let found = rustix::fs::fstatfs(dir).ok()?.f_type;
    KNOWN.into_iter().find(|(number, _)| *number == found).map(|(_, name)| name)
}

fn is_block_device(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| std::os::unix::fs::FileTypeExt::is_block_device(&meta.file_type()))
}

/// Standard input, output and error as a container takes them.
struct Ends {
    stdio: HostStdio,
    null: Option<std::os::fd::OwnedFd>,
}

impl Ends {
    fn new(stdio: HostStdio) -> std::io::Result<Self> {
        let null = if stdio.stdin.is_none() { Some(stdio::null()?) } else { None };
        Ok(Self { stdio, null })
    }

    fn borrowed(&self) -> [BorrowedFd<'_>; 3] {
        let (out, err) = (self.stdio.stdout.as_fd(), self.stdio.stderr.as_fd());
        let input = self.stdio.stdin.as_ref().or(self.null.as_ref()).map_or(out, AsFd::as_fd);
        [input, out, err]
    }
}
