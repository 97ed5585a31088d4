//! What isolab and its registry client say to each other: one [`Request`] as a line of JSON on the client's standard
//! input, then [`Line`]s on its standard output, of which the last is no progress.
//!
//! The client (`images/pull/`) includes this file: it is built on its own and can't depend on this package.

use serde::{Deserialize, Serialize};

/// Longest line, in bytes.
pub(crate) const LINE: u64 = 64 << 10;

/// What to pull into the client's working directory, an empty one. No `Debug`: it may hold a secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// The image's name.
    pub(crate) reference: String,
    /// Plain HTTP to any host.
    pub(crate) plain_http: bool,
    /// User and secret.
    pub(crate) login: Option<(String, String)>,
    /// Most bytes of configuration and layers together.
    pub(crate) download_bytes: u64,
    /// Most layers.
    pub(crate) layers: u64,
    /// Most bytes of a manifest or index.
    pub(crate) document_bytes: u64,
}

/// What the client says. Nothing of it is believed that can be checked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Line {
    /// Bytes so far, of all.
    Progress {
        /// So far.
        done_bytes: u64,
        /// Of all.
        total_bytes: u64,
    },
    /// The layout is complete.
    Done {
        /// The manifest's.
        digest: String,
    },
    /// It will not be.
    Failed(Failure),
}

/// A pull that failed. `because` is the chain of causes, the outermost first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Failure {
    /// Not a name of an image.
    Reference { because: Vec<String> },
    /// No TLS, no event loop, or the client could not give up its rights.
    Prepare { because: Vec<String> },
    /// The registry refused, or can't be reached.
    Registry { what: String, image: String, answer: Answer, because: Vec<String> },
    /// A file of the layout can't be written.
    Write { path: String, errno: i32 },
    /// A manifest or index that can't be read.
    Json { image: String, because: Vec<String> },
    /// A digest that is not SHA-256.
    Digest { text: String },
    /// Other bytes than asked for.
    Content { what: String, image: String },
    /// Nothing for this machine.
    Platform { image: String },
    /// More than the request allows.
    Budget(Measure),
}

/// How a registry refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It has no such image.
    Missing,
    /// It wants a login.
    Login,
    /// No answer: no connection, or none that speaks the protocol.
    None,
    /// Its host has no address.
    NoAddress,
    /// None that a registry should give.
    Unexpected,
}

/// What is over its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// [`Request::download_bytes`].
    Download,
    /// [`Request::layers`].
    Layers,
    /// [`Request::document_bytes`].
    Document,
}
