//! A Debian kernel package, read without dpkg: an `ar` archive whose member `data.tar.*` holds the files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use object::read::archive::ArchiveFile;

use super::compressed;
use super::format::MAX_KERNEL;
use super::modules::{MAX_MODULE, builtin, canonical};

/// Most files in a package; Debian's cloud kernels have 1 400.
const MAX_ENTRIES: usize = 50_000;
/// Most bytes kept from a package.
const MAX_KEPT: u64 = 1 << 30;

/// A package can't be read.
#[derive(Debug, thiserror::Error)]
pub enum KernelPackageError {
    /// Not an `ar` archive, or cut short.
    #[error("not a whole Debian package")]
    Container(#[source] object::Error),
    /// No `data.tar` member, or its compression is not known.
    #[error("no readable data archive in the package (found: {members})")]
    NoData {
        /// What is there.
        members: String,
    },
    /// The tree inside is damaged.
    #[error("read the files of the package")]
    Data(#[source] io::Error),
    /// Over a limit.
    #[error("package is over the limit of {limit} {what}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// No kernel file.
    #[error("no boot/vmlinuz-* in the package")]
    NoKernel,
}

/// What an entry needs from a package.
#[derive(Debug, Default)]
pub(super) struct KernelPackage {
    pub(super) kernel: Vec<u8>,
    pub(super) kernel_path: String,
    pub(super) config: Option<Vec<u8>>,
    pub(super) modules: BTreeMap<String, Vec<u8>>,
    pub(super) builtin: BTreeSet<String>,
}

/// Reads a package.
///
/// # Errors
/// Damaged, too large, or without a kernel.
pub(super) fn read(deb: &[u8]) -> Result<KernelPackage, KernelPackageError> {
    let package = read_tree(data(deb)?)?;
    if package.kernel.is_empty() { Err(KernelPackageError::NoKernel) } else { Ok(package) }
}

/// The tar of a package's files.
///
/// # Errors
/// Not a package.
pub(super) fn data(deb: &[u8]) -> Result<Box<dyn Read + '_>, KernelPackageError> {
    let archive = ArchiveFile::parse(deb).map_err(KernelPackageError::Container)?;
    let mut data = None;
    let mut members = Vec::new();
    for member in archive.members() {
        let member = member.map_err(KernelPackageError::Container)?;
        let content = member.data(deb).map_err(KernelPackageError::Container)?;
        if member.name().starts_with(b"data.tar") {
            data = Some(content);
        }
        members.push(String::from_utf8_lossy(member.name()).into_owned());
    }
    let no_data = || KernelPackageError::NoData { members: members.join(", ") };
    let data = data.ok_or_else(no_data)?;
    compressed::reader(data).map_err(KernelPackageError::Data)?.ok_or_else(no_data)
}

fn read_tree(stream: Box<dyn Read + '_>) -> Result<KernelPackage, KernelPackageError> {
    let mut package = KernelPackage::default();
    let mut tree = tar::Archive::new(stream);
    let mut kept = 0;
    for (count, entry) in tree.entries().map_err(KernelPackageError::Data)?.enumerate() {
        if count >= MAX_ENTRIES {
            return Err(KernelPackageError::TooLarge { what: "files", limit: 50_000 });
        }
        let mut entry = entry.map_err(KernelPackageError::Data)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(piece) = Piece::of(&path) else { continue };
        let size = entry.size();
        kept += size;
        if size > piece.limit() || kept > MAX_KEPT {
            return Err(KernelPackageError::TooLarge { what: "bytes", limit: MAX_KEPT });
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(KernelPackageError::Data)?;
        match piece {
            Piece::Kernel => (package.kernel, package.kernel_path) = (content, path),
            Piece::Config => package.config = Some(content),
            Piece::Builtin => package.builtin = builtin(&String::from_utf8_lossy(&content)),
            Piece::Module(name) => drop(package.modules.insert(name, content)),
        }
    }
    // A stream that ends early ends the tree, too: only its decoder knows.
    let mut rest = tree.into_inner().take(MAX_KEPT);
    io::copy(&mut rest, &mut io::sink()).map_err(KernelPackageError::Data)?;
    Ok(package)
}

/// A file that is wanted.
enum Piece {
    Kernel,
    Config,
    Builtin,
    Module(String),
}

impl Piece {
    fn of(path: &str) -> Option<Self> {
        let path = path.trim_start_matches("./").trim_start_matches("usr/");
        let file = path.rsplit('/').next()?;
        if path.starts_with("boot/vmlinuz-") {
            Some(Self::Kernel)
        } else if path.starts_with("boot/config-") {
            Some(Self::Config)
        } else if !path.starts_with("lib/modules/") {
            None
        } else if file == "modules.builtin" {
            Some(Self::Builtin)
        } else {
            module_name(file).map(Self::Module)
        }
    }

    const fn limit(&self) -> u64 {
        match self {
            Self::Kernel => MAX_KERNEL,
            Self::Config | Self::Builtin => 16 << 20,
            Self::Module(_) => MAX_MODULE,
        }
    }
}

/// Canonical name of a module's file, compressed or not.
pub(super) fn module_name(file: &str) -> Option<String> {
    let endings = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];
    endings.iter().any(|ending| file.ends_with(ending)).then(|| canonical(file))
}
