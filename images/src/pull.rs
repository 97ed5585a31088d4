//! Pulling an image from a registry into an OCI layout, which is then imported like any other.
//!
//! The layout holds one image for linux/amd64. Nothing is believed here that the import does not verify again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, ParseError, Reference};
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};
use serde::Deserialize;
use tokio::io::AsyncWrite;

use crate::budget::{BudgetError, Budgets};
use crate::digest::{Digest, DigestParseError};
use crate::escape::Escaped;
use crate::source::Progress;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Longest silence of a registry.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(15);

/// A pull that failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Not a name of an image.
    #[error("{name} is not an image reference")]
    Reference {
        /// The name.
        name: Escaped,
        /// Why.
        source: ParseError,
    },
    /// No event loop or no TLS.
    #[error("prepare the registry client")]
    Prepare(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The registry refused, or can't be reached.
    #[error("get {what} of {image}")]
    Registry {
        /// Which part.
        what: String,
        /// The image.
        image: String,
        /// Why.
        source: Box<OciDistributionError>,
    },
    /// The layout can't be written.
    #[error("write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A manifest or index that can't be read.
    #[error("parse the manifest of {image}")]
    Json {
        /// The image.
        image: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A digest that is not one.
    #[error(transparent)]
    Digest(#[from] DigestParseError),
    /// Other bytes than asked for.
    #[error("{what} of {image} does not have the promised size or digest")]
    Content {
        /// Which part.
        what: String,
        /// The image.
        image: String,
    },
    /// Nothing for this machine.
    #[error("{image} has no image for linux/amd64")]
    Platform {
        /// The image.
        image: String,
    },
    /// Too large.
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

impl PullError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Reference { .. } => {
                "write it as HOST[:PORT]/NAME[:TAG], or with @sha256:DIGEST for the tag"
            }
            Self::Registry { source, .. } => match &**source {
                OciDistributionError::RegistryError { .. }
                | OciDistributionError::ImageManifestNotFoundError(_)
                | OciDistributionError::ServerError { code: 404, .. } => {
                    "the registry has none: check name, tag and digest"
                }
                OciDistributionError::AuthenticationFailure(_)
                | OciDistributionError::UnauthorizedError { .. } => {
                    "the registry wants a login: fetch the image with `skopeo copy` and import it"
                }
                OciDistributionError::RequestError(_) => {
                    "check the address and that the registry runs; one without TLS needs --plain-http"
                }
                _ => "the registry does not answer as one should: push the image again or ask who runs it",
            },
            Self::Json { .. } | Self::Digest(_) | Self::Content { .. } => {
                "the registry's copy is damaged: push the image again"
            }
            Self::Platform { .. } => "ask for an image that has that platform",
            Self::Budget(_) => "use a smaller image, or raise --max-size",
            Self::Prepare(_) | Self::Write { .. } => "nothing was changed",
        }
    }
}

/// How to reach the registry.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// Plain HTTP to any host; a loopback registry is always spoken to like that.
    pub plain_http: bool,
    /// User and password, or a token's name and secret.
    pub login: Option<(String, String)>,
}

impl std::fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.login.as_ref().map(|(user, _)| user);
        f.debug_struct("PullOptions").field("plain_http", &self.plain_http).field("user", &user).finish()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

/// Pulls an image into an existing empty directory, which becomes an OCI layout. Gives the manifest's digest.
///
/// # Errors
/// The step that failed; the caller removes the directory.
pub fn pull(
    name: &str,
    into: &Path,
    options: &PullOptions,
    budgets: &Budgets,
    progress: &mut dyn FnMut(Progress),
) -> Result<Digest, PullError> {
    let reference: Reference =
        name.parse().map_err(|source| PullError::Reference { name: name.into(), source })?;
    // A second call finds the provider installed; that is all it wants.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| PullError::Prepare(error.into()))?;
    runtime.block_on(async {
        let pulling = Pulling::new(reference, into, options, budgets)?;
        pulling.run(progress).await
    })
}

/// Whether a registry is on this machine.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

struct Pulling<'a> {
    client: Client,
    auth: RegistryAuth,
    reference: Reference,
    into: &'a Path,
    budgets: &'a Budgets,
}

