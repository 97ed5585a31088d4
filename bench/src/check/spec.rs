//! What an exercise asks for, as its file says it. Every table is optional; a key that is not known is an error.

use serde::Deserialize;

use crate::comparability::Verdict;
use crate::environment::{ClockKind, HostClass};

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Shown above the answer.
    pub title: String,
    /// What must have been run.
    #[serde(default)]
    pub run: Subject,
    /// What is allowed.
    #[serde(default)]
    pub allowed: Allowed,
    /// Metrics that every arm must have, and bounds on their medians.
    #[serde(default)]
    pub metric: Vec<Bound>,
    /// Bounds on ratios of medians.
    #[serde(default)]
    pub ratio: Vec<Ratio>,
}

/// What must have been run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The image as it was named.
    pub image: Option<String>,
    /// Its digest, in every arm.
    pub image_digest: Option<String>,
    /// Digest of the isolab that measured.
    pub isolab_digest: Option<String>,
    /// Command and arguments.
    pub command: Option<Vec<String>>,
    /// Arms that must be there.
    #[serde(default)]
    pub arms: Vec<String>,
    /// Least number of whole measured pairs.
    pub min_pairs: Option<u32>,
    /// Seed of the order: each student gets one of his own.
    pub seed: Option<u64>,
}

/// What is allowed; a list that is absent allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// Classes of the host.
    pub host_class: Option<Vec<HostClass>>,
    /// Clocks.
    pub clock: Option<Vec<ClockKind>>,
    /// Verdicts of the comparability check.
    pub verdict: Option<Vec<Verdict>>,
    /// Most measured runs that failed.
    pub failed_runs: Option<usize>,
    /// Earliest start of the run, RFC 3339 in UTC.
    pub not_before: Option<String>,
    /// Latest start of the run, RFC 3339 in UTC.
    pub not_after: Option<String>,
}

/// A metric that must be there.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Key of the metric.
    pub name: String,
    /// In which arms; none named: in every arm of the record.
    #[serde(default)]
    pub arms: Vec<String>,
    /// Least median, in the unit of the record (ns, bytes).
    pub at_least: Option<f64>,
    /// Greatest median.
    pub at_most: Option<f64>,
}

/// A ratio of the medians of two arms.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// Key of the metric.
    pub metric: String,
    /// The arm above the line.
    pub of: String,
    /// The arm below it.
    pub to: String,
    /// Least ratio.
    pub at_least: Option<f64>,
    /// Greatest ratio.
    pub at_most: Option<f64>,
}
