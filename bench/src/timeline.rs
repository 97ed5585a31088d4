//! The timeline: stamps from `request` to `clean`, and the contiguous phases between them.
//!
//! A phase is named by the moment that ends it and begins where the one before it ended, so that the phases of a
//! sample add up to `clean` exactly. Where a moment is missing (a command that says nothing of itself), the next
//! phase simply begins earlier. Which phases a level has, and what each means there, is the table below.

use std::collections::BTreeMap;

use isolab_wire::mark::Code;
use serde::{Deserialize, Serialize};

use crate::run_report::RunReport;

/// The moments in nanoseconds from `request`; one that did not happen is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Just before the fresh process was started: 0 by definition.
    pub request: u64,
    /// First line of isolab's `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<u64>,
    /// Just before `clone3` of the instance, or the first `KVM_RUN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_begin: Option<u64>,
    /// The guest's kernel has started process 1 (vm only; the same moment as `init`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_kernel_done: Option<u64>,
    /// The guest of a snapshot has gone on and has its job (vm only; the same moment as `init`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<u64>,
    /// First instruction of process 1; of one that continues from a snapshot, it has its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<u64>,
    /// The workload's `execve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<u64>,
    /// First instruction of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_user_insn: Option<u64>,
    /// The workload says that it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<u64>,
    /// The ready workload goes on: isolab has read its account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<u64>,
    /// The workload's end is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<u64>,
    /// Everything of the instance is freed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<u64>,
}

/// A phase of a level.
#[derive(Clone, Copy, Debug)]
pub struct PhaseKind {
    /// Key in `phase_ns`.
    pub name: &'static str,
    /// What happens in it, for a reader.
    pub meaning: &'static str,
    ends: fn(&Times) -> Option<u64>,
}

const EXEC_SELF: PhaseKind =
    PhaseKind { name: "exec_self", meaning: "start of the isolab process itself", ends: |t| t.main };
const PREPARE: PhaseKind = PhaseKind {
    name: "prepare",
    meaning: "image opened, cgroup made, instance set up by isolab",
    ends: |t| t.run_begin,
};
const ENTER: PhaseKind =
    PhaseKind { name: "enter", meaning: "new process in its namespaces, up to process 1", ends: |t| t.init };
const GUEST_KERNEL: PhaseKind = PhaseKind {
    name: "guest_kernel",
    meaning: "guest kernel boots, up to process 1",
    ends: |t| t.guest_kernel_done,
};
const RESUME: PhaseKind = PhaseKind {
    name: "resume",
    meaning: "guest goes on where its snapshot waits: first faults, job, random numbers, clock",
    ends: |t| t.resumed,
};
const INIT: PhaseKind =
    PhaseKind { name: "init", meaning: "process 1: mounts, limits, privileges", ends: |t| t.exec };
const FORK: PhaseKind =
    PhaseKind { name: "enter", meaning: "new process, up to its execve (process level)", ends: |t| t.exec };
const EXEC: PhaseKind = PhaseKind {
    name: "exec",
    meaning: "execve to the workload's first instruction",
    ends: |t| t.first_user_insn,
};
const WORKLOAD_READY: PhaseKind =
    PhaseKind { name: "workload_ready", meaning: "workload, until it is ready", ends: |t| t.ready };
const READING: PhaseKind = PhaseKind {
    name: "reading",
    meaning: "isolab reads the account of the ready workload, which waits: not part of a result",
    ends: |t| t.released,
};
const WORKLOAD_RUN: PhaseKind =
    PhaseKind { name: "workload_run", meaning: "workload, until its end is known", ends: |t| t.exit };
const TEARDOWN: PhaseKind =
    PhaseKind { name: "teardown", meaning: "processes reaped, memory and cgroup freed", ends: |t| t.clean };

const PROCESS_PHASES: &[PhaseKind] =
    &[EXEC_SELF, PREPARE, FORK, EXEC, WORKLOAD_READY, READING, WORKLOAD_RUN, TEARDOWN];
const VM_PHASES: &[PhaseKind] =
    &[EXEC_SELF, PREPARE, GUEST_KERNEL, INIT, EXEC, WORKLOAD_READY, READING, WORKLOAD_RUN, TEARDOWN];
const RESTORED_PHASES: &[PhaseKind] =
    &[EXEC_SELF, PREPARE, RESUME, INIT, EXEC, WORKLOAD_READY, READING, WORKLOAD_RUN, TEARDOWN];
