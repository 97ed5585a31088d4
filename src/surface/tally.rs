//! Whose events they are, and what each party asked for.

use std::collections::{BTreeMap, BTreeSet};

use isolab_bench::surface::{Door, Party, Reached};
use isolab_container::seccomp::name;

use super::events::{Event, What};

/// `ioctl`, and the requests of KVM that tell where a monitor is (kernel doc: virt/kvm/api).
const IOCTL: u32 = 16;
const KVM_RUN: u64 = 0xae80;

/// Calls that are many in one: number, and which argument says what is asked for.
const WITH_REQUESTS: [(u32, usize); 7] = [
    (IOCTL, 1),
    // fcntl, prctl, futex, socket, setsockopt, madvise.
    (72, 1),
    (157, 0),
    (202, 1),
    (41, 0),
    (54, 2),
    (28, 2),
];

/// Where the command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// So many others of isolab's become programs before the command does.
    Programs(usize),
    /// The command runs in a guest.
    Guest,
}

/// Whose the launcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Launcher {
    /// The first process that this thread of ours made.
    StartedBy(u32),
    /// This thread itself.
    Is(u32),
}

/// What one run asked for.
#[derive(Debug, Default)]
struct OneRun {
    entered: BTreeMap<Party, BTreeMap<u32, u64>>,
    requests: BTreeMap<Party, BTreeSet<(u32, u64)>>,
    refused: BTreeMap<Party, BTreeSet<u32>>,
    exits: u64,
    outs: u64,
}

/// What all runs of a level asked for.
#[derive(Debug)]
pub(super) struct Tally {
    shape: Shape,
    runs: Vec<OneRun>,
    exits: BTreeSet<String>,
    reasons: BTreeSet<String>,
    ports: BTreeSet<u64>,
    registers: BTreeSet<u64>,
}

impl Tally {
    pub(super) const fn new(shape: Shape) -> Self {
        Self {
            shape,
            runs: Vec::new(),
            exits: BTreeSet::new(),
            reasons: BTreeSet::new(),
            ports: BTreeSet::new(),
            registers: BTreeSet::new(),
        }
    }

    /// Adds the events of one run.
    ///
    /// # Errors
    /// Where the trace does not hold the command's beginning.
    pub(super) fn add(&mut self, events: &[Event], launcher: Launcher) -> Result<(), &'static str> {
        let mut run = OneRun::default();
        let mut roles = Roles::new(self.shape, launcher);
        // A call that is refused ends without having begun.
        let mut begun: BTreeMap<u32, u32> = BTreeMap::new();
        let mut seen: BTreeSet<u32> = BTreeSet::new();
        for Event { task, what } in events {
            roles.learn(*task, what);
            let first = seen.insert(*task);
            let Some(party) = roles.party(*task) else { continue };
            match what {
                What::Enter { number, arguments } => {
                    begun.insert(*task, *number);
                    *run.entered.entry(party).or_default().entry(*number).or_default() += 1;
                    if let Some((_, argument)) = WITH_REQUESTS.iter().find(|(known, _)| known == number) {
                        // The kernel takes the low 32 bits.
                        let request = arguments[*argument] & u64::from(u32::MAX);
                        run.requests.entry(party).or_default().insert((*number, request));
                    }
                }
                What::Exit { number, value } => {
                    let returned = begun.remove(task) == Some(*number) || became_program(*number, *value);
                    // The first event of a new thread is the end of the call that made it.
                    if !returned && !first {
                        run.refused.entry(party).or_default().insert(*number);
                    }
                }
                What::Left { reason } => {
                    run.exits += 1;
                    self.exits.insert(reason.clone());
                }
                What::Out { reason } => {
                    run.outs += 1;
                    self.reasons.insert(reason.clone());
                }
                What::Port { port } => drop(self.ports.insert(*port)),
                What::Register { address } => drop(self.registers.insert(*address)),
                What::Fork { .. } => {}
            }
        }
        if !roles.command_began {
            return Err("the trace does not hold the beginning of the command");
        }
        self.runs.push(run);
        Ok(())
    }

    /// What each party that there is asked for.
    pub(super) fn reached(&self) -> Vec<Reached> {
        let parties: &[Party] = match self.shape {
            Shape::Programs(_) => &[Party::Workload, Party::Isolab],
            // The workload's calls are its own kernel's, and none of this trace.
            Shape::Guest => &[Party::Processors, Party::Devices, Party::Isolab],
        };
        parties.iter().map(|party| self.of(*party)).collect()
    }

    fn of(&self, party: Party) -> Reached {
        let mut known = BTreeSet::new();
        let (mut distinct, mut total, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for run in &self.runs {
            let entered = run.entered.get(&party);
            let calls: BTreeSet<u32> = entered.into_iter().flat_map(|calls| calls.keys().copied()).collect();
            distinct.push(calls.len());
            total.push(entered.map_or(0, |calls| calls.values().sum()));
            new.push(calls.difference(&known).count());
            known.extend(calls);
        }
        let requests: BTreeSet<(u32, u64)> =
            self.runs.iter().filter_map(|run| run.requests.get(&party)).flatten().copied().collect();
        let refused: BTreeSet<u32> =
            self.runs.iter().filter_map(|run| run.refused.get(&party)).flatten().copied().collect();
        Reached {
            party,
            calls: known.iter().map(|number| name(*number)).collect(),
            requests: requests
                .iter()
                .map(|(call, request)| format!("{} {request:#x}", name(*call)))
                .collect(),
            refused: refused.iter().map(|number| name(*number)).collect(),
            distinct,
            total,
            new,
        }
    }

    /// What the guest touched.
    pub(super) fn door(&self) -> Option<Door> {
        let hex = |numbers: &BTreeSet<u64>| numbers.iter().map(|number| format!("{number:#x}")).collect();
        let words = |words: &BTreeSet<String>| words.iter().cloned().collect();
        (self.shape == Shape::Guest).then(|| Door {
            exits: words(&self.exits),
            exit_counts: self.runs.iter().map(|run| run.exits).collect(),
            reasons: words(&self.reasons),
            reason_counts: self.runs.iter().map(|run| run.outs).collect(),
            ports: hex(&self.ports),
            registers: hex(&self.registers),
        })
    }
}

