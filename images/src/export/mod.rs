//! Images back out: a tar of the root directory, or an OCI layout with that tar as its one layer.
//!
//! What comes out and is imported again gives the same EROFS digest.

mod tar;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::erofs::{self, ErofsCheckError, ErofsReadError};

/// Why an image was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image is not one of ours.
    #[error("check the image")]
    Check(#[from] ErofsCheckError),
    /// Contents can't be read.
    #[error("read the image")]
    Read(#[from] ErofsReadError),
    /// Output failed.
    #[error("write the archive")]
    Write(#[from] io::Error),
    /// A file of the layout can't be made.
    #[error("write `{}`", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the files of an image as a tar (POSIX, with PAX records where a header can't hold a value).
/// An attribute without a value is the one thing that gets lost: PAX takes it for "no such record".
///
/// # Errors
/// An image that is not ours, or output that fails.
pub fn tar(image: &File, out: impl Write) -> Result<(), ExportError> {
    let checked = erofs::check(image)?;
    let mut out = BufWriter::with_capacity(1 << 20, out);
    tar::write(image, &checked, &mut out)?;
    out.flush()?;
    Ok(())
}

/// Makes an OCI image layout in a new directory; `name` becomes its reference.
///
/// # Errors
/// A directory that exists already, an image that is not ours, or output that fails; then nothing is left of it.
pub fn oci_layout(image: &File, config: &ImageConfig, name: &str, dir: &Path) -> Result<(), ExportError> {
    std::fs::create_dir(dir).map_err(|source| ExportError::Layout { path: dir.to_path_buf(), source })?;
    fill_layout(image, config, name, dir).inspect_err(|_| {
        // The first error is the one to tell.
        let _ = std::fs::remove_dir_all(dir);
    })
}

fn fill_layout(image: &File, config: &ImageConfig, name: &str, dir: &Path) -> Result<(), ExportError> {
    let blobs = dir.join("blobs/sha256");
    let made = std::fs::create_dir_all(&blobs);
    made.map_err(|source| ExportError::Layout { path: blobs.clone(), source })?;
    let (layer_digest, layer_size) = layer(image, &blobs)?;
    let config_blob = blob(&blobs, &oci_config(config, &layer_digest))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config_blob),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &(layer_digest, layer_size))],
    });
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &blob(&blobs, &manifest)?);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    put(&dir.join("index.json"), index.to_string().as_bytes())?;
    put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

/// The config as OCI writes it; empty fields are left out.
fn oci_config(config: &ImageConfig, layer: &str) -> Value {
    let ImageConfig { entrypoint, cmd, env, workdir, user, labels, stop_signal } = config;
    let mut inner = json!({
        "Entrypoint": entrypoint, "Cmd": cmd, "Env": env, "WorkingDir": workdir, "User": user,
        "Labels": labels, "StopSignal": stop_signal,
    });
    if let Some(fields) = inner.as_object_mut() {
        fields.retain(|_, value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        });
    }
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": inner,
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    })
}

fn descriptor(media_type: &str, (digest, size): &(String, u64)) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

/// Writes the layer under its digest.
fn layer(image: &File, blobs: &Path) -> Result<(String, u64), ExportError> {
    let unnamed = blobs.join("layer");
    let failed = |source| ExportError::Layout { path: unnamed.clone(), source };
    let mut out = Hashed { file: File::create_new(&unnamed).map_err(failed)?, hash: Sha256::new(), len: 0 };
    tar(image, &mut out)?;
    let hex = Digest(out.hash.finalize().into()).hex();
    std::fs::rename(&unnamed, blobs.join(&hex)).map_err(failed)?;
    Ok((format!("sha256:{hex}"), out.len))
}

fn blob(blobs: &Path, value: &Value) -> Result<(String, u64), ExportError> {
    let bytes = value.to_string().into_bytes();
    let hex = Digest::of(&bytes).hex();
    put(&blobs.join(&hex), &bytes)?;
    Ok((format!("sha256:{hex}"), bytes.len() as u64))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    std::fs::write(path, bytes).map_err(|source| ExportError::Layout { path: path.to_path_buf(), source })
}

/// Hashes and counts what is written.
struct Hashed {
    file: File,
    hash: Sha256,
    len: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.len += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
