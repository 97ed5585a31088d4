//! Sources of images: what a path holds, and reading it into a tree.

use std::error::Error;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::budget::{BudgetError, Budgets, DECOMPRESSED, Meter};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::directory::{self, DirectoryError};
use crate::layer::{Build, Compression, Decoder, Expected, LayerError, TarError};
use crate::oci::{Contents, Image, Limits, Members, OciError, Section, classify};
use crate::report::Report;
use crate::tree::{Spool, Tree};

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Directory with `oci-layout`.
    OciLayout,
    /// The same as a tar archive, also what `docker save` writes since version 25.
    OciArchive,
    /// What `docker save` wrote before.
    DockerArchive,
    /// Root filesystem as a tar archive.
    RootfsTar,
    /// Root filesystem as a directory.
    RootfsDir,
}

/// An import that failed; nothing outside the spool was touched.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The path can't be opened.
    #[error("open {path}")]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A device, pipe or socket.
    #[error("{path} is neither a directory nor a file")]
    Type {
        /// The path.
        path: PathBuf,
    },
    /// Not an archive, or a damaged one.
    #[error("{path} is not an image (OCI layout, docker save archive, tar archive, directory)")]
    Archive {
        /// The path.
        path: PathBuf,
        /// What is wrong with it as an archive.
        source: TarError,
    },
    /// Compressed in a form that is not read.
    #[error("{path} is compressed by {form}, which is not supported (gzip and zstd are)")]
    Form {
        /// The path.
        path: PathBuf,
        /// By what.
        form: &'static str,
    },
    /// The file can't be read or unpacked.
    #[error("read {path}")]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An image that is refused.
    #[error("import the image {path}")]
    Image {
        /// The path.
        path: PathBuf,
        /// Why.
        source: OciError,
    },
    /// A root filesystem archive that is refused.
    #[error("import the root filesystem {path}")]
    Rootfs {
        /// The path.
        path: PathBuf,
        /// Why.
        source: LayerError,
    },
    /// A root filesystem directory that is refused.
    #[error("import the directory {path}")]
    Directory {
        /// The path.
        path: PathBuf,
        /// Why.
        source: DirectoryError,
    },
}

impl ImportError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            over if is_over_size(over) => {
                "nothing was changed; where it is to be trusted, raise --max-size of `isolab image import`"
            }
            Self::Form { .. } => "decompress it first",
            Self::Open { .. } | Self::Type { .. } => {
                "give the path of an archive, an OCI layout or a root directory"
            }
            Self::Image { source: OciError::Choice { .. }, .. } => "name it with --reference",
            Self::Image { source: OciError::Platform { .. }, .. } => "get the image for linux/amd64",
            Self::Image { source: OciError::MediaType { .. }, .. } => {
                "save it again in a form with plain, gzip or zstd tar layers"
            }
            Self::Directory { .. } => "nothing was changed; mend the directory or leave that part out",
            Self::Archive { .. } | Self::Read { .. } | Self::Image { .. } | Self::Rootfs { .. } => {
                "nothing was changed; save or fetch the image again, or use another"
            }
        }
    }
}

/// Whether an error or one below it is of the budget that the user can raise.
fn is_over_size(error: &(dyn Error + 'static)) -> bool {
    let layer = error.downcast_ref::<LayerError>();
    let budget = match layer.or_else(|| error.downcast_ref::<Box<LayerError>>().map(AsRef::as_ref)) {
        Some(LayerError::Budget(budget)) => Some(budget),
        _ => error.downcast_ref::<BudgetError>(),
    };
    // An input error that holds another one gives that one's cause as its own.
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    budget.is_some_and(|budget| budget.what == DECOMPRESSED)
        || held.is_some_and(|held| is_over_size(held))
        || error.source().is_some_and(is_over_size)
}

/// What compressed a file that is read as no archive.
fn other_form(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xfd, b'7', b'z', b'X', ..] => Some("xz"),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some("bzip2"),
        _ => None,
    }
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes of the source read.
    pub done_bytes: u64,
    /// Bytes of the source, where known.
    pub total_bytes: Option<u64>,
}

/// What the caller decides about an import.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Limits.
    pub budgets: Budgets,
    /// Which image, where a source holds several.
    pub reference: Option<&'a str>,
}

