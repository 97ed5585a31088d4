//! What each level isolates: the published table, the record of a probe run, and the verdict of one over the other.
//!
//! A run gives one [`Cell`] for each probe and level. Its outcome follows from its items ([`Cell::outcome_of`]), its verdict from
//! the published table ([`table::ROWS`]): a cell that is not as published is a finding, whichever way it differs.

use serde::{Deserialize, Serialize};

use crate::environment::Host;
use crate::record::Tool;

pub mod published;
pub mod table;

use table::{Expect, Expected, Row};

/// Name and version of the record.
pub const SCHEMA: &str = "isolab.probe/1";
/// The level without isolation: the baseline.
pub const BASELINE: &str = "process";

/// How an attempt, or a whole probe, came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There is nothing here that could be reached.
    NotApplicable,
    /// It was refused or is hidden.
    Blocked,
    /// The attempt failed for another reason, which shows nothing.
    Unknown,
    /// It was seen, opened, or got past every check.
    Reached,
}

impl Outcome {
    /// In words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotApplicable => "not applicable",
            Self::Blocked => "blocked",
            Self::Unknown => "unknown",
            Self::Reached => "reached",
        }
    }
}

/// What is to be thought of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As published.
    Ok,
    /// Not as published.
    Finding,
    /// The probe did not work.
    Unknown,
}

/// Who refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// Which layer: `seccomp`, `capability`, `namespace`, `read-only mount`, `not there`, `masked`, `limit`, `own kernel`,
    /// `kernel`, `device`, `mount`, `not inherited`.
    pub layer: String,
    /// The kernel's error number.
    pub errno: Option<i32>,
    /// Its name.
    pub error: Option<String>,
    /// The signal that ended the attempt.
    pub signal: Option<i32>,
}

/// One attempt of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemRecord {
    /// What was tried.
    pub item: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Who refused it.
    pub reason: Option<Reason>,
    /// What was seen inside.
    pub seen: Option<String>,
    /// What the host knows of it.
    pub host_truth: Option<String>,
}

/// One probe at one level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Id of the probe.
    pub probe: String,
    /// The level.
    pub level: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What was reached belongs to a kernel of the level's own, not to the host's.
    pub own_kernel: bool,
    /// The published outcome; nothing where the table only reports.
    pub expected: Option<Outcome>,
    /// What the published outcome means.
    pub means: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, where it is not plain.
    pub note: Option<String>,
    /// Time of the probe, in nanoseconds of the machine that it ran on.
    pub ns: u64,
    /// The evidence.
    pub items: Vec<ItemRecord>,
}

impl Cell {
    /// The outcome of a probe: what was reached counts most, then what is not known.
    #[must_use]
    pub fn outcome_of(items: &[ItemRecord]) -> Outcome {
        items.iter().map(|item| item.outcome).max().unwrap_or(Outcome::NotApplicable)
    }

    /// The cell of these items, judged by the published table.
    #[must_use]
    pub fn judged(row: &Row, level: &str, own_kernel: bool, ns: u64, items: Vec<ItemRecord>) -> Self {
        let outcome = Self::outcome_of(&items);
        let expect = row.at(level);
        let (verdict, note) = judge(level, outcome, &items, &expect);
        Self {
            probe: row.id.to_owned(),
            level: level.to_owned(),
            outcome,
            own_kernel: own_kernel && expect.is_of_the_kernel(),
            expected: expect.outcome.outcome(),
            means: expect.means.to_owned(),
            verdict,
            note,
            ns,
            items,
        }
    }

    /// Names of what was reached.
    pub fn reached(&self) -> impl Iterator<Item = &str> {
        reached(&self.items)
    }

    /// The layers that refused, each once, in the order of the items.
    #[must_use]
    pub fn layers(&self) -> Vec<&str> {
        let mut layers: Vec<&str> = Vec::new();
        for reason in self.items.iter().filter_map(|item| item.reason.as_ref()) {
            if !layers.contains(&reason.layer.as_str()) {
                layers.push(&reason.layer);
            }
        }
        layers
    }
}

fn reached(items: &[ItemRecord]) -> impl Iterator<Item = &str> {
    items.iter().filter(|item| item.outcome == Outcome::Reached).map(|item| item.item.as_str())
}

