//! What holds for any documents of an image archive: for fuzz targets.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use crate::budget::Budgets;
use crate::digest::Digest;
use crate::layer::samples::{Tar, chain, spool};
use crate::source::{self, Options};

/// The parts of an archive. Each document may name the digest and the size of the others, `@layer`, `@config`, `@manifest`,
/// followed by `-digest`, `-hex` or `-size`, which stand for the right ones.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// `index.json`, or for `docker save` `manifest.json`.
    pub index: Vec<u8>,
    /// The image's manifest.
    pub manifest: Vec<u8>,
    /// Its configuration.
    pub config: Vec<u8>,
    /// Its one layer.
    pub layer: Vec<u8>,
    /// `docker save` without a layout.
    pub docker: bool,
}

/// Puts the marks' meaning in their place.
fn filled(text: &[u8], name: &str, target: &[u8]) -> Vec<u8> {
    let digest = Digest::of(target);
    let marks = [
        (format!("@{name}-digest"), digest.to_string()),
        (format!("@{name}-hex"), digest.hex()),
        (format!("@{name}-size"), target.len().to_string()),
    ];
    marks.into_iter().fold(text.to_vec(), |text, (mark, value)| {
        let mut parts = Vec::new();
        let mut rest = &text[..];
        while let Some(at) = rest.windows(mark.len()).position(|window| window == mark.as_bytes()) {
            parts.extend_from_slice(&rest[..at]);
            parts.extend_from_slice(value.as_bytes());
            rest = &rest[at + mark.len()..];
        }
        parts.extend_from_slice(rest);
        parts
    })
}

impl Parts {
    fn archive(&self) -> Vec<u8> {
        let config = filled(&self.config, "layer", &self.layer);
        let manifest = filled(&filled(&self.manifest, "layer", &self.layer), "config", &config);
        let index = [("layer", &self.layer), ("config", &config), ("manifest", &manifest)];
        let index = index.iter().fold(self.index.clone(), |text, (name, target)| filled(&text, name, target));
        let mut tar = Tar::default();
        if self.docker {
            tar = tar.entry(b'0', b"manifest.json", b"", &index);
            for (name, part) in [("json", &config), ("tar", &self.layer)] {
                let name = format!("{}.{name}", Digest::of(part).hex());
                tar = tar.entry(b'0', name.as_bytes(), b"", part);
            }
            return tar.end();
        }
        tar = tar.entry(b'0', b"oci-layout", b"", br#"{"imageLayoutVersion":"1.0.0"}"#);
        tar = tar.entry(b'0', b"index.json", b"", &index);
        let mut blobs = vec![&config, &manifest, &self.layer];
        blobs.sort();
        blobs.dedup();
        for blob in blobs {
            let name = format!("blobs/sha256/{}", Digest::of(blob).hex());
            tar = tar.entry(b'0', name.as_bytes(), b"", blob);
        }
        tar.end()
    }
}

/// An archive of any documents gives an image whose configuration can be used as it is, or an error that can be shown. Whether it
/// gave one.
pub fn imported_or_refused(parts: &Parts) -> bool {
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(&parts.archive()).expect("write");
    match import(&file) {
        Ok(found) => {
            let config = found.config;
            let words = config.entrypoint.iter().chain(&config.cmd).chain(&config.env);
            let words = words.chain(&config.workdir).chain(&config.user);
            assert!(words.into_iter().all(|word| !word.contains('\0')), "NUL in a word");
            assert!(config.env.iter().all(|entry| entry.find('=').is_some_and(|at| at > 0)));
            assert!(config.workdir.is_none_or(|dir| dir.starts_with('/')));
            if let Some(digest) = found.source_digest {
                assert_eq!(digest.to_string().parse(), Ok(digest));
            }
            true
        }
        Err(error) => {
            let text = chain(&error);
            assert!(!text.chars().any(char::is_control), "{text:?}");
            false
        }
    }
}

fn import(file: &File) -> Result<source::Imported, source::ImportError> {
    let budgets = Budgets {
        decompressed_bytes: 1 << 20,
        entries: 4096,
        metadata_bytes: 1 << 20,
        lookups: 1 << 16,
        document_bytes: 64 << 10,
        layers: 8,
        ..Budgets::default()
    };
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    source::read(&path, Options { reference: None, budgets }, spool(), &mut |_| {})
}
