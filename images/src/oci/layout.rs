//! OCI image layouts: index, manifest, configuration.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, OciLayout, Os};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{
    Image, LayerBlob, Limits, Members, OciError, Problem, config, invalid, layer_compression, list, parse,
    platform_name,
};
use crate::digest::{Digest, DigestParseError};
use crate::escape::Escaped;
use crate::layer::Expected;

/// Annotations that hold an image's name.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// Fields that tell documents apart (CVE-2021-41190: one document, two readings).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Document {
    Index,
    Manifest,
}

impl Document {
    fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Some(Self::Index),
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Some(Self::Manifest),
            _ => None,
        }
    }

    fn check(self, name: &[u8], bytes: &[u8], media_type: Option<&str>) -> Result<(), OciError> {
        let shape: Shape = parse(name, bytes)?;
        let other = match self {
            Self::Index => shape.config.is_some() || shape.layers.is_some() || shape.fs_layers.is_some(),
            Self::Manifest => shape.manifests.is_some() || shape.fs_layers.is_some(),
        };
        let says = match (shape.media_type.as_deref(), media_type) {
            (Some(says), Some(expected)) => says == expected,
            (Some(says), None) => Self::of(says) == Some(self),
            (None, _) => true,
        };
        if shape.schema_version != 2 {
            return Err(invalid(name, Problem::Version));
        }
        if other || !says { Err(invalid(name, Problem::Ambiguous)) } else { Ok(()) }
    }
}

pub(super) fn find(members: &Members, reference: Option<&str>, limits: Limits) -> Result<Image, OciError> {
    let header = members.document(b"oci-layout", None, limits.document_bytes)?;
    let header: OciLayout = parse(b"oci-layout", &header)?;
    if header.image_layout_version() != "1.0.0" {
        return Err(invalid(b"oci-layout", Problem::Version));
    }
    let bytes = members.document(b"index.json", None, limits.document_bytes)?;
    Document::Index.check(b"index.json", &bytes, None)?;
    let index: ImageIndex = parse(b"index.json", &bytes)?;
    let named: Vec<&Descriptor> = index
        .manifests()
        .iter()
        .filter(|descriptor| reference.is_none_or(|wanted| names(descriptor).any(|name| name == wanted)))
        .collect();
    let mut found = Found::default();
    for descriptor in &named {
        found.collect(members, descriptor, 1, limits)?;
    }
    let mut manifests = found.manifests.values();
    match (manifests.next(), manifests.next()) {
        (Some(descriptor), None) => manifest(members, descriptor, limits),
        (None, _) if !found.platforms.is_empty() => {
            Err(OciError::Platform { found: found.platforms.join(", ") })
        }
        _ => Err(OciError::Choice { names: list(index.manifests().iter().flat_map(names)) }),
    }
}

fn names(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    let annotations = descriptor.annotations().as_ref();
    NAMES.iter().filter_map(move |&key| annotations.and_then(|map| map.get(key)).map(String::as_str))
}

/// What the indexes name. Each index is read once, however often it is named: of entries in indexes of many entries there can be too
/// many to look at, let alone to keep.
#[derive(Default)]
struct Found {
    /// Manifests for this machine.
    manifests: BTreeMap<Digest, Descriptor>,
    /// Some of the platforms that are not.
    platforms: Vec<String>,
    /// Indexes that were read: digest, size and type, each of which is checked.
    indexes: BTreeSet<(Digest, u64, String)>,
}

impl Found {
    /// Looks at an index's entry.
    fn collect(
        &mut self,
        members: &Members,
        descriptor: &Descriptor,
        depth: usize,
        limits: Limits,
    ) -> Result<(), OciError> {
        let (name, digest) = blob(descriptor)?;
        if let Some(platform) = descriptor.platform()
            && (*platform.os() != Os::Linux || *platform.architecture() != Arch::Amd64)
        {
            if self.platforms.len() < 16 {
                self.platforms.push(platform_name(platform.os(), platform.architecture()));
            }
            return Ok(());
        }
        let kind = descriptor.media_type().as_ref();
        match Document::of(kind) {
            Some(Document::Manifest) => {
                self.manifests.entry(digest).or_insert_with(|| descriptor.clone());
            }
            Some(Document::Index) if depth >= 2 => return Err(invalid(&name, Problem::Depth)),
            Some(Document::Index) if self.indexes.insert((digest, descriptor.size(), kind.to_owned())) => {
                let bytes = document(members, descriptor, limits)?;
                Document::Index.check(&name, &bytes, Some(kind))?;
                let index: ImageIndex = parse(&name, &bytes)?;
                for descriptor in index.manifests() {
                    self.collect(members, descriptor, depth + 1, limits)?;
                }
            }
            Some(Document::Index) => {}
            None => return Err(media_type(&name, descriptor)),
        }
        Ok(())
    }
}

fn manifest(members: &Members, descriptor: &Descriptor, limits: Limits) -> Result<Image, OciError> {
    let (name, digest) = blob(descriptor)?;
    let bytes = document(members, descriptor, limits)?;
    Document::Manifest.check(&name, &bytes, Some(descriptor.media_type().as_ref()))?;
    let manifest: ImageManifest = parse(&name, &bytes)?;
    let (config_name, _) = blob(manifest.config())?;
    if !matches!(
        manifest.config().media_type().as_ref(),
        "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    ) {
        return Err(media_type(&config_name, manifest.config()));
    }
    let bytes = document(members, manifest.config(), limits)?;
    let (config, diff_ids) = config(&config_name, &bytes, manifest.layers().len(), limits)?;
    let mut layers = Vec::new();
    for (descriptor, diff_id) in manifest.layers().iter().zip(diff_ids) {
        let (name, stored) = blob(descriptor)?;
        let compression = layer_compression(descriptor.media_type().as_ref());
        let compression = Some(compression.ok_or_else(|| media_type(&name, descriptor))?);
        let expected = Expected { stored: Some(stored), diff_id: Some(diff_id), compression };
        layers.push(LayerBlob { name, size: Some(descriptor.size()), expected });
    }
    Ok(Image { digest, config, layers })
}

fn document(members: &Members, descriptor: &Descriptor, limits: Limits) -> Result<Vec<u8>, OciError> {
    let (name, digest) = blob(descriptor)?;
    members.document(&name, Some((descriptor.size(), digest)), limits.document_bytes)
}

/// Name and digest of a descriptor's blob.
fn blob(descriptor: &Descriptor) -> Result<(Vec<u8>, Digest), OciError> {
    let text = descriptor.digest().as_ref();
    let digest: Digest = text.parse().map_err(|error: DigestParseError| invalid(text, error))?;
    Ok((format!("blobs/sha256/{}", digest.hex()).into_bytes(), digest))
}

fn media_type(name: &[u8], descriptor: &Descriptor) -> OciError {
    OciError::MediaType { name: Escaped::new(name), media_type: descriptor.media_type().as_ref().into() }
}
