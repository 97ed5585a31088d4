//! Writing an entry from its parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::compressed::expand;
use super::config::{discovery, reports_free_pages};
use super::format::{KernelFormatError, inspect, unpack};
use super::holes::dig;
use super::modules::{GUEST, LAB, MAX_MODULE, ModuleError, ModuleInfo, REPORTING, load_order, modinfo, slim};
use super::store::check_name;
use super::{GUEST_DIR, LAB_DIR, REPORTING_DIR};
use super::{KernelEntry, KernelFormat, KernelInfo, KernelStore, KernelStoreError, Origin};

/// A step of making an entry that failed; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum KernelAssembleError {
    /// The kernel file is not usable.
    #[error("kernel {path}")]
    Kernel {
        /// Which file.
        path: String,
        /// Why.
        source: KernelFormatError,
    },
    /// Its modules are not.
    #[error("modules for guests")]
    Modules(#[source] ModuleError),
    /// The modules belong to another kernel.
    #[error("module {module} is for kernel {found}, not {wanted}: give the modules of the same build")]
    Release {
        /// One of them.
        module: String,
        /// Its kernel.
        found: String,
        /// This kernel.
        wanted: String,
    },
    /// A file of the entry can't be written.
    #[error("write {path}")]
    Write {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] KernelStoreError),
}

/// The parts of an entry. Modules are by canonical name, compressed or not.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) kernel: Vec<u8>,
    /// For messages.
    pub(super) kernel_path: String,
    pub(super) config: Option<Vec<u8>>,
    pub(super) modules: BTreeMap<String, Vec<u8>>,
    pub(super) builtin: BTreeSet<String>,
    pub(super) origin: Origin,
    pub(super) replace: bool,
}

/// Writes the entry under a temporary name, then gives it its own.
///
/// # Errors
/// The step that failed.
pub(super) fn assemble(store: &KernelStore, parts: &Parts) -> Result<KernelEntry, KernelAssembleError> {
    check_name(&parts.name)?;
    if !parts.replace && store.contains(&parts.name) {
        return Err(KernelStoreError::Exists { name: parts.name.clone() }.into());
    }
    let bad = |source| KernelAssembleError::Kernel { path: parts.kernel_path.clone(), source };
    let file = inspect(&parts.kernel).map_err(bad)?;
    let unpacked = match file.format {
        KernelFormat::BzImage => unpack(&parts.kernel).map_err(bad)?,
        KernelFormat::Vmlinux => None,
    };
    let staging = store.stage()?;
    let dir = staging.path().join("entry");
    create_dir(&dir)?;
    write_with_holes(&dir.join("kernel"), &parts.kernel)?;
    if let Some(vmlinux) = &unpacked {
        write_with_holes(&dir.join("vmlinux"), vmlinux)?;
    }
    if let Some(config) = &parts.config {
        write(&dir.join("config"), config)?;
    }
    let release = file.release.unwrap_or_default();
    let guest = Modules::load(parts, GUEST)?;
    guest.write(&dir, GUEST_DIR, 0, &release)?;
    let lab = optional(Modules::load(parts, LAB))?.unwrap_or_default();
    lab.write(&dir, LAB_DIR, 0, &release)?;
    let info = KernelInfo {
        name: parts.name.clone(),
        format: file.format,
        sha256: sha256(&parts.kernel),
        size_bytes: u64::try_from(parts.kernel.len()).unwrap_or(u64::MAX),
        vmlinux_sha256: unpacked.as_deref().map(sha256),
        origin: parts.origin.clone(),
        discovery: discovery(parts.config.as_deref().unwrap_or_default()),
        reporting_modules: reporting(parts, &guest, &dir, &release)?,
        modules: guest.file_names(0),
        lab_modules: lab.file_names(0),
        created_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()),
        version: release,
    };
    let mut json = serde_json::to_vec_pretty(&info)
        .map_err(|source| KernelAssembleError::Write { path: "entry.json".into(), source: source.into() })?;
    json.push(b'\n');
    write(&dir.join("entry.json"), &json)?;
    Ok(store.publish(&staging, &dir, &parts.name, parts.replace)?)
}

/// Modules in the order of loading, with their content and the kernels that they are for.
#[derive(Default)]
struct Modules {
    order: Vec<String>,
    content: BTreeMap<String, Vec<u8>>,
    releases: BTreeMap<String, String>,
}

