//! Guest kernels as named entries of the store.
//!
//! An entry is a directory: `kernel` (as it came), `vmlinux` (the ELF kernel unpacked from a bzImage, where its
//! compression is one we read), `modules/NN-name.ko` for guests, `reporting-modules/NN-name.ko` for those guests whose free memory
//! returns to the host and `lab-modules/NN-name.ko` for the lab machine, all in the order of loading, uncompressed, without signature and BTF, `config`, and `entry.json`. It is built under a temporary name, renamed, and
//! never changed after. Nothing from a package is executed, but for the build scripts of the source package of [`build()`].

mod add;
mod apt;
mod assemble;
mod build;
mod compressed;
mod config;
mod fetch;
mod format;
mod holes;
mod modules;
mod package;
#[cfg(test)]
mod samples;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use add::{AddKernel, KernelAddError, add};
pub use apt::AptError;
pub use assemble::KernelAssembleError;
pub use build::{BuildKernel, BuildStep, KernelBuildError, MakeError, SourceError, build};
pub use fetch::{FetchStep, KernelFetchError, PACKAGES, fetch};
pub use format::{KernelFormat, KernelFormatError};
pub use holes::dig;
pub use modules::ModuleError;
pub use package::KernelPackageError;
pub use store::{KernelStore, KernelStoreError};

/// Name of the entry that [`fetch()`] makes.
pub const STOCK: &str = "stock";

/// Name of the entry that [`build()`] makes.
pub const TUNED: &str = "tuned";

/// Directories of an entry's modules.
const GUEST_DIR: &str = "modules";
const REPORTING_DIR: &str = "reporting-modules";
const LAB_DIR: &str = "lab-modules";

/// A set of modules of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleSet {
    /// For guests.
    Guest,
    /// For guests whose free memory returns to the host: those of [`ModuleSet::Guest`] and the balloon's.
    ReportingGuest,
    /// For the lab machine.
    Lab,
}

/// Where a kernel came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Origin {
    /// A distribution's package.
    Package {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// Built here from a distribution's source package.
    Build {
        /// Name of the package.
        package: String,
        /// Its version.
        version: String,
        /// Digest of the entry's `config`: 64 hex digits.
        config_sha256: String,
        /// The compiler, as the kernel's build names it.
        compiler: String,
    },
    /// A file that the user named.
    File {
        /// As given.
        path: String,
    },
}

/// How a kernel learns of the machine's devices, processors and interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// By ACPI tables.
    #[default]
    Acpi,
    /// It has no ACPI: virtio devices on its command line, processors and interrupts in the table of Intel's MultiProcessor
    /// Specification.
    CommandLine,
}

/// What `entry.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelInfo {
    /// Name of the entry.
    pub name: String,
    /// Release (`uname -r`); empty where the kernel does not tell.
    pub version: String,
    /// Form of `kernel`.
    pub format: KernelFormat,
    /// Digest of `kernel`: 64 hex digits.
    pub sha256: String,
    /// Size of `kernel`.
    pub size_bytes: u64,
    /// Digest of `vmlinux`, where there is one beside a bzImage.
    pub vmlinux_sha256: Option<String>,
    /// Where it came from.
    pub origin: Origin,
    /// How it learns of devices, from its configuration; entries from before this was asked have ACPI.
    #[serde(default)]
    pub discovery: Discovery,
    /// Guest modules in the order of loading.
    pub modules: Vec<String>,
    /// What guests load besides whose free memory returns to the host, in the order of loading. Nothing: this kernel can't do
    /// that, or its entry is from before this was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reporting_modules: Option<Vec<String>>,
    /// Lab modules in the order of loading; none: this kernel can't run the lab.
    pub lab_modules: Vec<String>,
    /// When the entry was made, seconds since 1970.
    pub created_s: u64,
}

/// An entry of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelEntry {
    dir: PathBuf,
    info: KernelInfo,
}

impl KernelEntry {
    /// What the entry says about itself.
    #[must_use]
    pub const fn info(&self) -> &KernelInfo {
        &self.info
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The kernel file as it came.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("kernel")
    }

    /// The ELF kernel, where there is one: it boots without unpacking itself first.
    #[must_use]
    pub fn vmlinux(&self) -> Option<PathBuf> {
        match self.info.format {
            KernelFormat::Vmlinux => Some(self.kernel()),
            KernelFormat::BzImage => self.info.vmlinux_sha256.as_ref().map(|_| self.dir.join("vmlinux")),
        }
    }

    /// The modules of a set in the order of loading.
    #[must_use]
    pub fn modules(&self, set: ModuleSet) -> Vec<PathBuf> {
        let in_dir = |dir: &'static str, names: &[String]| -> Vec<PathBuf> {
            names.iter().map(|name| self.dir.join(dir).join(name)).collect()
        };
        let info = &self.info;
        match set {
            ModuleSet::Guest => in_dir(GUEST_DIR, &info.modules),
            ModuleSet::ReportingGuest => {
                let more = info.reporting_modules.as_deref().unwrap_or_default();
                [in_dir(GUEST_DIR, &info.modules), in_dir(REPORTING_DIR, more)].concat()
            }
            ModuleSet::Lab => in_dir(LAB_DIR, &info.lab_modules),
        }
    }
}
