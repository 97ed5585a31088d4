//! Pulling an image from a registry into an OCI layout, which is then imported like any other.
//!
//! A program of its own, `isolab-pull`, talks with the registry (`images/pull/`). The layout holds one image for
//! linux/amd64. Nothing is believed here that the import does not verify again.

mod client;
mod protocol;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageIndex;
use rustix::fs::OFlags;

use crate::budget::{BudgetError, Budgets};
use crate::digest::{Digest, DigestParseError};
use crate::escape::Escaped;
use crate::programs::{PULL, SealError, Sealed};
use crate::source::Progress;
use protocol::{Answer, Failure, Measure, Request};

/// A pull that failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Not a name of an image.
    #[error("{name} is not an image reference")]
    Reference {
        /// The name.
        name: Escaped,
        /// Why.
        source: Told,
    },
    /// No event loop, no TLS, or rights that could not be given up.
    #[error("prepare the registry client")]
    Prepare(#[source] Told),
    /// The registry refused, or can't be reached.
    #[error("get {what} of {image}")]
    Registry {
        /// Which part.
        what: String,
        /// The image.
        image: String,
        /// In which way.
        refusal: Refusal,
        /// Why.
        source: Told,
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
        source: Told,
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
    /// The client's program.
    #[error("put the registry client into a sealed memory file")]
    Seal(#[from] SealError),
    /// The client could not be started or spoken to.
    #[error("start the registry client")]
    Start(#[source] io::Error),
    /// The client ended or said what it should not.
    #[error("the registry client {0}")]
    Client(String),
}

/// How a registry refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no such image.
    Missing,
    /// It wants a login.
    Login,
    /// It can't be reached.
    Unreachable,
    /// Its name leads to no address.
    NoAddress,
    /// It answers otherwise than a registry should.
    Unexpected,
}

/// A cause that the client told, with its own cause.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Told {
    text: String,
    source: Option<Box<Told>>,
}

impl Told {
    /// From a chain, the outermost first.
    fn new(because: Vec<String>) -> Self {
        let mut all = because.into_iter().rev();
        let text = all.next().unwrap_or_else(|| "it gave no reason".into());
        all.fold(Self { text, source: None }, |inner, text| Self { text, source: Some(inner.into()) })
    }
}

impl PullError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Reference { .. } => {
                "write it as HOST[:PORT]/NAME[:TAG], or with @sha256:DIGEST for the tag"
            }
            Self::Registry { refusal, .. } => match refusal {
                Refusal::Missing => "the registry has none: check name, tag and digest",
                Refusal::Login => {
                    "the registry wants a login: fetch the image with `skopeo copy` and import it"
                }
                Refusal::Unreachable => {
                    "check the address and that the registry runs; one without TLS needs --plain-http"
                }
                Refusal::NoAddress => {
                    "check the name, and that this machine is on the network and has a name server"
                }
                Refusal::Unexpected => {
                    "the registry does not answer as one should: push the image again or ask who runs it"
                }
            },
            Self::Json { .. } | Self::Digest(_) | Self::Content { .. } => {
                "the registry's copy is damaged: push the image again"
            }
            Self::Platform { .. } => "ask for an image that has that platform",
            Self::Budget(_) => "use a smaller image, or raise --max-size",
            Self::Client(_) => {
                "nothing was changed; try again, or fetch the image with `skopeo copy` and import it"
            }
            Self::Prepare(_) | Self::Write { .. } | Self::Seal(_) | Self::Start(_) => "nothing was changed",
        }
    }

    /// What the client told.
    fn told(failure: Failure, name: &str, into: &Path, budgets: &Budgets) -> Self {
        match failure {
            Failure::Reference { because } => {
                Self::Reference { name: name.into(), source: Told::new(because) }
            }
            Failure::Prepare { because } => Self::Prepare(Told::new(because)),
            Failure::Registry { what, image, answer, because } => {
                let refusal = match answer {
                    Answer::Missing => Refusal::Missing,
                    Answer::Login => Refusal::Login,
                    Answer::None => Refusal::Unreachable,
                    Answer::NoAddress => Refusal::NoAddress,
                    Answer::Unexpected => Refusal::Unexpected,
                };
                Self::Registry { what, image, refusal, source: Told::new(because) }
            }
            Failure::Write { path, errno } => {
                Self::Write { path: into.join(path), source: io::Error::from_raw_os_error(errno) }
            }
            Failure::Json { image, because } => Self::Json { image, source: Told::new(because) },
            Failure::Digest { text } => match text.parse::<Digest>() {
                Err(error) => error.into(),
                Ok(digest) => Self::Client(format!("refused the digest {digest}")),
            },
            Failure::Content { what, image } => Self::Content { what, image },
            Failure::Platform { image } => Self::Platform { image },
            Failure::Budget(measure) => {
                let (what, limit) = match measure {
                    Measure::Download => ("bytes to download", budgets.decompressed_bytes),
                    Measure::Layers => ("layers", budgets.layers as u64),
                    Measure::Document => ("bytes of a manifest", budgets.document_bytes),
                };
                BudgetError { what, limit }.into()
            }
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

/// Pulls an image into an existing empty directory, which becomes an OCI layout. Gives the manifest's digest: the
/// caller compares it with that of what it imports from there.
///
/// The directory is the client's: where isolab is root, it belongs to the user `nobody` afterwards.
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
    let request = Request {
        reference: name.into(),
        plain_http: options.plain_http,
        login: options.login.clone(),
        download_bytes: budgets.decompressed_bytes,
        layers: budgets.layers as u64,
        document_bytes: budgets.document_bytes,
    };
    let program = Sealed::new(c"isolab-pull", PULL)?;
    let command = client::command(&program, into);
    let digest = client::run(command, &request, progress)?
        .map_err(|failure| PullError::told(failure, name, into, budgets))?;
    if !names(name, digest, into, budgets) {
        return Err(PullError::Content { what: "manifest".into(), image: name.into() });
    }
    Ok(digest)
}

/// Whether that manifest is what the name asks for: anything for a tag; for a digest the manifest itself, or one for this
/// machine of the index that has the digest and that the client left in the layout.
fn names(name: &str, digest: Digest, into: &Path, budgets: &Budgets) -> bool {
    let Some((_, asked)) = name.rsplit_once('@') else { return true };
    let Ok(asked) = asked.parse::<Digest>() else { return false };
    asked == digest || index(into, asked, budgets).is_some_and(|index| lists(&index, digest))
}

fn lists(index: &ImageIndex, digest: Digest) -> bool {
    index.manifests().iter().any(|manifest| manifest.digest().as_ref() == digest.to_string())
}

/// The index with that digest.
fn index(into: &Path, digest: Digest, budgets: &Budgets) -> Option<ImageIndex> {
    // Neither a link nor a pipe that would make us wait.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let path = into.join("blobs/sha256").join(digest.hex());
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(budgets.document_bytes).read_to_end(&mut bytes).ok()?;
    (Digest::of(&bytes) == digest).then(|| serde_json::from_slice(&bytes).ok())?
}

#[cfg(test)]
mod tests;
