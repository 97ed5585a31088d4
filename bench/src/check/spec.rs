//! What an exercise asks for, as its file says it. Every table is optional; a key or a name that is not known is an error.

use std::fmt;
use std::time::SystemTime;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::comparability::Verdict;
use crate::environment::{ClockKind, HostClass};
use crate::summary::{METRICS, metric};

/// A name that no record has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {what} {name:?}; there are {known}")]
pub struct NameError {
    what: &'static str,
    name: String,
    known: String,
}

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

impl Spec {
    /// Refuses metrics that there are not, and arms that are none of these levels nor of `--vary`.
    ///
    /// # Errors
    /// The first such name, with those that there are.
    pub fn check_names(&self, levels: &[&str]) -> Result<(), NameError> {
        let metrics = self.metric.iter().map(|bound| &bound.name);
        let wrong = |name: &&String| metric(name).is_none();
        if let Some(name) = metrics.chain(self.ratio.iter().map(|ratio| &ratio.metric)).find(wrong) {
            let known = METRICS.map(|metric| metric.name).join(", ");
            return Err(NameError { what: "metric", name: name.clone(), known });
        }
        let of_bounds = self.metric.iter().flat_map(|bound| &bound.arms);
        let of_ratios = self.ratio.iter().flat_map(|ratio| [&ratio.of, &ratio.to]);
        // An arm of --vary is called `container seccomp=off`.
        let wrong = |name: &&String| !levels.contains(&name.as_str()) && !name.contains('=');
        if let Some(name) = self.run.arms.iter().chain(of_bounds).chain(of_ratios).find(wrong) {
            let known = format!("{}, and with --vary such as \"container seccomp=off\"", levels.join(", "));
            return Err(NameError { what: "arm", name: name.clone(), known });
        }
        Ok(())
    }
}

/// A time as text; a date of TOML's own is none.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SystemTime>, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = SystemTime;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time in UTC between quotation marks, such as \"2026-10-01T00:00:00Z\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<SystemTime, E> {
            humantime::parse_rfc3339(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
    from.deserialize_str(Text).map(Some)
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
    #[serde(default, deserialize_with = "time")]
    pub not_before: Option<SystemTime>,
    /// Latest start of the run, RFC 3339 in UTC.
    #[serde(default, deserialize_with = "time")]
    pub not_after: Option<SystemTime>,
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
