//! Our own small guest kernel, built from the distribution's source package; nothing is installed.
//!
//! Order of events: the tools are looked for; apt downloads the source package; what is needed of it is unpacked into a
//! temporary directory of the store; `make` configures (`images/kernel/tuned.config`) and compiles there; the entry is
//! made of the `vmlinux`, without symbols and padding. The directory goes away whatever happens; the log of `make` stays.
//!
//! Reproducible: version, host, user and time of the build are constants, `make` gets no other environment, and paths in the
//! source tree are relative. The same package and the same compiler give the same bytes.

mod make;
mod padding;
mod source;
mod tools;

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::apt::{AptError, download, field, show};
use super::assemble::{KernelAssembleError, Parts, assemble, sha256};
use super::config;
use super::{KernelEntry, KernelStore, KernelStoreError, Origin, TUNED};
use make::Make;
pub use make::MakeError;
pub use source::SourceError;

/// The source package.
const PACKAGE: &str = "linux-source-6.12";
/// What the kernel consists of.
const CONFIG: &str = include_str!("../../../kernel/tuned.config");
/// What its configuration must have in the end.
const REQUIRED: &str = include_str!("../../../kernel/required.txt");

/// How to build.
#[derive(Clone, Copy, Debug)]
pub struct BuildKernel<'a> {
    /// Compilers at the same time.
    pub jobs: usize,
    /// Readable as soon as the build is to end.
    pub stop: BorrowedFd<'a>,
}

