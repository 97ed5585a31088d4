//! Under what conditions a sample was taken: the evidence of checks that look at more than times and bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The state of the page cache that a plan asks for, enforced and read back before each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheState {
    /// Every page of the files that a start reads is in memory.
    Warm,
    /// No page of the image and of the guest kernel is.
    Cold,
}

impl CacheState {
    /// For a reader.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// How much of a file is in the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residency {
    /// Pages in memory.
    pub resident_pages: u64,
    /// Pages of the file.
    pub pages: u64,
}

/// An interval by a clock inside an instance, and the host's stamps around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockBracket {
    /// By the clock inside.
    pub inside_ns: u64,
    /// From the host's stamp before its begin to the one after its end.
    pub outside_ns: u64,
}

/// What was so when a sample was taken; what is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Files of the run, just before it: `image`, `kernel`, `binary`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub page_cache: BTreeMap<String, Residency>,
    /// Bytes on a console within the timed part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_bytes: Option<u64>,
    /// Longest time in which the instance did nothing before it was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_idle_ns: Option<u64>,
    /// A clock inside against the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockBracket>,
}

impl Conditions {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