/// An image in memory.
#[derive(Debug)]
pub struct Imported {
    /// Its files.
    pub tree: Tree,
    /// Their contents.
    pub spool: Spool,
    /// Defaults for a job; empty for a plain root filesystem.
    pub config: ImageConfig,
    /// What was read and left out.
    pub report: Report,
    /// Digest of the OCI manifest, of the configuration (`docker save`) or of the tar file as it is;
    /// nothing for a directory.
    pub source_digest: Option<Digest>,
}

/// An open source.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    kind: SourceKind,
    input: Input,
}

#[derive(Debug)]
enum Input {
    Dir(OwnedFd),
    File { file: File, compressed: bool },
}

/// What a path holds.
///
/// # Errors
/// It can't be read, or is nothing that can be imported.
pub fn detect(path: &Path) -> Result<SourceKind, ImportError> {
    Ok(Source::open(path, Budgets::default())?.kind())
}

/// Opens a path once, for reading.
///
/// # Errors
/// It can't be opened.
pub fn open(path: &Path) -> Result<OwnedFd, ImportError> {
    // Not blocking: the path may name a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| ImportError::Open { path: path.into(), source: errno.into() })
}

/// Opens and reads a source.
///
/// # Errors
/// The step that failed and why; the caller drops the spool.
pub fn read(
    path: &Path,
    options: Options<'_>,
    spool: Spool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, ImportError> {
    Source::open(path, options.budgets.clone())?.read(options, spool, progress)
}

impl Source {
    /// Opens a path; an archive is looked through within the budgets.
    ///
    /// # Errors
    /// It can't be read, or is nothing that can be imported.
    pub fn open(path: &Path, budgets: Budgets) -> Result<Self, ImportError> {
        Self::of(open(path)?, path, budgets)
    }

    /// What an open file or directory holds; all further reading is from that descriptor, and the path is for messages.
    ///
    /// # Errors
    /// It can't be read, or is nothing that can be imported.
    pub fn of(fd: OwnedFd, path: &Path, budgets: Budgets) -> Result<Self, ImportError> {
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| ImportError::Open { path: path.into(), source: errno.into() })?;
        let path = path.to_path_buf();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let members = Members::Dir(fd);
                let is_oci = members.has(b"oci-layout");
                let Members::Dir(fd) = members else { return Err(ImportError::Type { path }) };
                let kind = if is_oci { SourceKind::OciLayout } else { SourceKind::RootfsDir };
                Ok(Self { path, kind, input: Input::Dir(fd) })
            }
            FileType::RegularFile => Self::archive(path, File::from(fd), budgets),
            _ => Err(ImportError::Type { path }),
        }
    }

    fn archive(path: PathBuf, file: File, budgets: Budgets) -> Result<Self, ImportError> {
        let read = |source| ImportError::Read { path: path.clone(), source };
        let section = Section::whole(file.try_clone().map_err(read)?).map_err(read)?;
        let mut magic = [0; 4];
        let len = section.peek(&mut magic).map_err(read)?;
        let compressed = Compression::of_magic(&magic[..len]) != Compression::None;
        let meter = Meter::new(budgets);
        let contents = if compressed {
            let (_, decoder) = Decoder::new(section, &meter).map_err(read)?;
            classify(decoder, &meter.budgets, |stream, left| {
                io::copy(&mut io::Read::take(stream, left), &mut io::sink()).map(drop)
            })
        } else {
            let seek = |file: &mut Section, by| file.seek_relative(i64::try_from(by).unwrap_or(i64::MAX));
            classify(section, &meter.budgets, seek)
        };
        let kind = match contents {
            Ok(Contents::Oci) => SourceKind::OciArchive,
            Ok(Contents::Docker) => SourceKind::DockerArchive,
            Ok(Contents::Rootfs) => SourceKind::RootfsTar,
            Err(source) => {
                return Err(match other_form(&magic[..len]) {
                    Some(form) => ImportError::Form { path, form },
                    None => ImportError::Archive { path, source },
                });
            }
        };
        Ok(Self { path, kind, input: Input::File { file, compressed } })
    }

    /// What it holds.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Reads it into a tree; file contents go to the spool.
    ///
    /// # Errors
    /// The step that failed and why; the caller drops the spool.
    pub fn read(
        self,
        options: Options<'_>,
        mut spool: Spool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Imported, ImportError> {
        let Self { path, kind, input } = self;
        let mut build = Build::new(&mut spool, Meter::new(options.budgets));
        let mut total_bytes = None;
        let (config, source_digest) = match (kind, input) {
            (SourceKind::RootfsDir, Input::Dir(dir)) => {
                let mut report = |done_bytes| progress(Progress { done_bytes, total_bytes });
                directory::read(dir.as_fd(), &mut build, &mut report)
                    .map_err(|source| ImportError::Directory { path, source })?;
                (ImageConfig::default(), None)
            }
            (SourceKind::RootfsTar, Input::File { file, .. }) => {
                let section = Section::whole(file);
                let section = section.map_err(|source| ImportError::Read { path: path.clone(), source })?;
                total_bytes = Some(section.len());
                let mut report = |done_bytes| progress(Progress { done_bytes, total_bytes });
                build
                    .layer(section, Expected::default(), &mut report)
                    .map_err(|source| ImportError::Rootfs { path, source })?;
                let digest =
                    build.report.layers.first().and_then(|layer| layer.digest.as_ref()?.parse().ok());
                (ImageConfig::default(), digest)
            }
            (_, input) => {
                let members = members(&path, input, &mut build)?;
                let limits = Limits {
                    document_bytes: build.meter.budgets.document_bytes,
                    layers: build.meter.budgets.layers,
                };
                let refuse = |source| ImportError::Image { path: path.clone(), source };
                let image = Image::find(&members, options.reference, limits).map_err(refuse)?;
                total_bytes = Some(image.stored_bytes(&members).map_err(refuse)?);
                let mut report = |done_bytes| progress(Progress { done_bytes, total_bytes });
                image.build(&members, &mut build, &mut report).map_err(refuse)?;
                (image.config, Some(image.digest))
            }
        };
        let Build { tree, report, .. } = build;
        Ok(Imported { tree, spool, config, report, source_digest })
    }
}