fn judge(level: &str, outcome: Outcome, items: &[ItemRecord], expect: &Expect) -> (Verdict, Option<String>) {
    let unknown = || {
        let names: Vec<&str> =
            items.iter().filter(|i| i.outcome == Outcome::Unknown).map(|i| i.item.as_str()).collect();
        (Verdict::Unknown, Some(format!("shows nothing: {}", names.join(", "))))
    };
    if outcome == Outcome::Unknown {
        return unknown();
    }
    let blocked = |o| matches!(o, Outcome::Blocked | Outcome::NotApplicable);
    if level == BASELINE {
        // The baseline is what this machine has to show; that it has less is no finding about isolation.
        let note = (expect.outcome == Expected::Reached && outcome == Outcome::Blocked).then(|| {
            "this host refuses it to isolab itself, so the other levels are shown nothing by it".to_owned()
        });
        return (Verdict::Ok, note);
    }
    let may = expect.items.unwrap_or_default();
    match expect.outcome {
        Expected::Any => (Verdict::Ok, None),
        Expected::Blocked if blocked(outcome) || reached(items).all(|item| may.contains(&item)) => {
            (Verdict::Ok, None)
        }
        Expected::NotApplicable if outcome == Outcome::NotApplicable => (Verdict::Ok, None),
        Expected::Reached if outcome == Outcome::NotApplicable => (Verdict::Ok, None),
        Expected::Reached if outcome == Outcome::Reached => {
            let more: Vec<&str> =
                reached(items).filter(|item| expect.items.is_some_and(|all| !all.contains(item))).collect();
            if more.is_empty() {
                (Verdict::Ok, None)
            } else {
                (Verdict::Finding, Some(format!("more is reached than is published: {}", more.join(", "))))
            }
        }
        Expected::Reached => (Verdict::Finding, Some("the table publishes it as reached".to_owned())),
        Expected::Blocked | Expected::NotApplicable => {
            let names: Vec<&str> = reached(items).filter(|item| !may.contains(item)).collect();
            (Verdict::Finding, Some(format!("reached: {}", names.join(", "))))
        }
    }
}

/// One level of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelRun {
    /// Its name.
    pub level: String,
    /// Boot id of the kernel that answered.
    pub boot_id: Option<String>,
    /// It is not the host's.
    pub own_kernel: bool,
    /// Release of that kernel.
    pub kernel: Option<String>,
    /// FNV-1a of the probe program as the level showed it.
    pub program_fnv: Option<String>,
    /// Status with which the probe program ended.
    pub status: u8,
}

/// The configuration that was probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Memory limit, RAM of the guest.
    pub memory_bytes: u64,
    /// CPUs.
    pub cpus: u32,
    /// Most processes of a container.
    pub pids: u32,
    /// No writable overlay.
    pub read_only: bool,
    /// Memory that the guest frees returns to the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub free_page_reporting: bool,
    /// User and group inside.
    pub user: String,
    /// Guest kernel, where one was asked for.
    pub kernel: Option<String>,
}

/// The program that looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// SHA-256 of the one program that ran at every level.
    pub sha256: String,
    /// FNV-1a of it: what the levels tell of their own file.
    pub fnv: String,
}

/// Something that was planted on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlantedFact {
    /// What.
    pub what: String,
    /// Where, or how it is called.
    pub value: String,
}

/// A probe run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// This program.
    pub tool: Tool,
    /// When it began, nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// The command line.
    pub argv: Vec<String>,
    /// The machine that the levels share, or not.
    pub host: Host,
    /// Its boot.
    pub boot_id: Option<String>,
    /// Name of the image.
    pub image: String,
    /// Digest of its file.
    pub image_digest: String,
    /// The probe program.
    pub program: Program,
    /// The configuration.
    pub config: Config,
    /// SHA-256 of the configuration and the image's digest: a result is about these.
    pub config_digest: String,
    /// What was planted.
    pub planted: Vec<PlantedFact>,
    /// The levels, in the order of the table.
    pub levels: Vec<LevelRun>,
    /// The cells, by probe and then by level.
    pub cells: Vec<Cell>,
}

