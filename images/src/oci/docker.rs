//! `docker save` archives without an OCI layout: `manifest.json` names configuration and layers.

use serde::Deserialize;

use super::{Image, LayerBlob, Limits, Members, OciError, Problem, config, invalid, list, parse};
use crate::budget::Budgets;
use crate::digest::Digest;
use crate::layer::{Expected, TreePath};

const MANIFEST: &[u8] = b"manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn find(members: &Members, reference: Option<&str>, limits: Limits) -> Result<Image, OciError> {
    let bytes = members.document(MANIFEST, None, limits.document_bytes)?;
    let entries: Vec<Entry> = parse(MANIFEST, &bytes)?;
    let tags = |entry: &Entry| entry.repo_tags.clone().unwrap_or_default();
    let wanted = |entry: &&Entry| reference.is_none_or(|wanted| tags(entry).iter().any(|tag| tag == wanted));
    let found: Vec<&Entry> = entries.iter().filter(wanted).collect();
    let [entry] = found[..] else {
        let names: Vec<String> = entries.iter().flat_map(tags).collect();
        return Err(OciError::Choice { names: list(names.iter().map(String::as_str)) });
    };
    let name = member(&entry.config)?;
    let digest = named_digest(&name).ok_or_else(|| invalid(&name, Problem::NotNamedByDigest))?;
    let bytes = members.document(&name, None, limits.document_bytes)?;
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(OciError::Digest { name: entry.config.as_str().into(), found, expected: digest });
    }
    let (config, diff_ids) = config(&name, &bytes, entry.layers.len(), limits)?;
    let mut layers = Vec::new();
    for (layer, diff_id) in entry.layers.iter().zip(diff_ids) {
        let expected = Expected { diff_id: Some(diff_id), ..Expected::default() };
        layers.push(LayerBlob { name: member(layer)?, size: None, expected });
    }
    Ok(Image { digest, config, layers })
}

/// Whether this is such a `manifest.json`, good or bad, and not some other program's file.
pub(super) fn is_manifest(bytes: &[u8]) -> bool {
    let parsed: Result<Vec<serde_json::Map<String, serde_json::Value>>, _> = serde_json::from_slice(bytes);
    parsed.is_ok_and(|entries| {
        entries.iter().any(|entry| entry.contains_key("Config") && entry.contains_key("Layers"))
    })
}

/// A name of `manifest.json` as a member's.
fn member(name: &str) -> Result<Vec<u8>, OciError> {
    let path = TreePath::parse(name.as_bytes(), false, &Budgets::default());
    Ok(path.map_err(|fault| invalid(name, fault))?.bytes().to_vec())
}

/// The digest in `HEX.json`, `sha256:HEX` or `blobs/sha256/HEX`.
fn named_digest(name: &[u8]) -> Option<Digest> {
    let last = name.rsplit(|&b| b == b'/').next()?;
    let last = last.strip_suffix(b".json").unwrap_or(last);
    Digest::from_hex(last.strip_prefix(b"sha256:").unwrap_or(last))
}