/// Whether it is the return of `execve` or `execveat` as another program (whichever it was, some kernels tell the first).
const fn became_program(number: u32, value: i64) -> bool {
    matches!(number, 59 | 322) && value == 0
}

/// Which thread belongs to which party.
#[derive(Debug)]
pub(super) struct Roles {
    shape: Shape,
    /// Who makes the launcher, first of all.
    starter: Option<u32>,
    /// Who made whom.
    parents: BTreeMap<u32, u32>,
    /// isolab's own, as far as its threads and processes are known.
    isolab: BTreeSet<u32>,
    workload: BTreeSet<u32>,
    processors: BTreeSet<u32>,
    devices: Option<u32>,
    programs: usize,
    /// The command's first instruction is behind.
    pub(super) command_began: bool,
}

impl Roles {
    pub(super) fn new(shape: Shape, launcher: Launcher) -> Self {
        let (starter, launcher) = match launcher {
            Launcher::StartedBy(ours) => (Some(ours), None),
            Launcher::Is(ours) => (None, Some(ours)),
        };
        Self {
            shape,
            starter,
            parents: BTreeMap::new(),
            isolab: launcher.into_iter().collect(),
            workload: BTreeSet::new(),
            processors: BTreeSet::new(),
            devices: None,
            programs: 0,
            command_began: false,
        }
    }

    /// Takes in what an event tells.
    pub(super) fn learn(&mut self, task: u32, what: &What) {
        match (what, self.shape) {
            (What::Fork { child }, _) => {
                self.parents.insert(*child, task);
                if self.starter == Some(task) {
                    // What reads the run's output comes after it.
                    if self.isolab.is_empty() {
                        self.isolab.insert(*child);
                    }
                } else if self.workload.contains(&task) {
                    self.workload.insert(*child);
                } else if self.isolab.contains(&task) {
                    self.isolab.insert(*child);
                }
            }
            (What::Exit { number, value }, Shape::Programs(before))
                if became_program(*number, *value) && self.isolab.contains(&task) =>
            {
                self.programs += 1;
                if self.programs > before {
                    self.isolab.remove(&task);
                    self.workload.insert(task);
                    self.command_began = true;
                }
            }
            (What::Enter { number: IOCTL, arguments: [_, request, _] }, Shape::Guest)
                if *request == KVM_RUN && self.isolab.contains(&task) =>
            {
                self.processors.insert(task);
                self.devices = self.parents.get(&task).copied();
                self.command_began = true;
            }
            _ => {}
        }
    }

