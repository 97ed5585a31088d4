//! Pulling an image from a registry into an OCI layout in the working directory.
//!
//! The layout holds one image for linux/amd64, and the index that it was chosen from.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWrite;

use crate::loopback::is_loopback;
use crate::protocol::{Answer, Failure, Measure, Request};
use crate::{because, prepare};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Where the layout keeps what is named by its digest.
const BLOBS: &str = "blobs/sha256";
/// Longest silence of a registry.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(15);
/// Bytes between two reports of progress.
const STEP: u64 = 256 << 10;

/// Told bytes so far and of all.
pub(crate) type Progress<'p> = dyn FnMut(u64, u64) + 'p;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

/// A manifest or index.
struct Document {
    /// Its digest in 64 hexadecimal digits.
    hex: String,
    media_type: String,
    bytes: Vec<u8>,
}

/// One pull, prepared.
pub(crate) struct Pulling<'a> {
    client: Client,
    auth: RegistryAuth,
    reference: Reference,
    request: &'a Request,
}

impl<'a> Pulling<'a> {
    /// Reads what only isolab may be able to read: certificates.
    pub(crate) fn new(request: &'a Request) -> Result<Self, Failure> {
        let reference: Reference =
            request.reference.parse().map_err(|error| Failure::Reference { because: because(&error) })?;
        // Nobody else installs one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = reference.resolve_registry();
        let plain = request.plain_http || is_loopback(registry);
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
        let client = Client::try_from(config).map_err(|error| prepare(&error))?;
        let auth = match &request.login {
            Some((user, secret)) => RegistryAuth::Basic(user.clone(), secret.clone()),
            None => RegistryAuth::Anonymous,
        };
        Ok(Self { client, auth, reference, request })
    }

