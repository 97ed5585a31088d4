//! Whether the arms may be compared at all, and what may be said: data first, then numbers.
//!
//! Each check is one trap of the method: it passes, fails or can't be judged. A failed `refuse` check makes the
//! verdict `refused`, a failed `flag` check (or one that can't be judged) makes it `flagged`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::environment::{ClockKind, Host, HostClass};
use crate::noise;
use crate::plan::{PAIRS_ON_HOST, Plan, pairs_done};
use crate::record::Arm;
use crate::sample::Sample;
use crate::statistics::MIN_FOR_INTERVAL;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparability {
    /// In one word.
    pub verdict: Verdict,
    /// What may be said with these numbers.
    pub claims_allowed: Vec<Claim>,
    /// How it was reached.
    pub checks: Vec<Check>,
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
    /// Not known.
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
    /// The runs.
    pub samples: &'a [Sample],
}

/// Judges.
#[must_use]
pub fn judge(evidence: Evidence<'_>) -> Comparability {
    let fixed = CHECKS.iter().map(|(id, level, check)| {
        let (status, detail) = check(evidence);
        (*id, *level, status, detail)
    });
    let check =
        |(id, level, status, detail): noise::Found| Check { id: id.to_owned(), level, status, detail };
    let checks: Vec<Check> = fixed.chain(noise::checks(evidence)).map(check).collect();
    let verdict = checks.iter().map(Check::verdict).max().unwrap_or(Verdict::Comparable);
    let claims_allowed = match (verdict, evidence.host.class, evidence.host.clock) {
        (Verdict::Refused, ..) => vec![],
        (_, HostClass::EmulatedLab, ClockKind::Instructions) => vec![Claim::InstructionRatio, Claim::Memory],
        (_, HostClass::EmulatedLab, ClockKind::Monotonic) => vec![Claim::Memory],
        _ => vec![Claim::Absolute, Claim::Ratio, Claim::Memory],
    };
    Comparability { verdict, claims_allowed, checks }
}

impl Check {
    const fn verdict(&self) -> Verdict {
        match (self.status, self.level) {
            (CheckStatus::Pass, _) | (_, CheckLevel::Info) => Verdict::Comparable,
            (CheckStatus::Fail, CheckLevel::Refuse) => Verdict::Refused,
            _ => Verdict::Flagged,
        }
    }

    /// Whether the reader must see it beside the numbers.
    #[must_use]
    pub fn speaks(&self) -> bool {
        self.verdict() != Verdict::Comparable
    }
}

/// Names of the checks that this version makes, where it can judge them.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(id, ..)| *id).chain(noise::NAMES)
}

type Judgement = (CheckStatus, String);
type CheckRow = (&'static str, CheckLevel, fn(Evidence<'_>) -> Judgement);

const CHECKS: &[CheckRow] = &[
    ("T01-kvm-backend", CheckLevel::Refuse, kvm_backend),
    ("T02-nested", CheckLevel::Flag, nested),
    ("T05-kernel", CheckLevel::Flag, same_kernel),
    ("T06-medium", CheckLevel::Flag, same_medium),
    ("T08-limits", CheckLevel::Refuse, same_limits),
    ("T08-seccomp", CheckLevel::Flag, same_seccomp),
    ("T09-counter", CheckLevel::Refuse, same_counter),
    ("T10-number-of-pairs", CheckLevel::Flag, enough_pairs),
    ("T17-failed-runs", CheckLevel::Refuse, no_failed_runs),
    ("same-image", CheckLevel::Refuse, same_image),
    ("same-status", CheckLevel::Refuse, same_status),
    ("same-output", CheckLevel::Flag, same_output),
];

fn has_vm(e: Evidence<'_>) -> bool {
    e.arms.values().any(|arm| arm.kind == "kvm")
}

fn pass(detail: &str) -> Judgement {
    (CheckStatus::Pass, detail.to_owned())
}

fn fail(detail: String) -> Judgement {
    (CheckStatus::Fail, detail)
}

fn kvm_backend(e: Evidence<'_>) -> Judgement {
    match e.host.class {
        _ if !has_vm(e) => pass("no vm among the arms"),
        HostClass::EmulatedLab => {
            pass("every arm ran on the same emulated CPU; what may be claimed is narrower")
        }
        HostClass::Hardware | HostClass::Nested => pass("guest kernels run in hardware"),
        class => {
            fail(format!("guest kernel code does not run in hardware here (class {class:?})").to_lowercase())
        }
    }
}

fn nested(e: Evidence<'_>) -> Judgement {
    match e.host.class {
        HostClass::Nested if has_vm(e) => {
            fail("this machine is a VM itself: not the cost of KVM on bare metal".to_owned())
        }
        _ => pass("not nested, or no vm among the arms"),
    }
}

/// Compares one fact of the arms: equal, different, or not known for some.
fn equal<'a>(facts: impl Iterator<Item = (&'a str, Option<String>)>, what: &str) -> Judgement {
    let facts: Vec<(&str, Option<String>)> = facts.collect();
    let values: BTreeSet<&Option<String>> = facts.iter().map(|(_, value)| value).collect();
    let list = facts.iter().map(|(arm, v)| format!("{arm} {}", v.as_deref().unwrap_or("not known")));
    match values.len() {
        0 | 1 if values.iter().all(|v| v.is_some()) => pass(&format!("{what} equal")),
        _ if values.contains(&None) => {
            (CheckStatus::Unknown, format!("{what}: {}", list.collect::<Vec<_>>().join(", ")))
        }
        _ => fail(format!("{what} differ: {}", list.collect::<Vec<_>>().join(", "))),
    }
}

