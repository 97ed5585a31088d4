//! Which level does what is asked: what it keeps from the workload, what it gives to it, and what it costs.
//!
//! Evidence is the published table ([`crate::probe::table`]) or the record of a probe run, cell by cell; costs come from the record of
//! a comparison. Nothing is weighed: a level does what was asked or it does not, and each reason has the id of its probe. What no
//! probe can show and `docs/security.md` says is done only in part stands beside each answer.

use serde::{Deserialize, Serialize};

use crate::environment::{ClockKind, HostClass};
use crate::probe::table::{self, is_stress};
use crate::probe::{Outcome, ProbeRecord, Verdict};
use crate::record::Record;
use crate::report::quantity::Shown;
use crate::report::words::{self, printable};

/// What a workload could do that the level is to keep from it.
#[derive(Clone, Copy, Debug)]
pub struct Threat {
    /// Its name.
    pub name: &'static str,
    /// Who is feared, and for what.
    pub means: &'static str,
    /// Probes that must find nothing of the host's.
    pub probes: &'static [&'static str],
    /// A kernel of the level's own keeps it away: what is reached in that one is not the host's.
    pub own_kernel_helps: bool,
    /// Entries of `docs/security.md` about what no probe judges of it: at container, at vm.
    pub see: [&'static [&'static str]; 2],
}

impl Threat {
    /// These entries at a level.
    #[must_use]
    pub fn see_at(&self, level: &str) -> &'static [&'static str] {
        let [container, vm] = self.see;
        match level {
            "container" => container,
            "vm" => vm,
            _ => &[],
        }
    }
}

/// All threats.
pub const THREATS: &[Threat] = &[
    Threat {
        name: "mistakes",
        means: "code of your own that has faults: it fills, deletes and kills what it reaches, and attacks nothing",
        probes: &["P15", "P21", "P23", "P24", "D01", "D02", "D03", "D04", "D05", "D07"],
        own_kernel_helps: true,
        see: [&["C-13"], &[]],
    },
    Threat {
        name: "curious-code",
        means: "code that looks around for files, processes, secrets and sockets of others",
        probes: &["P13", "P17", "P18", "P19", "P21", "P22", "P25", "P26", "P27", "P28", "P29", "P30"],
        own_kernel_helps: true,
        see: [&["C-06"], &[]],
    },
    Threat {
        name: "leaks",
        means: "code that must not learn load, disks, uptime, addresses, log and command line of the host's kernel",
        probes: &["P03", "P04", "P05", "P14", "P16", "P17", "P20", "P39"],
        own_kernel_helps: true,
        see: [&["C-06"], &["G-09"]],
    },
    Threat {
        name: "exhaustion",
        means: "code that uses up processes, memory, descriptors, room or processor time",
        probes: &["D01", "D02", "D03", "D04", "D05", "D06", "D07"],
        own_kernel_helps: true,
        see: [&["C-13", "C-14"], &[]],
    },
    Threat {
        name: "privileged-code",
        means: "root inside that uses every power which it finds",
        probes: &["P05", "P08", "P09", "P10", "P12", "P13", "P15", "P22", "P30"],
        own_kernel_helps: true,
        see: [&["C-06", "C-09"], &[]],
    },
    Threat {
        name: "untrusted-code",
        means: "code of strangers that attacks the kernel which answers it, for instance through a fault in an allowed system call",
        probes: &["P01", "P06", "P08", "P12", "P13", "P18", "P21", "P22", "P25", "P26", "P27", "P28"],
        own_kernel_helps: true,
        see: [&["C-06", "C-09", "C-13"], &["G-09"]],
    },
    Threat {
        name: "side-channels",
        means: "code that watches others through caches, predictors and shared processors",
        probes: &["P37", "P38", "P39"],
        own_kernel_helps: false,
        see: [&[], &["G-09"]],
    },
];

/// What the workload must be able to do.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Its name.
    pub name: &'static str,
    /// What for.
    pub means: &'static str,
    /// The probe that must reach it.
    pub probe: &'static str,
    /// What of it must be reached; nothing: anything.
    pub items: &'static [&'static str],
    /// It must be the host's; else a kernel of the level's own serves as well.
    pub of_host: bool,
}

