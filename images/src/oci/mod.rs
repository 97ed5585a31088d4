//! OCI layouts and `docker save` archives: which blobs make the image.
//!
//! Every document and blob is measured first (size), then read to its end and compared with its digest.
//! `urls` of descriptors are never followed.

mod docker;
#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
mod layout;
mod members;

pub(crate) use members::{Contents, Members, Section, classify};

use oci_spec::image::{Arch, ImageConfiguration, Os};

use crate::config::{ConfigError, ImageConfig};
use crate::digest::{Digest, DigestParseError};
use crate::escape::{Escaped, Shown};
use crate::layer::{ApplyFault, Build, Compression, Expected, LayerError, PathFault, TarError};

/// An image that is refused.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A part can't be opened or read.
    #[error("read {name} of the image")]
    Read {
        /// Which part.
        name: Escaped,
        /// Why.
        source: std::io::Error,
    },
    /// A part is missing.
    #[error("the image has no {name}")]
    Missing {
        /// Which part.
        name: Escaped,
    },
    /// Other size than promised, or over the limit.
    #[error("{name} has {found} bytes, expected {expected}")]
    Size {
        /// Which part.
        name: Escaped,
        /// Bytes found.
        found: u64,
        /// Bytes promised, or the limit.
        expected: Bound,
    },
    /// Other content than promised.
    #[error("{name} has digest {found}, expected {expected}")]
    Digest {
        /// Which part.
        name: Escaped,
        /// Computed.
        found: Digest,
        /// Promised.
        expected: Digest,
    },
    /// Not the JSON that it should be.
    #[error("parse {name} of the image")]
    Json {
        /// Which part.
        name: Escaped,
        /// Where and why.
        source: Shown<serde_json::Error>,
    },
    /// A type that this version does not know.
    #[error("media type {media_type} of {name} is not supported")]
    MediaType {
        /// Which part.
        name: Escaped,
        /// The type.
        media_type: Escaped,
    },
    /// A document that contradicts itself or the specification.
    #[error("{name} of the image: {what}")]
    Invalid {
        /// Which part.
        name: Escaped,
        /// What is wrong.
        what: Problem,
    },
    /// Nothing for this machine.
    #[error("the image has nothing for linux/amd64 (found: {found})")]
    Platform {
        /// What it has.
        found: String,
    },
    /// Several images, or none of that name.
    #[error("choose one image by its name; the source has: {names}")]
    Choice {
        /// The names.
        names: String,
    },
    /// The archive itself.
    #[error("read the image archive")]
    Archive(#[source] TarError),
    /// A layer.
    #[error("layer {index} of {count}")]
    Layer {
        /// From 1, lowest first.
        index: usize,
        /// How many there are.
        count: usize,
        /// Why it is refused.
        #[source]
        source: Box<LayerError>,
    },
}

/// A promised size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Exactly.
    Exactly(u64),
    /// Not more than.
    AtMost(u64),
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(n) => write!(f, "{n}"),
            Self::AtMost(n) => write!(f, "at most {n}"),
        }
    }
}