impl Modules {
    /// Those that are wanted, with all that they need. None of a kernel without modules: everything is built in, or its guests
    /// will say what they miss.
    fn load(parts: &Parts, wanted: &[&str]) -> Result<Self, KernelAssembleError> {
        let mut found = Self::default();
        if parts.modules.is_empty() {
            return Ok(found);
        }
        let order = load_order(wanted, &parts.builtin, |name| {
            let bytes = parts.modules.get(name)?;
            Some(open(name, bytes).map(|(content, info)| {
                found.content.insert(name.into(), content);
                found.releases.extend(info.release.clone().map(|release| (name.to_owned(), release)));
                info
            }))
        });
        found.order = order.map_err(KernelAssembleError::Modules)?;
        Ok(found)
    }

    /// File names from this number on: in the order of loading when they are sorted.
    fn file_names(&self, first: usize) -> Vec<String> {
        (first..).zip(&self.order).map(|(position, name)| format!("{position:02}-{name}.ko")).collect()
    }

    /// Writes them.
    fn write(&self, dir: &Path, name: &str, first: usize, release: &str) -> Result<(), KernelAssembleError> {
        let other = self.releases.iter().find(|(_, found)| !release.is_empty() && *found != release);
        if let Some((module, found)) = other {
            return Err(KernelAssembleError::Release {
                module: module.clone(),
                found: found.clone(),
                wanted: release.into(),
            });
        }
        if self.order.is_empty() {
            return Ok(());
        }
        let dir = dir.join(name);
        create_dir(&dir)?;
        for (file, module) in self.file_names(first).iter().zip(&self.order) {
            write(&dir.join(file), self.content.get(module).map_or(&[][..], Vec::as_slice))?;
        }
        Ok(())
    }
}

/// Writes what guests load besides whose free memory returns; nothing where this kernel can't do that. Fine for a guest kernel.
fn reporting(
    parts: &Parts,
    guest: &Modules,
    dir: &Path,
    release: &str,
) -> Result<Option<Vec<String>>, KernelAssembleError> {
    if parts.config.as_deref().is_some_and(|config| !reports_free_pages(config)) {
        return Ok(None);
    }
    if parts.modules.is_empty() {
        // Built in, or nobody knows.
        return Ok(parts.config.as_ref().map(|_| vec![]));
    }
    let Some(mut more) = optional(Modules::load(parts, &[REPORTING]))? else { return Ok(None) };
    more.order.retain(|name| !guest.order.contains(name));
    let first = guest.order.len();
    more.write(dir, REPORTING_DIR, first, release)?;
    Ok(Some(more.file_names(first)))
}

/// Nothing where a module is missing: fine for a guest kernel, which need not be able to run the lab.
fn optional(found: Result<Modules, KernelAssembleError>) -> Result<Option<Modules>, KernelAssembleError> {
    match found {
        Err(KernelAssembleError::Modules(ModuleError::Missing { .. })) => Ok(None),
        found => found.map(Some),
    }
}

fn open(name: &str, bytes: &[u8]) -> Result<(Vec<u8>, ModuleInfo), ModuleError> {
    let content =
        expand(bytes, MAX_MODULE).map_err(|source| ModuleError::Unpack { name: name.into(), source })?;
    let info = modinfo(name, &content)?;
    Ok((slim(name, content.into_owned())?, info))
}

fn create_dir(path: &Path) -> Result<(), KernelAssembleError> {
    fs::create_dir(path).map_err(|source| write_error(path, source))
}

/// Writes a file and sees to it that it is on the disk before the entry gets its name.
fn write(path: &Path, content: &[u8]) -> Result<(), KernelAssembleError> {
    write_then(path, content, |_| Ok(()))
}

/// The same; pages of zeros are holes.
fn write_with_holes(path: &Path, content: &[u8]) -> Result<(), KernelAssembleError> {
    write_then(path, content, dig)
}

fn write_then(
    path: &Path,
    content: &[u8],
    then: impl FnOnce(&File) -> io::Result<()>,
) -> Result<(), KernelAssembleError> {
    let create = || {
        let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.write_all(content)?;
        then(&file)?;
        file.sync_data()
    };
    create().map_err(|source| write_error(path, source))
}

fn write_error(path: &Path, source: io::Error) -> KernelAssembleError {
    KernelAssembleError::Write { path: path.display().to_string(), source }
}

/// SHA-256 as 64 hex digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