/// All needs.
pub const NEEDS: &[Need] = &[
    Need {
        name: "kernel-modules",
        means: "load modules into the kernel that answers",
        probe: "P12",
        items: &["init_module"],
        of_host: false,
    },
    Need { name: "mounts", means: "mount file systems", probe: "P12", items: &["mount"], of_host: false },
    Need { name: "bpf", means: "load BPF programs", probe: "P12", items: &["bpf"], of_host: false },
    Need {
        name: "capabilities",
        means: "root with its powers",
        probe: "P08",
        items: &["CapEff"],
        of_host: false,
    },
    Need {
        name: "namespaces",
        means: "make namespaces: containers inside",
        probe: "P10",
        items: &["clone user", "clone mount", "clone pid", "clone net"],
        of_host: false,
    },
    Need {
        name: "kernel-settings",
        means: "write /proc/sys",
        probe: "P15",
        items: &["/proc/sys"],
        of_host: false,
    },
    Need {
        name: "kernel-log",
        means: "read the kernel's messages",
        probe: "P05",
        items: &["syslog"],
        of_host: false,
    },
    Need {
        name: "own-kernel",
        means: "a kernel that is not the host's",
        probe: "P01",
        items: &[],
        of_host: false,
    },
    Need { name: "host-network", means: "the host's network", probe: "P27", items: &[], of_host: true },
    Need {
        name: "host-processes",
        means: "see and signal the host's processes",
        probe: "P21",
        items: &[],
        of_host: true,
    },
    Need {
        name: "host-devices",
        means: "the host's disks",
        probe: "P13",
        items: &["mknod disk"],
        of_host: true,
    },
];

/// A limit of the time to ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StartBudget {
    /// Of a machine's clock.
    Ms(f64),
    /// Instructions of the lab, in millions.
    Mi(f64),
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// What is to be kept away.
    pub threats: Vec<&'static Threat>,
    /// What is needed.
    pub needs: Vec<&'static Need>,
    /// Most time from request to ready.
    pub start: Option<StartBudget>,
    /// Most bytes charged when ready.
    pub memory_bytes: Option<u64>,
}

/// One point for or against a level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Which threat or need it is about.
    pub about: String,
    /// Id of the probe.
    pub probe: String,
    /// What that one asks.
    pub title: String,
    /// What comes out at this level.
    pub means: String,
    /// What of it is reached, where that is known by name.
    pub items: Vec<String>,
}

/// A cost against its limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// What costs: `start` or `memory`.
    pub of: String,
    /// The median with its unit.
    pub median: Option<String>,
    /// Whether it is inside of the limit; nothing where there is no limit, or it can't be judged.
    pub within: Option<bool>,
    /// Why it can't be judged.
    pub why_not: Option<String>,
}

/// What is to be thought of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It does all that is asked, as far as probes and figures show it.
    Fits,
    /// As far as it is known: something that was asked for was not probed or not measured.
    Unknown,
    /// It does not.
    DoesNot,
}

/// One level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelChoice {
    /// Its name.
    pub level: String,
    /// The answer.
    pub answer: Answer,
    /// What it keeps away, and gives.
    pub holds: Vec<Point>,
    /// What it does not.
    pub lacks: Vec<Point>,
    /// What is not known: the record has no such cell, or the machine that it is of has nothing of the kind.
    pub unknown: Vec<Point>,
    /// Entries of `docs/security.md` about what was asked for and no probe judges.
    pub see: Vec<String>,
    /// What it costs.
    pub costs: Vec<Cost>,
}

/// Name and version of the answer.
pub const SCHEMA: &str = "isolab.choice/1";

/// The answer for all levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// [`SCHEMA`].
    pub schema: String,
    /// What the costs are of: the workload, the machine, and whether the comparison was refused or flagged.
    pub costs_of: Option<String>,
    /// Where the points come from: `published table` or `probe record`.
    pub evidence: String,
    /// What was asked, in words.
    pub asked: Vec<String>,
    /// The levels, the least isolated first.
    pub levels: Vec<LevelChoice>,
}

impl Choice {
    /// Names of the levels with this answer.
    pub fn with(&self, answer: Answer) -> impl Iterator<Item = &str> {
        self.levels.iter().filter(move |level| level.answer == answer).map(|level| level.level.as_str())
    }
}

/// What a probe finds at a level.
struct Finding {
    outcome: Option<Outcome>,
    own_kernel: bool,
    means: String,
    items: Vec<String>,
    /// The published table names no items: each may be reached.
    any_item: bool,
}