/// What is wrong with a document or a member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Bad digest text.
    #[error(transparent)]
    Digest(#[from] DigestParseError),
    /// Bad configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Bad name in an archive.
    #[error(transparent)]
    Path(#[from] PathFault),
    /// Too many links.
    #[error(transparent)]
    Links(#[from] ApplyFault),
    /// `schemaVersion` or layout version.
    #[error("version is not supported")]
    Version,
    /// Fields of two types of document, or a `mediaType` that is not the descriptor's.
    #[error("ambiguous type of document")]
    Ambiguous,
    /// An index in an index in an index.
    #[error("indexes are nested more than twice")]
    Depth,
    /// Layers and `diff_ids` differ in number, or there are too many.
    #[error("{layers} layers and {diff_ids} diff_ids, limit {limit}")]
    Layers {
        /// Layers of the manifest.
        layers: usize,
        /// Digests of the configuration.
        diff_ids: usize,
        /// Most layers.
        limit: usize,
    },
    /// The name says nothing about the content.
    #[error("not named by its digest")]
    NotNamedByDigest,
    /// Two members of one name, or not a file.
    #[error("not exactly one regular file")]
    NotOneFile,
}

/// What to import, all of it named but the layers not yet read.
#[derive(Debug)]
pub(crate) struct Image {
    /// Digest of the manifest, or of the configuration in a `docker save` archive.
    pub(crate) digest: Digest,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<LayerBlob>,
}

#[derive(Debug)]
pub(crate) struct LayerBlob {
    /// Member of the source.
    name: Vec<u8>,
    /// Promised bytes.
    size: Option<u64>,
    expected: Expected,
}

impl Image {
    /// Finds the one image of a source.
    pub(crate) fn find(members: &Members, reference: Option<&str>, limits: Limits) -> Result<Self, OciError> {
        if members.has(b"oci-layout") {
            layout::find(members, reference, limits)
        } else {
            docker::find(members, reference, limits)
        }
    }

    /// Bytes of all layers as stored.
    pub(crate) fn stored_bytes(&self, members: &Members) -> Result<u64, OciError> {
        self.layers
            .iter()
            .try_fold(0_u64, |sum, layer| Ok(sum.saturating_add(members.open(&layer.name)?.len())))
    }

    /// Reads the layers onto the tree.
    pub(crate) fn build(
        &self,
        members: &Members,
        build: &mut Build<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), OciError> {
        let mut before = 0;
        for (at, layer) in self.layers.iter().enumerate() {
            let section = members.open(&layer.name)?;
            let len = section.len();
            if let Some(size) = layer.size.filter(|&size| size != len) {
                let expected = Bound::Exactly(size);
                return Err(OciError::Size { name: Escaped::new(&layer.name), found: len, expected });
            }
            build.layer(section, layer.expected, &mut |bytes| progress(before + bytes)).map_err(
                |source| OciError::Layer {
                    index: at + 1,
                    count: self.layers.len(),
                    source: Box::new(source),
                },
            )?;
            before += len;
        }
        Ok(())
    }
}

/// Limits of documents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) document_bytes: u64,
    pub(crate) layers: usize,
}

fn invalid(name: impl AsRef<[u8]>, what: impl Into<Problem>) -> OciError {
    OciError::Invalid { name: Escaped::new(name.as_ref()), what: what.into() }
}

fn parse<'a, T: serde::Deserialize<'a>>(name: &[u8], bytes: &'a [u8]) -> Result<T, OciError> {
    serde_json::from_slice(bytes)
        .map_err(|source| OciError::Json { name: Escaped::new(name), source: Shown(source) })
}

/// Reads the configuration: ours, and one [`Expected`] for each layer.
fn config(
    name: &[u8],
    bytes: &[u8],
    layers: usize,
    limits: Limits,
) -> Result<(ImageConfig, Vec<Digest>), OciError> {
    let config: ImageConfiguration = parse(name, bytes)?;
    if *config.os() != Os::Linux || *config.architecture() != Arch::Amd64 {
        let found = platform_name(config.os(), config.architecture());
        return Err(OciError::Platform { found });
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers || layers > limits.layers {
        let what = Problem::Layers { layers, diff_ids: diff_ids.len(), limit: limits.layers };
        return Err(invalid(name, what));
    }
    let diff_ids =
        diff_ids.iter().map(|text| text.parse().map_err(|error: DigestParseError| invalid(name, error)));
    let diff_ids = diff_ids.collect::<Result<Vec<_>, _>>()?;
    let ours = config.config().as_ref().map_or_else(|| Ok(ImageConfig::default()), ImageConfig::from_oci);
    Ok((ours.map_err(|error| invalid(name, error))?, diff_ids))
}

fn platform_name(os: &Os, arch: &Arch) -> String {
    format!("{}/{}", os.to_string().escape_default(), arch.to_string().escape_default())
}

/// A few names for a message.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut out: Vec<String> = names.take(9).map(|name| Escaped::from(name).to_string()).collect();
    if out.len() == 9 {
        out[8] = "...".to_string();
    }
    if out.is_empty() { "no name".to_string() } else { out.join(", ") }
}

/// What the media type of a layer says.
fn layer_compression(media_type: &str) -> Option<Compression> {
    Some(match media_type {
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Compression::None
        }
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        _ => return None,
    })
}