    /// Pulls; gives the manifest's digest.
    pub(crate) async fn run(&self, progress: &mut Progress<'_>) -> Result<String, Failure> {
        fs::create_dir_all(BLOBS).map_err(|error| unwritten(Path::new(BLOBS), &error))?;
        let document = self.manifest().await?;
        let manifest: ImageManifest = self.parse(&document.bytes)?;
        let parts: Vec<_> = [manifest.config()].into_iter().chain(manifest.layers()).collect();
        let total = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size()));
        within(total, self.request.download_bytes, Measure::Download)?;
        within(manifest.layers().len() as u64, self.request.layers, Measure::Layers)?;
        let mut done = 0;
        for part in parts {
            self.blob(part, &mut |bytes| progress(done + bytes, total)).await?;
            done += part.size();
        }
        document.keep()?;
        write(Path::new("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        // The index comes last: a layout without it is not one.
        let Document { hex, media_type, bytes } = document;
        let digest = format!("sha256:{hex}");
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{ "mediaType": media_type, "digest": digest, "size": bytes.len() }],
        });
        write(Path::new("index.json"), index.to_string().as_bytes())?;
        Ok(digest)
    }

    /// The manifest for this machine.
    async fn manifest(&self) -> Result<Document, Failure> {
        let found = self.document(&self.reference).await?;
        if !matches!(&found.media_type[..], OCI_INDEX | DOCKER_LIST) {
            return Ok(found);
        }
        let index: ImageIndex = self.parse(&found.bytes)?;
        let ours = index.manifests().iter().find(|descriptor| {
            let platform = descriptor.platform().as_ref();
            platform.is_some_and(|p| *p.os() == Os::Linux && *p.architecture() == Arch::Amd64)
        });
        let ours = ours.ok_or_else(|| Failure::Platform { image: self.image() })?;
        let expected = hex_of(ours)?;
        // Who asked for the index by its digest can see that the image is the one it names.
        found.keep()?;
        let manifest = self.document(&self.reference.clone_with_digest(format!("sha256:{expected}"))).await?;
        if manifest.hex != expected || manifest.media_type != ours.media_type().as_ref() {
            return Err(Failure::Content { what: "manifest".into(), image: self.image() });
        }
        Ok(manifest)
    }

    async fn document(&self, reference: &Reference) -> Result<Document, Failure> {
        let accepted = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
        let pulled = self.client.pull_manifest_raw(reference, &self.auth, &accepted).await;
        let (bytes, _) = pulled.map_err(|error| self.refused("the manifest".into(), &error))?;
        within(bytes.len() as u64, self.request.document_bytes, Measure::Document)?;
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if reference.digest().is_some_and(|expected| expected != format!("sha256:{hex}")) {
            return Err(Failure::Content { what: "manifest".into(), image: self.image() });
        }
        let typed: Typed = self.parse(&bytes)?;
        // OCI manifests may leave their type out; the import checks what it holds.
        let media_type = typed.media_type.unwrap_or_else(|| OCI_MANIFEST.to_string());
        Ok(Document { hex, media_type, bytes: bytes.to_vec() })
    }

    /// One blob, checked for size and digest; its `urls` are not followed.
    async fn blob(&self, part: &Descriptor, progress: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let hex = hex_of(part)?;
        let path = Path::new(BLOBS).join(hex);
        if path.exists() {
            return Ok(());
        }
        let file = File::create_new(&path).map_err(|error| unwritten(&path, &error))?;
        let mut out = Capped { file, count: 0, told: 0, limit: part.size(), failed: None, progress };
        let digest = format!("sha256:{hex}");
        let pulled = self.client.pull_blob(&self.reference, &digest[..], &mut out).await;
        if let Some(error) = out.failed.take() {
            return Err(unwritten(&path, &error));
        }
        if out.count != part.size() {
            return Err(Failure::Content { what: digest, image: self.image() });
        }
        pulled.map_err(|error| self.refused(digest, &error))
    }

    fn parse<'b, T: Deserialize<'b>>(&self, bytes: &'b [u8]) -> Result<T, Failure> {
        serde_json::from_slice(bytes)
            .map_err(|error| Failure::Json { image: self.image(), because: because(&error) })
    }

    fn refused(&self, what: String, error: &OciDistributionError) -> Failure {
        let because = because(error);
        // The words of the resolver are for its authors.
        if because.iter().any(|cause| cause == "dns error") {
            let because = vec![format!("no address is found for {}", self.reference.resolve_registry())];
            return Failure::Registry { what, image: self.image(), answer: Answer::NoAddress, because };
        }
        Failure::Registry { what, image: self.image(), answer: answer(error), because }
    }

    fn image(&self) -> String {
        self.reference.whole()
    }
}

impl Document {
    /// Puts it into the layout.
    fn keep(&self) -> Result<(), Failure> {
        write(&Path::new(BLOBS).join(&self.hex), &self.bytes)
    }
}

/// How a registry refused.
fn answer(error: &OciDistributionError) -> Answer {
    match error {
        OciDistributionError::RegistryError { .. }
        | OciDistributionError::ImageManifestNotFoundError(_)
        | OciDistributionError::ServerError { code: 404, .. } => Answer::Missing,
        OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. } => {
            Answer::Login
        }
        OciDistributionError::RequestError(_) => Answer::None,
        _ => Answer::Unexpected,
    }
}

/// The digest as it names a file of the layout: 64 hexadecimal digits.
fn hex_of(part: &Descriptor) -> Result<&str, Failure> {
    part.as_digest_sha256().ok_or_else(|| Failure::Digest { text: part.digest().to_string() })
}

fn within(size: u64, limit: u64, measure: Measure) -> Result<(), Failure> {
    if size > limit { Err(Failure::Budget(measure)) } else { Ok(()) }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = File::create_new(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::Write { path: path.display().to_string(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

/// A file that takes no more than was promised. Writing blocks: there is one thread and one download.
struct Capped<'p> {
    file: File,
    count: u64,
    told: u64,
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
        if count == self.limit || count - self.told >= STEP {
            self.told = count;
            (self.progress)(count);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