/// Judges the three levels.
#[must_use]
pub fn choose(asked: &Asked, probed: Option<&ProbeRecord>, costs: Option<&Record>) -> Choice {
    let levels = ["process", "container", "vm"].map(|level| judge(level, asked, probed, costs));
    let threats = asked.threats.iter().map(|threat| format!("{}: {}", threat.name, threat.means));
    let needs = asked.needs.iter().map(|need| format!("{}: {}", need.name, need.means));
    let start = asked.start.map(|most| match most {
        StartBudget::Ms(ms) => format!("start: at most {ms} ms"),
        StartBudget::Mi(mi) => format!("start: at most {mi} Mi of the lab's instructions"),
    });
    let memory = asked.memory_bytes.map(|most| format!("memory: at most {most} bytes"));
    Choice {
        schema: SCHEMA.to_owned(),
        costs_of: costs.map(costs_of),
        evidence: if probed.is_some() { "probe record" } else { "published table" }.to_owned(),
        asked: threats.chain(needs).chain(start).chain(memory).collect(),
        levels: levels.into(),
    }
}

fn costs_of(record: &Record) -> String {
    let verdict = serde_json::to_value(record.comparability.verdict).unwrap_or_default();
    format!(
        "{} (comparison: {}). {}",
        printable(&record.workload.name),
        verdict.as_str().unwrap_or("not judged"),
        words::place(&record.host)
    )
}