const INIT_PHASES: &[PhaseKind] =
    &[EXEC_SELF, PREPARE, ENTER, INIT, EXEC, WORKLOAD_READY, READING, WORKLOAD_RUN, TEARDOWN];
/// Every phase of every level, in the order of the timeline: the legend of a report.
pub const ALL_PHASES: &[PhaseKind] = &[
    EXEC_SELF,
    PREPARE,
    ENTER,
    GUEST_KERNEL,
    RESUME,
    INIT,
    EXEC,
    WORKLOAD_READY,
    READING,
    WORKLOAD_RUN,
    TEARDOWN,
];

/// The phases of a level, in order; `restored`: it continues from a snapshot.
#[must_use]
pub fn phases_of(level: &str, restored: bool) -> &'static [PhaseKind] {
    match level {
        "process" => PROCESS_PHASES,
        "vm" if restored => RESTORED_PHASES,
        "vm" => VM_PHASES,
        _ => INIT_PHASES,
    }
}

/// Stamps that can't be one timeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimelineError {
    /// A moment lies before the one that must precede it.
    #[error("order the stamps: {later} at {later_ns} ns lies before {earlier} at {earlier_ns} ns")]
    Order {
        /// The moment that should come first.
        earlier: &'static str,
        /// When it was.
        earlier_ns: u64,
        /// The moment that should come second.
        later: &'static str,
        /// When it was.
        later_ns: u64,
    },
}

impl Times {
    /// The timeline of a report, relative to `request_ns`, and by how much a late mark was moved (mostly 0).
    ///
    /// A mark from inside may be stamped where it is read, which is never before it happened: if the next mark
    /// carries a stamp of its own, that one is the tighter bound, and the late one is moved back to it.
    ///
    /// # Errors
    /// [`TimelineError::Order`]: a moment before its predecessor beyond that. Such a sample has no timeline at all.
    pub fn new(request_ns: u64, report: &RunReport) -> Result<(Self, u64), TimelineError> {
        let mut moments = [
            ("main", Some(report.main_ns)),
            ("run_begin", report.at(Code::RunBegin)),
            ("init", report.at(Code::Init)),
            ("exec", report.at(Code::Exec)),
            ("first_user_insn", report.at(Code::Work)),
            ("ready", report.at(Code::Ready)),
            ("released", report.at(Code::Released)),
            ("exit", report.at(Code::Exit)),
            ("clean", Some(report.clean_ns)),
        ];
        let moved_ns = move_late_marks(&mut moments);
        let mut before = ("request", request_ns);
        let mut from_request = [None; MOMENTS];
        for (slot, (name, at)) in from_request.iter_mut().zip(moments) {
            let Some(at) = at else { continue };
            if at < before.1 {
                let (earlier, earlier_ns) = before;
                return Err(TimelineError::Order { earlier, earlier_ns, later: name, later_ns: at });
            }
            before = (name, at);
            *slot = Some(at - request_ns);
        }
        let [main, run_begin, init, exec, first_user_insn, ready, released, exit, clean] = from_request;
        let of_guest = init.filter(|_| report.level == "vm");
        let restored = report.detail.is_restored();
        let (guest_kernel_done, resumed) = if restored { (None, of_guest) } else { (of_guest, None) };
        let request = 0;
        let times = Self {
            request,
            main,
            run_begin,
            guest_kernel_done,
            resumed,
            init,
            exec,
            first_user_insn,
            ready,
            released,
            exit,
            clean,
        };
        Ok((times, moved_ns))
    }

    /// [`Times::clean`] without the time in which the ready workload waited for isolab to read its account.
    #[must_use]
    pub fn clean_without_reading(&self) -> Option<u64> {
        let held =
            self.released.zip(self.ready).map_or(0, |(released, ready)| released.saturating_sub(ready));
        Some(self.clean?.saturating_sub(held))
    }

    /// The phases, in nanoseconds; they sum to [`Times::clean`] exactly.
    #[must_use]
    pub fn phases(&self, level: &str) -> BTreeMap<String, u64> {
        let mut begin = 0;
        let mut phases = BTreeMap::new();
        for kind in phases_of(level, self.resumed.is_some()) {
            if let Some(end) = (kind.ends)(self) {
                phases.insert(kind.name.to_owned(), end.saturating_sub(begin));
                begin = end;
            }
        }
        phases
    }
}

/// Moments of a timeline after the request.
const MOMENTS: usize = 9;

