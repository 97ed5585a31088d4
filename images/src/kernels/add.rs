//! A kernel that the user has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::assemble::{KernelAssembleError, Parts, assemble};
use super::format::MAX_KERNEL;
use super::modules::{MAX_MODULE, ModuleError, builtin};
use super::package::module_name;
use super::store::name_from;
use super::{KernelEntry, KernelStore, Origin};

/// Deepest directory below `--modules`.
const MAX_DEPTH: usize = 16;
/// Most modules read.
const MAX_MODULES: usize = 20_000;

/// What to add.
#[derive(Clone, Debug)]
pub struct AddKernel {
    /// A vmlinux or bzImage.
    pub path: PathBuf,
    /// Name of the entry; else made from the file's name.
    pub name: Option<String>,
    /// Directory with the modules of the same build (`lib/modules/RELEASE`).
    pub modules: Option<PathBuf>,
}

/// A step of the adding that failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelAddError {
    /// The kernel file can't be read.
    #[error("read kernel {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The modules can't be read.
    #[error(transparent)]
    Modules(#[from] ModuleError),
    /// The entry can't be made.
    #[error(transparent)]
    Assemble(#[from] KernelAssembleError),
}

/// Adds a kernel as a new entry.
///
/// # Errors
/// The step that failed; the store is as it was.
pub fn add(store: &KernelStore, request: &AddKernel) -> Result<KernelEntry, KernelAddError> {
    let path = request.path.display().to_string();
    let kernel = read_bounded(&request.path, MAX_KERNEL)
        .map_err(|source| KernelAddError::Read { path: path.clone(), source })?;
    let mut found = Found::default();
    if let Some(dir) = &request.modules {
        found.walk(dir, 0)?;
    }
    let name =
        request.name.clone().unwrap_or_else(|| name_from(request.path.file_name().unwrap_or_default()));
    Ok(assemble(
        store,
        &Parts {
            name,
            kernel,
            kernel_path: path.clone(),
            config: None,
            modules: found.modules,
            builtin: found.builtin,
            origin: Origin::File { path },
            replace: false,
        },
    )?)
}

#[derive(Default)]
struct Found {
    modules: BTreeMap<String, Vec<u8>>,
    builtin: BTreeSet<String>,
}

impl Found {
    fn walk(&mut self, dir: &Path, depth: usize) -> Result<(), ModuleError> {
        let fail = |path: &Path, source| ModuleError::ReadDir { path: path.display().to_string(), source };
        if depth > MAX_DEPTH || self.modules.len() > MAX_MODULES {
            return Err(fail(dir, io::Error::other("too many or too deep")));
        }
        for entry in fs::read_dir(dir).map_err(|e| fail(dir, e))? {
            let entry = entry.map_err(|e| fail(dir, e))?;
            let path = entry.path();
            // `build` and `source` are links out of here: only real directories are followed.
            let kind = entry.file_type().map_err(|e| fail(&path, e))?;
            let file = entry.file_name();
            let file = file.to_string_lossy();
            if kind.is_dir() {
                self.walk(&path, depth + 1)?;
            } else if kind.is_file() && file == "modules.builtin" {
                let text = read_bounded(&path, 16 << 20).map_err(|e| fail(&path, e))?;
                self.builtin = builtin(&String::from_utf8_lossy(&text));
            } else if kind.is_file()
                && let Some(name) = module_name(&file)
            {
                let content = read_bounded(&path, MAX_MODULE).map_err(|e| fail(&path, e))?;
                self.modules.insert(name, content);
            }
        }
        Ok(())
    }
}

/// A whole regular file of at most `limit` bytes.
fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > limit) {
        return Err(io::Error::other(format!("larger than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}
