//! The distribution's prebuilt cloud kernel: downloaded by apt, unpacked into the store, nothing installed.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::assemble::{KernelAssembleError, Parts, assemble};
use super::package::{self, KernelPackageError};
use super::{KernelEntry, KernelStore, KernelStoreError, Origin, STOCK};

/// Packages tried, best first: the release's own kernel, which everybody has and which (6.1 on Debian 12) fits into less
/// memory and starts in half the time of the backported 6.12.
pub const PACKAGES: &[&str] = &["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

/// Largest package.
const MAX_PACKAGE: u64 = 512 << 20;

/// What is going on, for a progress line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchStep {
    /// Asking apt for the newest package.
    Resolving,
    /// Downloading.
    Downloading {
        /// Name of the package.
        package: String,
        /// Its version.
        version: String,
    },
    /// Unpacking and writing the entry.
    Unpacking {
        /// Size of the package.
        bytes: u64,
    },
}

/// A step of the fetch that failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelFetchError {
    /// No apt here.
    #[error(
        "{program} is not there, so no kernel can be fetched: add one with `isolab kernel add PATH --modules DIR`"
    )]
    NoApt {
        /// What was looked for.
        program: &'static str,
    },
    /// apt could not be run.
    #[error("run {program}")]
    Run {
        /// Which program.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// apt knows none of the packages.
    #[error(
        "apt knows no package {tried}: run `apt-get update`, or add a kernel with `isolab kernel add PATH --modules DIR`"
    )]
    NoPackage {
        /// What was tried.
        tried: String,
    },
    /// The download failed.
    #[error("apt-get download {package} failed: {message}")]
    Download {
        /// Which package.
        package: String,
        /// Its last words.
        message: String,
    },
    /// The downloaded file can't be read.
    #[error("read the downloaded package {package}")]
    Read {
        /// Which package.
        package: String,
        /// Why.
        source: io::Error,
    },
    /// It is not a kernel package.
    #[error("package {package}")]
    Package {
        /// Which package.
        package: String,
        /// Why.
        source: KernelPackageError,
    },
    /// The entry can't be made.
    #[error("make kernel entry {STOCK}")]
    Assemble(#[from] KernelAssembleError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] KernelStoreError),
}

/// Fetches the newest suitable kernel as entry [`STOCK`], replacing an older one.
///
/// # Errors
/// The step that failed; the store is as it was.
pub fn fetch(
    store: &KernelStore,
    progress: &mut dyn FnMut(&FetchStep),
) -> Result<KernelEntry, KernelFetchError> {
    progress(&FetchStep::Resolving);
    let candidate = resolve()?;
    progress(&FetchStep::Downloading { package: candidate.name.clone(), version: candidate.version.clone() });
    let staging = store.stage()?;
    let deb = download(&candidate.name, staging.path())?;
    progress(&FetchStep::Unpacking { bytes: u64::try_from(deb.len()).unwrap_or(u64::MAX) });
    let unpacked = package::read(&deb)
        .map_err(|source| KernelFetchError::Package { package: candidate.name.clone(), source })?;
    drop(deb);
    Ok(assemble(
        store,
        &Parts {
            name: STOCK.into(),
            kernel: unpacked.kernel,
            kernel_path: unpacked.kernel_path,
            config: unpacked.config,
            modules: unpacked.modules,
            builtin: unpacked.builtin,
            origin: Origin::Package { name: candidate.name, version: candidate.version },
            replace: true,
        },
    )?)
}

/// A real package (not a meta package) with its version.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    version: String,
}

fn resolve() -> Result<Candidate, KernelFetchError> {
    for meta in PACKAGES {
        let Some(record) = show(meta)? else { continue };
        let Some(real) = image_dependency(&record) else { continue };
        let Some(record) = show(&real)? else { continue };
        if let Some(version) = field(&record, "Version") {
            return Ok(Candidate { name: real, version: version.into() });
        }
    }
    Err(KernelFetchError::NoPackage { tried: PACKAGES.join(" or ") })
}

/// apt's record of a package, or nothing where it knows none.
fn show(package: &str) -> Result<Option<String>, KernelFetchError> {
    let mut command = Command::new("apt-cache");
    command.args(["show", "--no-all-versions", "--", package]).env("LC_ALL", "C");
    let out = run("apt-cache", &mut command)?;
    Ok(out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned()))
}

fn download(package: &str, dir: &Path) -> Result<Vec<u8>, KernelFetchError> {
    let mut command = Command::new("apt-get");
    // apt's own user can't write into our directory; without this, it says so and downloads as root anyway.
    command.args(["-q", "-o", "APT::Sandbox::User=root", "download", "--", package]);
    command.current_dir(dir).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    let out = run("apt-get", &mut command)?;
    let read = |source| KernelFetchError::Read { package: package.into(), source };
    let mut debs = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        debs.push(entry.map_err(read)?.path());
    }
    debs.retain(|path| path.extension().is_some_and(|ext| ext == "deb"));
    match debs.as_slice() {
        [deb] if out.status.success() => {
            let size = fs::metadata(deb).map_err(read)?.len();
            if size > MAX_PACKAGE {
                return Err(read(io::Error::other(format!("{size} bytes are too many"))));
            }
            fs::read(deb).map_err(read)
        }
        _ => Err(KernelFetchError::Download { package: package.into(), message: last_words(&out.stderr) }),
    }
}

fn run(program: &'static str, command: &mut Command) -> Result<std::process::Output, KernelFetchError> {
    command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KernelFetchError::NoApt { program },
        _ => KernelFetchError::Run { program, source },
    })
}

/// The last line that says something.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("no package came and apt gave no reason").trim().into()
}

/// The first kernel image among a meta package's dependencies.
fn image_dependency(record: &str) -> Option<String> {
    let depends = field(record, "Depends")?;
    let names = depends.split([',', '|']).filter_map(|part| part.split_whitespace().next());
    names.map(str::to_owned).find(|name| name.starts_with("linux-image-"))
}

/// A one-line field of a package record.
fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = "Package: linux-image-cloud-amd64\nSource: linux-signed-amd64 (6.1.187+1)\n\
        Version: 6.1.187-1\nDepends: linux-base (>= 4), linux-image-6.1.0-53-cloud-amd64 (= 6.1.187-1)\n";

    #[test]
    fn finds_the_real_package_behind_a_meta_package() {
        assert_eq!(image_dependency(META).as_deref(), Some("linux-image-6.1.0-53-cloud-amd64"));
    }

    #[test]
    fn reads_a_field_by_its_whole_name() {
        assert_eq!(field(META, "Version"), Some("6.1.187-1"));
        assert_eq!(field(META, "Vers"), None);
    }

    #[test]
    fn keeps_the_last_words_of_apt() {
        assert_eq!(last_words(b"W: a\nE: Unable to locate package x\n\n"), "E: Unable to locate package x");
    }
}