/// The parts of an image. A compressed archive is unpacked into the spool first: its members are read out of order.
fn members(path: &Path, input: Input, build: &mut Build<'_>) -> Result<Members, ImportError> {
    let read = |source| ImportError::Read { path: path.into(), source };
    let section = match input {
        Input::Dir(dir) => return Ok(Members::Dir(dir)),
        Input::File { file, compressed: false } => Section::whole(file).map_err(read)?,
        Input::File { file, compressed: true } => {
            let stored = Section::whole(file).map_err(read)?;
            let (_, mut decoder) = Decoder::new(stored, &build.meter).map_err(read)?;
            let start = build.spool.position();
            let len = io::copy(&mut decoder, &mut build.spool).map_err(read)?;
            build.spool.flush().map_err(read)?;
            build.meter.decompressed(len).map_err(|error| read(io::Error::other(error)))?;
            Section::range(build.spool.reopen().map_err(read)?, start, len)
        }
    };
    Members::index(section, &mut build.meter)
        .map_err(|source| ImportError::Image { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::Escaped;

    #[test]
    fn what_another_program_compressed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (start, form) in [(&b"\xfd7zXZ\0"[..], "xz"), (b"BZh91AY&SY", "bzip2")] {
            let path = dir.path().join(form);
            std::fs::write(&path, [start, &[7; 2000]].concat()).unwrap();
            let error = detect(&path).unwrap_err();
            assert!(error.to_string().contains(&format!("compressed by {form}, which is not")), "{error}");
            assert_eq!(error.remedy(), "decompress it first");
        }
    }

    #[test]
    fn an_image_over_the_size_names_the_option_that_raises_it() {
        let path = PathBuf::from("p");
        let of = |what| BudgetError { what, limit: 1 };
        let layer = |what| LayerError::Budget(of(what));
        let read = |what| TarError::Read { offset: 0, source: io::Error::other(of(what)) };
        let errors = |what| {
            [
                ImportError::Archive { path: path.clone(), source: read(what) },
                ImportError::Read { path: path.clone(), source: io::Error::other(of(what)) },
                ImportError::Rootfs { path: path.clone(), source: read(what).into() },
                ImportError::Rootfs { path: path.clone(), source: layer(what) },
                ImportError::Image {
                    path: path.clone(),
                    source: OciError::Layer { index: 1, count: 1, source: Box::new(layer(what)) },
                },
                ImportError::Directory {
                    path: path.clone(),
                    source: DirectoryError::Budget { path: Escaped::new(b"d"), source: of(what) },
                },
            ]
        };
        for error in errors(DECOMPRESSED) {
            assert!(error.remedy().contains("--max-size"), "{error:?}");
        }
        for error in errors("entries") {
            assert!(!error.remedy().contains("--max-size"), "{error:?}");
        }
    }
}