fn over_arms(e: Evidence<'_>, what: &str, fact: impl Fn(&Arm) -> Option<String>) -> Judgement {
    let arms = e.plan.arms.iter().filter_map(|name| Some((name.as_str(), e.arms.get(name)?)));
    equal(arms.map(|(name, arm)| (name, fact(arm))), what)
}

fn same_kernel(e: Evidence<'_>) -> Judgement {
    over_arms(e, "kernels", |arm| arm.kernel.clone())
}

fn same_medium(e: Evidence<'_>) -> Judgement {
    over_arms(e, "media of the image", |arm| {
        Some(format!("{} by {}", arm.rootfs.fs.as_deref()?, arm.rootfs.via.as_deref()?))
    })
}

fn same_limits(e: Evidence<'_>) -> Judgement {
    // The bare process has no limits by design: it is the floor, and its arm says so.
    let limited = e.plan.arms.iter().filter_map(|name| Some((name.as_str(), e.arms.get(name)?)));
    let limited = limited.filter(|(_, arm)| arm.kind != "process").map(|(name, arm)| {
        let fact =
            arm.cpus.zip(arm.mem_limit_bytes).map(|(cpus, mem)| format!("{cpus} CPU with {mem} bytes"));
        let lost = &arm.limits_not_enforced;
        let fact = if lost.is_empty() { fact } else { Some(format!("without {}", lost.join(", "))) };
        (name, fact)
    });
    equal(limited, "CPUs and memory limits")
}

fn same_seccomp(e: Evidence<'_>) -> Judgement {
    over_arms(e, "seccomp filters", |arm| Some(arm.seccomp.clone()))
}

fn same_image(e: Evidence<'_>) -> Judgement {
    over_samples(e, "image digests", |s| s.detail.image_digest.clone())
}

/// A fact of the analysed samples of each arm; several different ones are listed.
fn over_samples(e: Evidence<'_>, what: &str, fact: impl Fn(&Sample) -> Option<String>) -> Judgement {
    let of = |arm: &str| {
        let own = e.samples.iter().filter(|s| s.arm == arm && s.analysed());
        let seen: Option<BTreeSet<String>> = own.map(&fact).collect();
        seen.filter(|s| !s.is_empty()).map(|s| s.into_iter().collect::<Vec<_>>().join(" and "))
    };
    equal(e.plan.arms.iter().map(|arm| (arm.as_str(), of(arm))), what)
}

fn same_status(e: Evidence<'_>) -> Judgement {
    over_samples(e, "exit statuses", |s| s.status.map(|status| status.to_string()))
}

fn same_output(e: Evidence<'_>) -> Judgement {
    over_samples(e, "digests of standard output", |s| {
        s.stdout_sha256.as_ref().map(|digest| digest.chars().take(12).collect())
    })
}

fn same_counter(e: Evidence<'_>) -> Judgement {
    let charged = |s: &&Sample| s.mem_bytes.is_some();
    let sources: BTreeSet<&str> = e
        .samples
        .iter()
        .filter(charged)
        .filter_map(|s| Some(s.mem_bytes.as_ref()?.source.as_str()))
        .collect();
    match sources.len() {
        0 => (CheckStatus::Unknown, "no memory was read".to_owned()),
        1 => pass("one counter for all arms"),
        _ => fail(format!(
            "memory by different counters: {}",
            sources.into_iter().collect::<Vec<_>>().join(", ")
        )),
    }
}

fn enough_pairs(e: Evidence<'_>) -> Judgement {
    let counted = e.host.clock == ClockKind::Instructions;
    let least = e.plan.stop.map_or(e.plan.pairs, |stop| stop.min_pairs);
    match pairs_done(e.plan, e.samples) {
        done if done < least => fail(format!("ended after {done} of {least} pairs")),
        1 => fail("1 pair: no interval and no finding".to_owned()),
        pairs if (pairs as usize) < MIN_FOR_INTERVAL => {
            fail(format!("{pairs} pairs: no interval and no finding below {MIN_FOR_INTERVAL}"))
        }
        _ if counted => pass("enough pairs for counts of instructions"),
        pairs if pairs >= PAIRS_ON_HOST => pass("enough pairs for intervals of a few percent"),
        pairs => fail(format!("{pairs} pairs: intervals are rough below {PAIRS_ON_HOST}")),
    }
}

fn no_failed_runs(e: Evidence<'_>) -> Judgement {
    // Where the warm-up already failed, nothing else was run.
    let none = e.samples.iter().all(|s| s.warmup);
    let counted = || e.samples.iter().filter(|s| none || !s.warmup);
    let measured = counted().count();
    let failed: Vec<&Sample> = counted().filter(|s| !s.ok).collect();
    let first = failed.first().map(|s| {
        let why = s.error.as_deref().or_else(|| s.flags.first().map(String::as_str));
        format!("{}: {}", s.arm, why.unwrap_or("did not end by itself"))
    });
    match (failed.len(), first) {
        (0, _) if measured > 0 => pass("every run ended by itself"),
        // Up to 1 % is kept, named and lived with.
        (n, Some(first)) if n * 100 <= measured => {
            (CheckStatus::Unknown, format!("{n} of {measured} runs failed ({first})"))
        }
        (n, first) => fail(format!("{n} of {measured} runs failed ({})", first.unwrap_or_default())),
    }
}