/// Longest time for which a mark may wait to be read: beyond it, the stamps are wrong and not late.
const MAX_LATE_NS: u64 = 1_000_000;

/// Moves each mark from inside that is later than its successor back to it; the largest move.
fn move_late_marks(moments: &mut [(&str, Option<u64>); MOMENTS]) -> u64 {
    let mut moved_ns = 0;
    let mut next = None;
    for (name, at) in moments.iter_mut().rev() {
        let from_inside = matches!(*name, "init" | "exec" | "first_user_insn" | "ready");
        if let (true, Some(own), Some(next)) = (from_inside, *at, next)
            && own > next
            && own - next <= MAX_LATE_NS
        {
            moved_ns = moved_ns.max(own - next);
            *at = Some(next);
        }
        next = at.or(next);
    }
    moved_ns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run_report::{Detail, EndReport};

    fn report(level: &str, main_ns: u64, stamps: Vec<(char, u64)>, clean_ns: u64) -> RunReport {
        let (level, end, detail) = (level.to_owned(), EndReport::Exited(0), Detail::default());
        RunReport {
            level,
            main_ns,
            stamps,
            subphases: vec![],
            end,
            status: 0,
            memory: None,
            cpu_ns: BTreeMap::new(),
            counters: BTreeMap::new(),
            clean_ns,
            detail,
        }
    }

    #[test]
    fn a_full_vm_run_gives_the_phases_between_its_stamps() {
        let stamps = vec![('B', 130), ('I', 230), ('E', 260), ('W', 262), ('R', 272), ('X', 300)];
        let (times, moved_ns) = Times::new(100, &report("vm", 110, stamps, 350)).expect("stamps in order");
        assert_eq!(moved_ns, 0);
        let expected = [
            ("exec", 2),
            ("exec_self", 10),
            ("guest_kernel", 100),
            ("init", 30),
            ("prepare", 20),
            ("teardown", 50),
            ("workload_ready", 10),
            ("workload_run", 28),
        ];
        let phases: Vec<(String, u64)> = times.phases("vm").into_iter().collect();
        assert_eq!(phases, expected.map(|(name, ns)| (name.to_owned(), ns)));
        assert_eq!(times.guest_kernel_done, Some(130));
    }

    #[test]
    fn a_missing_moment_lengthens_the_phase_after_it() {
        let stamps = vec![('B', 130), ('E', 260), ('X', 300)];
        let (times, _) = Times::new(100, &report("process", 110, stamps, 350)).expect("stamps in order");
        assert_eq!(times.phases("process")["workload_run"], 40);
        assert_eq!(times.first_user_insn, None);
    }

    #[test]
    fn a_mark_that_was_read_late_moves_back_to_the_next_one_and_no_further_than_a_millisecond() {
        let late = |exec| {
            let stamps = vec![('B', 130), ('I', 140), ('E', exec), ('W', 200), ('X', 300)];
            Times::new(100, &report("container", 110, stamps, 3_000_000))
        };
        let (times, moved_ns) = late(250).expect("50 ns late");
        assert_eq!((times.exec, times.first_user_insn, moved_ns), (Some(100), Some(100), 50));
        let error = late(1_000_201).expect_err("more than a millisecond late");
        assert!(matches!(error, TimelineError::Order { later: "first_user_insn", .. }));
    }

    #[test]
    fn refuses_a_moment_before_its_predecessor() {
        let stamps = vec![('B', 130), ('I', 120)];
        let error = Times::new(100, &report("vm", 110, stamps, 350)).expect_err("init before run_begin");
        assert_eq!(error.to_string(), "order the stamps: init at 120 ns lies before run_begin at 130 ns");
    }

    proptest! {
        #[test]
        fn phases_sum_to_clean_exactly(
            request in 0_u64..1 << 40,
            steps in prop::array::uniform9(0_u64..1 << 40),
            present in prop::array::uniform7(any::<bool>()),
            level in prop::sample::select(vec!["process", "container", "vm", "other"]),
        ) {
            let mut at = request + steps[0];
            let main = at;
            let mut stamps = Vec::new();
            for (i, letter) in ['B', 'I', 'E', 'W', 'R', 'C', 'X'].into_iter().enumerate() {
                at += steps[i + 1];
                if present[i] { stamps.push((letter, at)); }
            }
            let (times, _) = Times::new(request, &report(level, main, stamps, at + steps[8])).expect("in order");
            prop_assert_eq!(Some(times.phases(level).values().sum::<u64>()), times.clean);
        }
    }
}