fn judge(level: &str, asked: &Asked, probed: Option<&ProbeRecord>, record: Option<&Record>) -> LevelChoice {
    let (mut holds, mut lacks, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let mut point = |good: Option<bool>, about: &str, probe: &str, finding: Finding| {
        let title = table::row(probe).map_or("", |row| row.title).to_owned();
        let Finding { means, items, .. } = finding;
        let point = Point { about: about.to_owned(), probe: probe.to_owned(), title, means, items };
        match good {
            Some(true) => holds.push(point),
            Some(false) => lacks.push(point),
            None => unknown.push(point),
        }
    };
    for threat in &asked.threats {
        for probe in threat.probes {
            let found = finding(level, probe, probed);
            let kept = match found.outcome {
                Some(Outcome::Blocked) => Some(true),
                Some(Outcome::Reached) => Some(found.own_kernel && threat.own_kernel_helps),
                // Published: a level without limits exhausts whatever there is.
                Some(Outcome::NotApplicable) if probed.is_none() && is_stress(probe) => Some(false),
                Some(Outcome::NotApplicable | Outcome::Unknown) | None => None,
            };
            point(kept, threat.name, probe, found);
        }
    }
    for need in &asked.needs {
        let mut found = finding(level, need.probe, probed);
        let whose = !(need.of_host && found.own_kernel);
        let missing: Vec<&str> = need
            .items
            .iter()
            .copied()
            .filter(|item| !found.any_item && !found.items.iter().any(|reached| reached == item))
            .collect();
        let given = match (need.probe, found.outcome) {
            // The one that asks whether the kernel is the host's.
            ("P01", Some(Outcome::Blocked)) => Some(true),
            ("P01", Some(Outcome::Reached)) | (_, Some(Outcome::Blocked)) => Some(false),
            (_, Some(Outcome::Reached)) => Some(whose && missing.is_empty()),
            (_, Some(Outcome::NotApplicable | Outcome::Unknown) | None) => None,
        };
        if given == Some(false) {
            found.items = missing.iter().map(|item| format!("not reached: {item}")).collect();
        }
        point(given, need.name, need.probe, found);
    }
    let costs: Vec<Cost> =
        [start(level, asked, record), memory(level, asked, record)].into_iter().flatten().collect();
    let answer = if !lacks.is_empty() || costs.iter().any(|cost| cost.within == Some(false)) {
        Answer::DoesNot
    } else if !unknown.is_empty() || costs.iter().any(|cost| cost.why_not.is_some()) {
        Answer::Unknown
    } else {
        Answer::Fits
    };
    let mut see: Vec<String> = Vec::new();
    for id in asked.threats.iter().flat_map(|threat| threat.see_at(level)) {
        if !see.iter().any(|known| known == id) {
            see.push((*id).to_owned());
        }
    }
    LevelChoice { level: level.to_owned(), answer, holds, lacks, unknown, see, costs }
}

fn finding(level: &str, probe: &str, probed: Option<&ProbeRecord>) -> Finding {
    let nothing = |means: &str| Finding {
        outcome: None,
        own_kernel: false,
        means: means.to_owned(),
        items: vec![],
        any_item: false,
    };
    if let Some(record) = probed {
        let Some(cell) = record.cell(probe, level) else {
            return nothing(if is_stress(probe) {
                "not in the probe record: isolab probe --stress"
            } else {
                "not in the probe record"
            });
        };
        // What was published is not what came out, where it is a finding.
        let means = match cell.verdict {
            Verdict::Ok if cell.outcome == Outcome::NotApplicable => {
                "the machine that was probed shows nothing of the kind".to_owned()
            }
            Verdict::Ok => cell.means.clone(),
            Verdict::Finding | Verdict::Unknown => {
                format!(
                    "{}, not as published ({})",
                    cell.outcome.word(),
                    cell.note.as_deref().unwrap_or("no note")
                )
            }
        };
        let items = cell.reached().map(str::to_owned).collect();
        let outcome = Some(cell.outcome);
        return Finding { outcome, own_kernel: cell.own_kernel, means, items, any_item: false };
    }
    let Some(row) = table::row(probe) else { return nothing("no such probe") };
    let expect = row.at(level);
    Finding {
        outcome: expect.outcome.outcome(),
        own_kernel: level == "vm",
        means: expect.means.to_owned(),
        items: expect.items.unwrap_or_default().iter().map(|item| (*item).to_owned()).collect(),
        any_item: expect.items.is_none(),
    }
}

/// Most of what there is to say of a cost that nobody measured.
const NOT_MEASURED: &str =
    "not measured: isolab compare --json record.json IMAGE -- CMD, and give it with --record record.json";

fn median(level: &str, metric: &str, record: &Record) -> Option<f64> {
    Some(record.summary_of(metric)?.arms.get(level)?.median)
}

/// The time to ready, where it is asked for or known.
fn start(level: &str, asked: &Asked, record: Option<&Record>) -> Option<Cost> {
    let cost = |median, within, why_not| Some(Cost { of: "start".to_owned(), median, within, why_not });
    let Some(record) = record else {
        return asked.start.and_then(|_| cost(None, None, Some(NOT_MEASURED.to_owned())));
    };
    // A command that does not tell when it is ready has another moment, which is named.
    let metric = record.headline().startup();
    let Some(ns) = median(level, metric.name, record) else {
        let why = format!("the record has no start of {level}: compare with --levels process,container,vm");
        return asked.start.and_then(|_| cost(None, None, Some(why)));
    };
    let shown = Shown::time(&record.host);
    let text = Some(format!("{} until it {}", shown.with_unit(ns), metric.verb));
    let limited = match (asked.start, record.host.clock) {
        (None, _) => return cost(text, None, None),
        (Some(StartBudget::Mi(most)), ClockKind::Instructions) => shown.scaled(ns) <= most,
        (Some(StartBudget::Ms(most)), ClockKind::Monotonic)
            if record.host.class != HostClass::EmulatedLab =>
        {
            ns / 1e6 <= most
        }
        (Some(_), ClockKind::Instructions) => {
            let why = "the record counts the lab's instructions, which say nothing of milliseconds: measure on the machine that is \
                       meant, or give the limit in Mi";
            return cost(text, None, Some(why.to_owned()));
        }
        (Some(_), ClockKind::Monotonic) if record.host.class == HostClass::EmulatedLab => {
            let why = "the record is of the lab by the wall clock, which says nothing of another machine";
            return cost(text, None, Some(why.to_owned()));
        }
        (Some(_), ClockKind::Monotonic) => {
            return cost(text, None, Some("the record is not of the lab: give the limit in ms".to_owned()));
        }
    };
    cost(text, Some(limited), None)
}

/// The charge when ready, where it is asked for or known.
fn memory(level: &str, asked: &Asked, record: Option<&Record>) -> Option<Cost> {
    let cost = |median, within, why_not| Some(Cost { of: "memory".to_owned(), median, within, why_not });
    let Some(record) = record else {
        return asked.memory_bytes.and_then(|_| cost(None, None, Some(NOT_MEASURED.to_owned())));
    };
    let metric = record.headline().memory();
    let Some(bytes) = median(level, metric.name, record) else {
        let why = format!(
            "the record has no memory of {level}: compare with --levels process,container,vm, where cgroups can be made"
        );
        return asked.memory_bytes.and_then(|_| cost(None, None, Some(why)));
    };
    #[expect(clippy::cast_precision_loss, reason = "a limit is far below 2^53 bytes")]
    let within = asked.memory_bytes.map(|most| bytes <= most as f64);
    cost(Some(format!("{} that it {}", Shown::MiB.with_unit(bytes), metric.verb)), within, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threat(name: &str) -> &'static Threat {
        THREATS.iter().find(|threat| threat.name == name).expect("a threat")
    }

    fn need(name: &str) -> &'static Need {
        NEEDS.iter().find(|need| need.name == name).expect("a need")
    }

    fn answers(asked: &Asked) -> [Answer; 3] {
        let choice = choose(asked, None, None);
        [0, 1, 2].map(|n| choice.levels[n].answer)
    }

    #[test]
    fn every_probe_that_is_named_is_in_the_published_table() {
        let of_threats = THREATS.iter().flat_map(|threat| threat.probes);
        for id in of_threats.chain(NEEDS.iter().map(|need| &need.probe)) {
            assert!(table::row(id).is_some(), "{id}");
        }
    }

    #[test]
    fn what_is_to_be_seen_is_in_the_document() {
        let document = include_str!("../../docs/security.md");
        for id in THREATS.iter().flat_map(|threat| threat.see).flatten() {
            assert!(document.contains(&format!("\n* **{id} ")), "{id}");
        }
    }

    #[test]
    fn what_was_not_probed_holds_nothing() {
        let finding = finding("container", "D02", Some(&empty()));
        assert_eq!(finding.outcome, None);
        let asked = Asked { threats: vec![threat("exhaustion")], ..Asked::default() };
        let choice = choose(&asked, Some(&empty()), None);
        assert!(choice.levels.iter().all(|level| level.answer == Answer::Unknown), "{choice:?}");
    }

    /// A probe record without a cell.
    fn empty() -> ProbeRecord {
        let json = serde_json::json!({
            "schema": crate::probe::SCHEMA,
            "tool": {"name": "isolab", "version": "0", "git": null, "dirty": null, "profile": "release"},
            "started_unix_ns": 0, "argv": [], "host": host(), "boot_id": null, "image": "demo", "image_digest": "",
            "program": {"sha256": "", "fnv": ""},
            "config": {"memory_bytes": 0, "cpus": 1, "pids": 1, "read_only": false, "user": "0:0", "kernel": null},
            "config_digest": "", "planted": [], "levels": [], "cells": []
        });
        ProbeRecord::from_json(json.to_string().as_bytes()).expect("a record")
    }

    fn host() -> serde_json::Value {
        let host = crate::environment::Host::read(
            std::path::Path::new("/nonexistent"),
            HostClass::None,
            ClockKind::Monotonic,
        );
        serde_json::to_value(host).expect("JSON")
    }

    #[test]
    fn each_threat_has_the_levels_that_hold_it() {
        use Answer::{DoesNot, Fits};
        for (name, expected) in [
            ("mistakes", [DoesNot, Fits, Fits]),
            ("curious-code", [DoesNot, Fits, Fits]),
            ("exhaustion", [DoesNot, Fits, Fits]),
            ("privileged-code", [DoesNot, Fits, Fits]),
            ("leaks", [DoesNot, DoesNot, Fits]),
            ("untrusted-code", [DoesNot, DoesNot, Fits]),
            ("side-channels", [DoesNot, DoesNot, DoesNot]),
        ] {
            let asked = Asked { threats: vec![threat(name)], ..Asked::default() };
            assert_eq!(answers(&asked), expected, "{name}");
        }
    }

    #[test]
    fn what_is_needed_of_the_host_a_guest_can_not_give() {
        use Answer::{DoesNot, Fits};
        let needs = |name| Asked { needs: vec![need(name)], ..Asked::default() };
        assert_eq!(answers(&needs("kernel-modules")), [Fits, DoesNot, Fits]);
        assert_eq!(answers(&needs("host-processes")), [Fits, DoesNot, DoesNot]);
        assert_eq!(answers(&needs("own-kernel")), [DoesNot, DoesNot, Fits]);
        let both = Asked { threats: vec![threat("untrusted-code")], ..needs("host-network") };
        assert_eq!(answers(&both), [DoesNot; 3]);
    }

    #[test]
    fn a_limit_without_a_figure_is_not_met_and_not_missed() {
        let asked = Asked { memory_bytes: Some(64 << 20), ..Asked::default() };
        assert_eq!(answers(&asked), [Answer::Unknown; 3]);
        assert_eq!(answers(&Asked::default()), [Answer::Fits; 3]);
    }
}