impl BuildKernel<'_> {
    fn is_stopped(&self) -> bool {
        let mut ends = [PollFd::new(&self.stop, PollFlags::IN)];
        poll(&mut ends, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

/// What is going on, for a progress line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildStep {
    /// Downloading the source.
    Downloading {
        /// Name of the package.
        package: String,
        /// Its version.
        version: String,
    },
    /// Unpacking it.
    Unpacking {
        /// Files so far.
        files: u64,
    },
    /// Making the configuration.
    Configuring,
    /// Compiling.
    Compiling {
        /// Objects so far.
        objects: usize,
    },
    /// Writing the entry.
    Storing,
}

/// A step of the build that failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelBuildError {
    /// Tools are not there.
    #[error(
        "building a kernel needs {what}; run `apt-get install --no-install-recommends {packages}` as root and try again"
    )]
    Tools {
        /// What is missing.
        what: String,
        /// The packages that have it.
        packages: String,
    },
    /// apt has no source package or gives none.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// The source can't be unpacked.
    #[error("unpack {PACKAGE}")]
    Source(#[source] SourceError),
    /// `make` failed.
    #[error(transparent)]
    Make(MakeError),
    /// The kernel's own rules took away what workloads need.
    #[error("the configuration of {PACKAGE} {version} lacks {missing}")]
    Config {
        /// Version of the package.
        version: String,
        /// The options with their reasons.
        missing: String,
    },
    /// What came out is no kernel.
    #[error("the vmlinux that was built is no ELF file")]
    NotElf(#[source] object::Error),
    /// A file of the build can't be read or written.
    #[error("{step} {path}")]
    File {
        /// What was done.
        step: &'static str,
        /// To what.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The entry can't be made.
    #[error("make kernel entry {TUNED}")]
    Assemble(#[from] KernelAssembleError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] KernelStoreError),
    /// As asked for.
    #[error("the build was stopped")]
    Stopped,
}

impl From<SourceError> for KernelBuildError {
    fn from(error: SourceError) -> Self {
        if matches!(error, SourceError::Stopped) { Self::Stopped } else { Self::Source(error) }
    }
}

impl From<MakeError> for KernelBuildError {
    fn from(error: MakeError) -> Self {
        if matches!(error, MakeError::Stopped) { Self::Stopped } else { Self::Make(error) }
    }
}

/// Builds the newest source package's kernel as entry [`TUNED`], replacing an older one.
///
/// # Errors
/// The step that failed; the store is as it was.
pub fn build(
    store: &KernelStore,
    how: &BuildKernel<'_>,
    progress: &mut dyn FnMut(&BuildStep),
) -> Result<KernelEntry, KernelBuildError> {
    tools::check()?;
    let staging = store.stage()?;
    let dir = staging.path();
    let version = resolve()?;
    progress(&BuildStep::Downloading { package: PACKAGE.into(), version: version.clone() });
    // A signal from the terminal is apt's, too: that it ended by it is no fault of apt.
    let deb = download(PACKAGE, dir)
        .map_err(|error| if how.is_stopped() { KernelBuildError::Stopped } else { error.into() })?;
    let tree = source::unpack(&deb, dir, how, progress)?;
    drop(deb);

    progress(&BuildStep::Configuring);
    let fragment = dir.join("tuned.config");
    fs::write(&fragment, CONFIG).map_err(file_error("write", &fragment))?;
    let mut make = Make::new(&tree, log_path(store), how)?;
    make.run(&["allnoconfig"], &[("KCONFIG_ALLCONFIG", fragment.as_os_str())], &mut |_| {})?;
    let path = tree.join(".config");
    let config = fs::read(&path).map_err(file_error("read", &path))?;
    require(&config, &version)?;

    progress(&BuildStep::Compiling { objects: 0 });
    make.run(&["vmlinux"], &[], &mut |objects| progress(&BuildStep::Compiling { objects }))?;
    make.strip("vmlinux")?;

    progress(&BuildStep::Storing);
    let path = tree.join("vmlinux");
    let mut kernel = fs::read(&path).map_err(file_error("read", &path))?;
    padding::clear(&mut kernel).map_err(KernelBuildError::NotElf)?;
    let origin = Origin::Build {
        package: PACKAGE.into(),
        version,
        config_sha256: sha256(&config),
        compiler: config::value(&config, "CC_VERSION_TEXT").unwrap_or_default().into(),
    };
    Ok(assemble(
        store,
        &Parts {
            name: TUNED.into(),
            kernel,
            kernel_path: "vmlinux".into(),
            config: Some(config),
            modules: Default::default(),
            builtin: Default::default(),
            origin,
            replace: true,
        },
    )?)
}

/// The newest version of the source package.
fn resolve() -> Result<String, AptError> {
    let record = show(PACKAGE)?.unwrap_or_default();
    let version = field(&record, "Version").map(str::to_owned);
    version.ok_or_else(|| AptError::NoPackage { tried: PACKAGE.into() })
}

/// Where what `make` says goes: beside the entries, so that it outlives the build.
fn log_path(store: &KernelStore) -> PathBuf {
    store.root().join(".tuned-build.log")
}

fn require(config: &[u8], version: &str) -> Result<(), KernelBuildError> {
    let missing = config::missing(config, REQUIRED);
    if missing.is_empty() {
        return Ok(());
    }
    let each = missing.iter().map(|m| format!("CONFIG_{} ({})", m.option, m.reason));
    let missing = each.collect::<Vec<_>>().join(", ");
    Err(KernelBuildError::Config { version: version.into(), missing })
}

fn file_error<'a>(step: &'static str, path: &'a Path) -> impl Fn(io::Error) -> KernelBuildError + 'a {
    move |source| KernelBuildError::File { step, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_required_is_asked_for_with_a_reason() {
        // These follow from others by the kernel's own rules.
        const FOLLOW: &[&str] = &["X86_MPPARSE"];
        for required in config::requirements(REQUIRED) {
            assert!(!required.reason.is_empty(), "{} has no reason", required.option);
            let asked = config::value(CONFIG.as_bytes(), required.option) == Some("y");
            assert!(asked || FOLLOW.contains(&required.option), "{} is not asked for", required.option);
        }
    }

    #[test]
    fn a_configuration_without_something_required_is_refused_by_name() {
        let without = CONFIG.replace("CONFIG_EROFS_FS=y\n", "");
        let error = require(format!("{without}CONFIG_X86_MPPARSE=y\n").as_bytes(), "6.12.9-1").unwrap_err();
        let text = error.to_string();
        assert_eq!(text, "the configuration of linux-source-6.12 6.12.9-1 lacks CONFIG_EROFS_FS (images)");
    }

    #[test]
    fn nothing_is_a_module_and_nothing_brings_acpi_or_pci() {
        let off = ["ACPI", "PCI", "MODULES", "USB", "VT", "SERIO", "DEBUG_INFO"];
        for option in off {
            assert_eq!(config::value(CONFIG.as_bytes(), option), None, "{option}");
        }
        assert!(!CONFIG.lines().any(|line| line.ends_with("=m")));
        assert_eq!(config::discovery(CONFIG.as_bytes()), super::super::Discovery::CommandLine);
    }

    #[test]
    #[ignore = "compiles a kernel: 150 MB of download and minutes of both processors"]
    fn builds_the_same_bytes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let store = KernelStore::new(dir.path().to_owned());
        let (never, _open) = io::pipe().unwrap();
        let how = BuildKernel { jobs: 2, stop: never.as_fd() };
        let first = build(&store, &how, &mut |_| {}).unwrap();
        let second = build(&store, &how, &mut |_| {}).unwrap();
        assert_eq!(first.info().sha256, second.info().sha256);
        assert_eq!(first.info().discovery, super::super::Discovery::CommandLine);
        assert_eq!(store.default_name(), TUNED);
        assert!(store.stale().unwrap().is_empty());
    }
}