    /// Whose it is now.
    pub(super) fn party(&self, task: u32) -> Option<Party> {
        if self.workload.contains(&task) {
            Some(Party::Workload)
        } else if self.processors.contains(&task) {
            Some(Party::Processors)
        } else if self.devices == Some(task) {
            Some(Party::Devices)
        } else {
            self.isolab.contains(&task).then_some(Party::Isolab)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(task: u32, what: What) -> Event {
        Event { task, what }
    }
    fn enter(task: u32, number: u32, request: u64) -> Event {
        event(task, What::Enter { number, arguments: [0, request, 0] })
    }
    fn exit(task: u32, number: u32) -> Event {
        event(task, What::Exit { number, value: -1 })
    }
    /// The task becomes another program.
    fn exec(task: u32) -> Event {
        event(task, What::Exit { number: 59, value: 0 })
    }
    fn fork(task: u32, child: u32) -> Event {
        event(task, What::Fork { child })
    }

    /// We are 1; isolab is 10, process 1 is 11, the command 12 and its child 13.
    fn container() -> Vec<Event> {
        vec![
            fork(1, 10),
            exec(10),
            enter(10, 257, 0),
            exit(10, 257),
            fork(1, 2),
            enter(2, 0, 0),
            fork(10, 11),
            exit(11, 435),
            enter(11, 322, 0),
            exec(11),
            fork(11, 12),
            exit(12, 56),
            enter(12, 59, 0),
            exec(12),
            enter(12, 1, 0),
            exit(12, 1),
            exit(12, 175),
            fork(12, 13),
            enter(13, 39, 0),
            exit(13, 39),
        ]
    }

    #[test]
    fn calls_are_of_the_command_from_its_beginning_on() {
        let mut tally = Tally::new(Shape::Programs(2));
        tally.add(&container(), Launcher::StartedBy(1)).expect("a whole trace");
        tally.add(&container(), Launcher::StartedBy(1)).expect("a whole trace");
        let [workload, isolab] = &tally.reached()[..] else { panic!("two parties") };
        assert_eq!(workload.calls, ["write", "getpid"]);
        assert_eq!(workload.refused, ["init_module"]);
        assert_eq!((&workload.distinct[..], &workload.new[..]), (&[2, 2][..], &[2, 0][..]));
        // What became the command asked for that while it was isolab's.
        assert_eq!(isolab.calls, ["execve", "openat", "execveat"]);
        assert!(isolab.refused.is_empty(), "{isolab:?}");
        assert_eq!(isolab.total, [3, 3]);
    }

    #[test]
    fn a_launcher_in_our_own_process_is_isolab_too() {
        let events = [
            enter(10, 257, 0),
            exit(10, 257),
            fork(10, 11),
            exec(11),
            fork(11, 12),
            exec(12),
            enter(12, 39, 0),
        ];
        let mut tally = Tally::new(Shape::Programs(1));
        tally.add(&events, Launcher::Is(10)).expect("a whole trace");
        let [workload, isolab] = &tally.reached()[..] else { panic!("two parties") };
        assert_eq!(
            (&workload.calls[..], &isolab.calls[..]),
            (&["getpid".to_owned()][..], &["openat".to_owned()][..])
        );
    }

    #[test]
    fn a_trace_without_the_command_is_none() {
        let events = &container()[..8];
        Tally::new(Shape::Programs(2)).add(events, Launcher::StartedBy(1)).expect_err("no command");
        Tally::new(Shape::Guest).add(&container(), Launcher::StartedBy(1)).expect_err("no guest");
    }

    #[test]
    fn threads_of_the_monitor_are_told_apart_once_the_guest_runs() {
        let events = [
            fork(1, 10),
            exec(10),
            fork(10, 20),
            enter(20, IOCTL, 0xae01),
            exit(20, IOCTL),
            fork(20, 21),
            enter(21, 317, 1),
            exit(21, 317),
            enter(21, IOCTL, KVM_RUN),
            event(21, What::Out { reason: "io".into() }),
            event(21, What::Port { port: 0x80 }),
            exit(21, IOCTL),
            enter(20, 7, 0),
            enter(10, 61, 0),
        ];
        let mut tally = Tally::new(Shape::Guest);
        tally.add(&events, Launcher::StartedBy(1)).expect("a guest");
        let reached = tally.reached();
        let of = |party| reached.iter().find(|r| r.party == party).expect("a party");
        assert!(reached.iter().all(|r| r.party != Party::Workload), "{reached:?}");
        assert_eq!(of(Party::Processors).requests, ["ioctl 0xae80"]);
        assert_eq!(of(Party::Devices).calls, ["poll"]);
        assert_eq!(of(Party::Isolab).calls, ["ioctl", "wait4", "seccomp"]);
        let door = tally.door().expect("a guest has one");
        assert_eq!((&door.reasons[..], &door.ports[..]), (&["io".to_owned()][..], &["0x80".to_owned()][..]));
    }
}