impl<'a> Pulling<'a> {
    fn new(
        reference: Reference,
        into: &'a Path,
        options: &PullOptions,
        budgets: &'a Budgets,
    ) -> Result<Self, PullError> {
        let registry = reference.resolve_registry();
        let plain = options.plain_http || is_loopback(registry);
        let config = ClientConfig {
            protocol: if plain {
                ClientProtocol::HttpsExcept(vec![registry.to_string()])
            } else {
                ClientProtocol::Https
            },
            read_timeout: Some(SILENCE),
            connect_timeout: Some(CONNECT),
            user_agent: concat!("isolab/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| PullError::Prepare(error.into()))?;
        let auth = match &options.login {
            Some((user, secret)) => RegistryAuth::Basic(user.clone(), secret.clone()),
            None => RegistryAuth::Anonymous,
        };
        Ok(Self { client, auth, reference, into, budgets })
    }

    async fn run(&self, progress: &mut dyn FnMut(Progress)) -> Result<Digest, PullError> {
        let (digest, media_type, bytes) = self.manifest().await?;
        let manifest: ImageManifest = self.parse(&bytes)?;
        let blobs = self.into.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|source| PullError::Write { path: blobs.clone(), source })?;
        let parts: Vec<_> = [manifest.config()].into_iter().chain(manifest.layers()).collect();
        let total = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size()));
        self.within(total, self.budgets.decompressed_bytes, "bytes to download")?;
        self.within(parts.len() as u64, self.budgets.layers as u64 + 1, "layers")?;
        let mut done = 0;
        for part in parts {
            let mut report =
                |bytes| progress(Progress { done_bytes: done + bytes, total_bytes: Some(total) });
            self.blob(part, &blobs, &mut report).await?;
            done += part.size();
        }
        self.write(&blobs.join(digest.hex()), &bytes)?;
        self.write(&self.into.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        // The index comes last: a layout without it is not one.
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() }],
        });
        self.write(&self.into.join("index.json"), index.to_string().as_bytes())?;
        Ok(digest)
    }

    /// The manifest for this machine: digest, media type, bytes.
    async fn manifest(&self) -> Result<(Digest, String, Vec<u8>), PullError> {
        let (digest, media_type, bytes) = self.document(&self.reference).await?;
        if !matches!(&media_type[..], OCI_INDEX | DOCKER_LIST) {
            return Ok((digest, media_type, bytes));
        }
        let index: ImageIndex = self.parse(&bytes)?;
        let ours = index.manifests().iter().find(|descriptor| {
            let platform = descriptor.platform().as_ref();
            platform.is_some_and(|p| *p.os() == Os::Linux && *p.architecture() == Arch::Amd64)
        });
        let ours = ours.ok_or_else(|| PullError::Platform { image: self.image() })?;
        let expected: Digest = ours.digest().as_ref().parse()?;
        let (digest, media_type, bytes) =
            self.document(&self.reference.clone_with_digest(expected.to_string())).await?;
        if digest != expected || media_type != ours.media_type().as_ref() {
            return Err(PullError::Content { what: "manifest".into(), image: self.image() });
        }
        Ok((digest, media_type, bytes))
    }

    async fn document(&self, reference: &Reference) -> Result<(Digest, String, Vec<u8>), PullError> {
        let accepted = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, &accepted).await;
        let (bytes, _) = pulled.map_err(|source| self.registry("the manifest".into(), source))?;
        self.within(bytes.len() as u64, self.budgets.document_bytes, "bytes of a manifest")?;
        let digest = Digest::of(&bytes);
        if reference.digest().is_some_and(|expected| expected != digest.to_string()) {
            return Err(PullError::Content { what: "manifest".into(), image: self.image() });
        }
        let typed: Typed = self.parse(&bytes)?;
        // OCI manifests may leave their type out; the import checks what it holds.
        let media_type = typed.media_type.unwrap_or_else(|| OCI_MANIFEST.to_string());
        Ok((digest, media_type, bytes.to_vec()))
    }

    /// One blob, checked for size and digest; its `urls` are not followed.
    async fn blob(
        &self,
        part: &Descriptor,
        blobs: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), PullError> {
        let text = part.digest().as_ref();
        let digest: Digest = text.parse()?;
        let path = blobs.join(digest.hex());
        if path.exists() {
            return Ok(());
        }
        let file =
            File::create_new(&path).map_err(|source| PullError::Write { path: path.clone(), source })?;
        let mut out = Capped { file, count: 0, limit: part.size(), failed: None, progress };
        let pulled = self.client.pull_blob(&self.reference, text, &mut out).await;
        if let Some(source) = out.failed.take() {
            return Err(PullError::Write { path, source });
        }
        if out.count != part.size() {
            return Err(PullError::Content { what: digest.to_string(), image: self.image() });
        }
        pulled.map_err(|source| self.registry(digest.to_string(), source))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), PullError> {
        let written = File::create_new(path).and_then(|mut file| file.write_all(bytes));
        written.map_err(|source| PullError::Write { path: path.into(), source })
    }

    fn parse<'b, T: Deserialize<'b>>(&self, bytes: &'b [u8]) -> Result<T, PullError> {
        serde_json::from_slice(bytes).map_err(|source| PullError::Json { image: self.image(), source })
    }

    fn within(&self, size: u64, limit: u64, what: &'static str) -> Result<(), BudgetError> {
        if size > limit { Err(BudgetError { what, limit }) } else { Ok(()) }
    }

    fn registry(&self, what: String, source: OciDistributionError) -> PullError {
        PullError::Registry { what, image: self.image(), source: Box::new(source) }
    }

    fn image(&self) -> String {
        self.reference.whole()
    }
}

/// A file that takes no more than was promised. Writing blocks: there is one thread and one download.
struct Capped<'p> {
    file: File,
    count: u64,
    limit: u64,
    failed: Option<io::Error>,
    progress: &'p mut dyn FnMut(u64),
}

impl AsyncWrite for Capped<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.count = self.count.saturating_add(bytes.len() as u64);
        if self.count > self.limit {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        if let Err(error) = self.file.write_all(bytes) {
            let kind = error.kind();
            self.failed = Some(error);
            return Poll::Ready(Err(kind.into()));
        }
        let count = self.count;
        (self.progress)(count);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback() {
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.1", "[::1]:5000"] {
            assert!(is_loopback(registry), "{registry}");
        }
        for registry in ["localhost.example", "127.0.0.1.example:5000", "10.0.0.1:5000", "[::2]:5000", ""] {
            assert!(!is_loopback(registry), "{registry}");
        }
    }

    #[test]
    fn refuses_a_bad_name_before_any_connection() {
        let budgets = Budgets::default();
        for name in ["", "UPPER", "a b", "a@sha256:12", "\u{1b}[2J"] {
            let error = pull(name, Path::new("/nonexistent"), &PullOptions::default(), &budgets, &mut |_| {});
            let error = error.expect_err(name).to_string();
            assert!(error.ends_with("is not an image reference") && !error.contains('\u{1b}'), "{error}");
        }
    }
}
