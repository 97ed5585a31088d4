//! The distribution's prebuilt cloud kernel: downloaded by apt, unpacked into the store, nothing installed.

use super::apt::{AptError, download, field, show};
use super::assemble::{KernelAssembleError, Parts, assemble};
use super::package::{self, KernelPackageError};
use super::{KernelEntry, KernelStore, KernelStoreError, Origin, STOCK};

/// Packages tried, best first: the release's own kernel, which everybody has and which (6.1 on Debian 12) fits into less
/// memory and starts in half the time of the backported 6.12.
pub const PACKAGES: &[&str] = &["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

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
    /// apt has no package or gives none.
    #[error(transparent)]
    Apt(#[from] AptError),
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

fn resolve() -> Result<Candidate, AptError> {
    for meta in PACKAGES {
        let Some(record) = show(meta)? else { continue };
        let Some(real) = image_dependency(&record) else { continue };
        let Some(record) = show(&real)? else { continue };
        if let Some(version) = field(&record, "Version") {
            return Ok(Candidate { name: real, version: version.into() });
        }
    }
    Err(AptError::NoPackage { tried: PACKAGES.join(" or ") })
}

/// The first kernel image among a meta package's dependencies.
fn image_dependency(record: &str) -> Option<String> {
    let depends = field(record, "Depends")?;
    let names = depends.split([',', '|']).filter_map(|part| part.split_whitespace().next());
    names.map(str::to_owned).find(|name| name.starts_with("linux-image-"))
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
}
