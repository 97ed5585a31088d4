//! Whether the arms may be compared at all, and what may be said: data first, then numbers.
//!
//! The method's eighteen traps are the table [`traps::TRAPS`]; each has one or more checks. A check passes, fails, is not sure
//! (`unknown`), or is not judged because the record holds no evidence for it. A failed `refuse` check makes the verdict
//! `refused`; a failed `flag` check, or an unsure one, makes it `flagged`.

mod arms;
mod cache;
mod machine;
mod order;
mod runs;
pub mod traps;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::environment::{ClockKind, Host, HostClass};
use crate::plan::Plan;
use crate::record::{Arm, Workload};
use crate::sample::Sample;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparability {
    /// In one word.
    pub verdict: Verdict,
    /// What may be said with these numbers.
    pub claims_allowed: Vec<Claim>,
    /// How it was reached.
    pub checks: Vec<Check>,
    /// Checks for which the record holds no evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_judged: Vec<String>,
    /// The user wants numbers of a refused comparison: reports print them with this mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
}

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing speaks against it.
    Comparable,
    /// With the failed checks named beside the numbers.
    Flagged,
    /// Not at all.
    Refused,
}

/// A kind of statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// Milliseconds of this machine.
    Absolute,
    /// How many times longer, on this machine.
    Ratio,
    /// How many times the instructions.
    InstructionRatio,
    /// Bytes charged.
    Memory,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name: number of the trap and a word.
    pub id: String,
    /// What a failure means.
    pub level: CheckLevel,
    /// Its result.
    pub status: CheckStatus,
    /// What was seen.
    #[serde(default)]
    pub detail: String,
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckLevel {
    /// No comparison.
    Refuse,
    /// Named beside the numbers.
    Flag,
    /// Nothing.
    Info,
}

/// A result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    /// As it should be.
    Pass,
    /// Not as it should be.
    Fail,
    /// Not sure.
    Unknown,
}

/// What the engine looks at.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What was planned.
    pub plan: &'a Plan,
    /// The machine.
    pub host: &'a Host,
    /// The arms.
    pub arms: &'a BTreeMap<String, Arm>,
    /// What was run.
    pub workload: &'a Workload,
    /// The runs.
    pub samples: &'a [Sample],
}

/// Result, and what was seen; with a level where it depends on what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    status: CheckStatus,
    detail: String,
    level: Option<CheckLevel>,
}

impl Found {
    pub(crate) fn pass(detail: impl Into<String>) -> Self {
        Self { status: CheckStatus::Pass, detail: detail.into(), level: None }
    }

    pub(crate) fn fail(detail: impl Into<String>) -> Self {
        Self { status: CheckStatus::Fail, detail: detail.into(), level: None }
    }

    pub(crate) fn unsure(detail: impl Into<String>) -> Self {
        Self { status: CheckStatus::Unknown, detail: detail.into(), level: None }
    }

    /// A failure where it is true, else a pass.
    pub(crate) fn fails_if(failed: bool, detail: impl Into<String>) -> Self {
        if failed { Self::fail(detail) } else { Self::pass(detail) }
    }

    /// The same with another meaning of a failure.
    pub(crate) fn at(self, level: CheckLevel) -> Self {
        Self { level: Some(level), ..self }
    }
}

/// Judges.
#[must_use]
pub fn judge(evidence: Evidence<'_>) -> Comparability {
    let (mut checks, mut not_judged) = (vec![], vec![]);
    for row in traps::rows() {
        let id = row.id.to_owned();
        match (row.judge)(evidence) {
            Some(Found { status, detail, level }) => {
                checks.push(Check { id, level: level.unwrap_or(row.level), status, detail });
            }
            None => not_judged.push(id),
        }
    }
    let verdict = Verdict::of(&checks);
    let claims_allowed = match (verdict, evidence.host.class, evidence.host.clock) {
        (Verdict::Refused, ..) => vec![],
        (_, HostClass::EmulatedLab, ClockKind::Instructions) => vec![Claim::InstructionRatio, Claim::Memory],
        (_, HostClass::EmulatedLab, ClockKind::Monotonic) => vec![Claim::Memory],
        _ => vec![Claim::Absolute, Claim::Ratio, Claim::Memory],
    };
    Comparability { verdict, claims_allowed, checks, not_judged, watermark: None }
}