/// A record that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ProbeRecordError {
    /// Not of this form.
    #[error("read a probe record")]
    Read(#[source] serde_json::Error),
    /// Of another version.
    #[error("the record is {0:?}, not {SCHEMA}")]
    Schema(String),
    /// Can't be written.
    #[error("write a probe record")]
    Write(#[source] serde_json::Error),
}

impl ProbeRecord {
    /// As JSON, with its last newline.
    ///
    /// # Errors
    /// Never for plain data.
    pub fn to_json(&self) -> Result<String, ProbeRecordError> {
        isolab_images::escape::json(self).map(|text| text + "\n").map_err(ProbeRecordError::Write)
    }

    /// From JSON.
    ///
    /// # Errors
    /// Not such a record, or of another version.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ProbeRecordError> {
        let record: Self = serde_json::from_slice(bytes).map_err(ProbeRecordError::Read)?;
        if record.schema == SCHEMA { Ok(record) } else { Err(ProbeRecordError::Schema(record.schema)) }
    }

    /// The cell of a probe at a level.
    #[must_use]
    pub fn cell(&self, probe: &str, level: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.probe == probe && cell.level == level)
    }

    /// Cells with a verdict.
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.verdict == verdict)
    }

    /// The published rows that were probed, in their order.
    pub fn rows(&self) -> impl Iterator<Item = &'static Row> {
        table::ROWS.iter().filter(|row| self.cells.iter().any(|cell| cell.probe == row.id))
    }

    /// Every cell is as published.
    #[must_use]
    pub fn as_published(&self) -> bool {
        self.cells.iter().all(|cell| cell.verdict == Verdict::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, outcome: Outcome) -> ItemRecord {
        ItemRecord { item: name.into(), outcome, reason: None, seen: None, host_truth: None }
    }

    fn expect(outcome: Expected, items: Option<&'static [&'static str]>) -> Expect {
        Expect { outcome, items, means: "" }
    }

    fn verdict(level: &str, items: &[ItemRecord], expect: &Expect) -> Verdict {
        judge(level, Cell::outcome_of(items), items, expect).0
    }

    #[test]
    fn what_is_reached_or_unknown_is_never_hidden_by_what_is_blocked() {
        let (reached, unknown, blocked) =
            (item("a", Outcome::Reached), item("b", Outcome::Unknown), item("c", Outcome::Blocked));
        assert_eq!(Cell::outcome_of(&[blocked.clone(), reached, unknown.clone()]), Outcome::Reached);
        assert_eq!(Cell::outcome_of(&[blocked.clone(), unknown]), Outcome::Unknown);
        assert_eq!(Cell::outcome_of(&[blocked, item("d", Outcome::NotApplicable)]), Outcome::Blocked);
        assert_eq!(Cell::outcome_of(&[]), Outcome::NotApplicable);
    }

    #[test]
    fn a_cell_that_is_not_as_published_is_a_finding() {
        let blocked = expect(Expected::Blocked, None);
        let reached = expect(Expected::Reached, Some(&["known"]));
        assert_eq!(verdict("container", &[item("x", Outcome::Reached)], &blocked), Verdict::Finding);
        assert_eq!(verdict("container", &[item("x", Outcome::Blocked)], &blocked), Verdict::Ok);
        assert_eq!(verdict("container", &[item("known", Outcome::Reached)], &reached), Verdict::Ok);
        assert_eq!(verdict("container", &[item("more", Outcome::Reached)], &reached), Verdict::Finding);
        assert_eq!(verdict("container", &[item("known", Outcome::Blocked)], &reached), Verdict::Finding);
        assert_eq!(verdict("vm", &[item("x", Outcome::Unknown)], &blocked), Verdict::Unknown);
        let but = expect(Expected::Blocked, Some(&["known"]));
        assert_eq!(verdict("container", &[item("x", Outcome::Blocked)], &but), Verdict::Ok);
        assert_eq!(verdict("container", &[item("known", Outcome::Reached)], &but), Verdict::Ok);
        let both = [item("known", Outcome::Reached), item("more", Outcome::Reached)];
        assert_eq!(verdict("container", &both, &but), Verdict::Finding);
        let none = expect(Expected::NotApplicable, None);
        assert_eq!(verdict("container", &[item("x", Outcome::Blocked)], &none), Verdict::Finding);
    }

    #[test]
    fn a_baseline_that_reaches_less_is_no_finding_but_is_told() {
        let expect = expect(Expected::Reached, None);
        let items = [item("x", Outcome::Blocked)];
        let (verdict, note) = judge(BASELINE, Outcome::Blocked, &items, &expect);
        assert_eq!(verdict, Verdict::Ok);
        assert!(note.is_some_and(|note| note.contains("refuses it to isolab itself")));
    }

    #[test]
    fn rows_have_ids_of_their_own() {
        let mut ids: Vec<&str> = table::ROWS.iter().map(|row| row.id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
