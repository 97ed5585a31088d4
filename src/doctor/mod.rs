//! `isolab doctor`: what this host can do for each level, why not, and the remedy.

mod cgroup;
mod command;
mod facts;
mod fix;
mod levels;
mod text;

use std::path::PathBuf;

use isolab_vmm::probe::{self, KvmReport};
use serde::{Deserialize, Serialize};

use crate::hint::{self, Hint};

pub(crate) use self::command::command;
use self::facts::Userns;
pub use self::facts::{Facts, environment, find_program};
pub use self::fix::{FixError, Plan, Scope, fix, plan};

/// The result of `isolab doctor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Format of this report.
    pub schema: String,
    /// Version of isolab.
    pub isolab: String,
    /// `hardware`, `nested`, `shadow`, `software`, `none`, or `emulated-lab`.
    pub host_class: String,
    /// This isolab runs in the lab.
    pub lab: bool,
    /// The host.
    pub facts: Facts,
    /// What is behind `/dev/kvm`.
    pub kvm: KvmReport,
    /// The guest kernel entry `stock`.
    pub stock_kernel: StockKernel,
    /// Each level, in each place.
    pub levels: Vec<LevelReport>,
}

/// The guest kernel that is used without `--kernel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StockKernel {
    /// Where it is, or would be.
    pub path: PathBuf,
    /// It is there.
    pub present: bool,
}

/// One level in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelReport {
    /// `process`, `container` or `vm`.
    pub level: String,
    /// Where.
    pub on: Place,
    /// Whether it can run.
    pub state: State,
    /// Why not or what is limited, the gravest first; empty where all is well.
    pub problems: Vec<Problem>,
    /// What was looked at.
    pub evidence: Vec<Check>,
}

/// Where a level runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// On this machine.
    Host,
    /// In the emulated lab machine.
    Lab,
}

/// Whether a level can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// In full.
    Ok,
    /// It runs, but something is missing.
    Limited,
    /// It can't run.
    No,
}

/// One problem of a level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// `limited` or `no`.
    pub state: State,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What.
    pub check: String,
    /// What was seen.
    pub observed: String,
    /// Good enough for the level in full.
    pub ok: bool,
}

/// What the doctor is told by the rest of isolab.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The store's directory of the kernel entry `stock`.
    pub stock_kernel: PathBuf,
    /// This isolab runs in the lab ([`hint::in_lab`]).
    pub lab: bool,
}

impl Report {
    /// 0 where every level can run somewhere, host or lab, else 1.
    #[must_use]
    pub fn status(&self) -> u8 {
        let lab = self.in_lab_state() != State::No;
        let runs = |level: &LevelReport| level.state != State::No || (lab && level.on == Place::Host);
        u8::from(!self.levels.iter().filter(|level| level.on == Place::Host).all(runs))
    }

    /// The state of the lab, which runs every level.
    fn in_lab_state(&self) -> State {
        self.levels.iter().find(|level| level.on == Place::Lab).map_or(State::No, |level| level.state)
    }

    /// As JSON, with a final line feed.
    ///
    /// # Errors
    /// None in practice: every key is a string.
    pub fn json(&self) -> serde_json::Result<String> {
        isolab_images::escape::json(self).map(|text| text + "\n")
    }

    /// As text for people, of aligned lines.
    #[must_use]
    pub fn text(&self) -> String {
        text::render(self)
    }
}

/// Why this user can't make user namespaces, by the settings that say it for certain.
pub(crate) fn userns_off() -> Option<hint::UsernsOff> {
    // AppArmor's setting does not hold for programs with a profile of their own.
    let settings = Userns { apparmor_restricted: None, ..facts::userns_settings() };
    levels::userns_problem(&settings, true)
}

/// Whether AppArmor takes the privileges of user namespaces away from this user's programs without a profile.
pub(crate) fn apparmor_restricts() -> bool {
    !rustix::process::geteuid().is_root() && facts::userns_settings().apparmor_restricted == Some(1)
}

/// Whether an outer container hides parts of `/proc`.
pub(crate) fn proc_is_masked() -> bool {
    facts::proc_is_masked()
}

/// Why there is only one user inside the instances of this user.
pub(crate) fn one_id() -> Hint {
    // Also without the programs: a range is of no use then, and who installs them gets both hints in turn.
    if facts::id_map_helpers() { hint::no_subuid() } else { hint::no_uidmap() }
}

/// Why these cgroup controllers can't be used; nothing where nothing speaks against it.
pub(crate) fn cgroup_closed(names: &[&str]) -> Option<Hint> {
    let named = |c: &cgroup::Controller| names.contains(&c.name.as_str());
    let all: Vec<_> = cgroup::controllers().into_iter().filter(named).collect();
    levels::cgroup_hints(&all).into_iter().next()
}

/// Looks at everything; changes nothing.
#[must_use]
pub fn examine(inputs: &Inputs) -> Report {
    let facts = facts::observe();
    let kvm = probe::probe().clone();
    let stock_kernel =
        StockKernel { path: inputs.stock_kernel.clone(), present: inputs.stock_kernel.exists() };
    judge(facts, kvm, stock_kernel, inputs.lab)
}

/// The report of what was seen.
fn judge(facts: Facts, kvm: KvmReport, stock_kernel: StockKernel, lab: bool) -> Report {
    let levels = levels::all(&facts, &kvm, &stock_kernel, lab);
    Report {
        schema: "isolab.doctor/1".to_owned(),
        isolab: env!("CARGO_PKG_VERSION").to_owned(),
        host_class: hint::host_class(&kvm, lab).to_owned(),
        lab,
        facts,
        kvm,
        stock_kernel,
        levels,
    }
}

impl LevelReport {
    fn new(level: &str, on: Place) -> Self {
        Self { level: level.to_owned(), on, state: State::Ok, problems: Vec::new(), evidence: Vec::new() }
    }

    fn saw(&mut self, check: &str, observed: impl Into<String>, ok: bool) {
        self.evidence.push(Check { check: check.to_owned(), observed: observed.into(), ok });
    }

    /// Records something seen, and with it the problem that it makes, if any.
    fn found(&mut self, check: &str, observed: impl Into<String>, problem: Option<(State, Hint)>) {
        self.saw(check, observed, problem.is_none());
        if let Some((state, hint)) = problem {
            self.problem(state, hint);
        }
    }

    /// Records a problem; the gravest stay first.
    fn problem(&mut self, state: State, Hint { reason, remedy }: Hint) {
        self.state = self.state.max(state);
        self.problems.push(Problem { state, reason, remedy });
        self.problems.sort_by_key(|problem| std::cmp::Reverse(problem.state));
    }
}

#[cfg(test)]
mod tests;