impl Verdict {
    /// Of these checks together.
    #[must_use]
    pub fn of(checks: &[Check]) -> Self {
        checks.iter().map(Check::verdict).max().unwrap_or(Self::Comparable)
    }
}

/// What refuses a comparison, in one line; nothing where nothing does.
#[must_use]
pub fn refusal(checks: &[Check]) -> Option<String> {
    let refusing = checks.iter().find(|check| check.refuses())?;
    Some(format!("not comparable: {}: {}", refusing.id, refusing.detail))
}

impl Comparability {
    /// Lets reports print the numbers of a refused comparison, marked with what refused it. Of any other it changes nothing.
    pub fn allow_incomparable(&mut self) {
        let refusing = self.checks.iter().filter(|check| check.refuses());
        let ids: Vec<&str> = refusing.map(|check| check.id.as_str()).collect();
        if self.verdict == Verdict::Refused {
            self.watermark = Some(format!("NOT COMPARABLE ({})", ids.join(", ")));
        }
    }

    /// Whether no statement may set one arm against another.
    #[must_use]
    pub fn forbids_statements(&self) -> bool {
        self.verdict == Verdict::Refused && self.watermark.is_none()
    }
}

impl Check {
    const fn verdict(&self) -> Verdict {
        match (self.status, self.level) {
            (CheckStatus::Pass, _) | (_, CheckLevel::Info) => Verdict::Comparable,
            (CheckStatus::Fail, CheckLevel::Refuse) => Verdict::Refused,
            _ => Verdict::Flagged,
        }
    }

    /// Whether it alone forbids the comparison.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.verdict() == Verdict::Refused
    }

    /// Whether the reader must see it beside the numbers.
    #[must_use]
    pub fn speaks(&self) -> bool {
        self.verdict() != Verdict::Comparable
    }
}

impl Evidence<'_> {
    /// Whether a vm is among the arms.
    fn has_vm(&self) -> bool {
        self.arms.values().any(|arm| arm.kind == "kvm")
    }

    /// The arms in the order of the plan.
    fn arms(&self) -> impl Iterator<Item = (&str, &Arm)> {
        self.plan.arms.iter().filter_map(|name| Some((name.as_str(), self.arms.get(name)?)))
    }

    /// The arms but for the bare process: it has no limits and no process 1 by design, it is the floor.
    fn isolated(&self) -> impl Iterator<Item = (&str, &Arm)> {
        self.arms().filter(|(_, arm)| arm.kind != "process")
    }

    /// The runs that count, of one arm.
    fn analysed<'a>(&'a self, arm: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |s| s.arm == arm && s.analysed())
    }
}

/// Compares one fact of the arms: equal, different, or not known for some; not judged where it is known for none.
fn equal<'a>(facts: impl Iterator<Item = (&'a str, Option<String>)>, what: &str) -> Option<Found> {
    let facts: Vec<(&str, Option<String>)> = facts.collect();
    let values: BTreeSet<&Option<String>> = facts.iter().map(|(_, value)| value).collect();
    let list = facts.iter().map(|(arm, v)| format!("{arm} {}", v.as_deref().unwrap_or("not known")));
    if values.iter().all(|v| v.is_none()) {
        return None;
    }
    Some(match values.len() {
        1 => Found::pass(format!("{what} equal")),
        _ if values.contains(&None) => {
            Found::unsure(format!("{what}: {}", list.collect::<Vec<_>>().join(", ")))
        }
        _ => Found::fail(format!("{what} differ: {}", list.collect::<Vec<_>>().join(", "))),
    })
}

/// A fact of the analysed samples of each arm; several different ones are listed.
fn over_samples(e: Evidence<'_>, what: &str, fact: impl Fn(&Sample) -> Option<String>) -> Option<Found> {
    let of = |arm: &str| {
        let seen: Option<BTreeSet<String>> = e.analysed(arm).map(&fact).collect();
        seen.filter(|s| !s.is_empty()).map(|s| s.into_iter().collect::<Vec<_>>().join(" and "))
    };
    equal(e.plan.arms.iter().map(|arm| (arm.as_str(), of(arm))), what)
}
