//! The subphases: what a phase consists of, along one critical path, contiguous by construction.
//!
//! Launcher, child, VMM and process 1 stamp the ends of what they do. Sorted by time, each end closes a piece that began at
//! the end before it, so that the pieces of a sample add up to `clean` exactly, and those of a phase to that phase.

use std::collections::BTreeMap;

use isolab_wire::trace::Subphase;
use serde::{Deserialize, Serialize};

use crate::run_report::RunReport;
use crate::timeline::Times;

/// A subphase of an arm, for a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubphaseOf {
    /// Key in `subphase_ns`.
    pub name: String,
    /// What happens in it.
    pub meaning: String,
}

/// The moments that end a subphase, by level.
fn moments(times: &Times, level: &str) -> [(Option<u64>, Subphase); 9] {
    let (begin, init, exec) = match level {
        "vm" if times.resumed.is_some() => (Subphase::VcpuStart, Subphase::Resume, Subphase::GuestInit),
        "vm" => (Subphase::VcpuStart, Subphase::GuestKernel, Subphase::GuestInit),
        _ => (Subphase::Channels, Subphase::ExecInit, Subphase::Privileges),
    };
    [
        (times.main, Subphase::ExecSelf),
        (times.run_begin, begin),
        (times.init, init),
        (times.exec, exec),
        (times.first_user_insn, Subphase::Exec),
        (times.ready, Subphase::WorkloadReady),
        (times.released, Subphase::Reading),
        (times.exit, Subphase::WorkloadRun),
        (times.clean, Subphase::Teardown),
    ]
}

/// The pieces of a timeline in nanoseconds; they sum to [`Times::clean`]. Nothing where none was stamped.
#[must_use]
pub fn subphases(request_ns: u64, report: &RunReport, times: &Times) -> BTreeMap<String, u64> {
    let mut pieces = BTreeMap::new();
    if report.subphases.is_empty() {
        return pieces;
    }
    let clean = times.clean.unwrap_or(0);
    let stamped = report.subphases.iter().filter_map(|(key, at_ns)| {
        // What claims to lie outside of the run is put on its nearer end.
        Some((at_ns.saturating_sub(request_ns).min(clean), Subphase::from_key(key)?))
    });
    let moments = moments(times, &report.level).into_iter().filter_map(|(at, name)| Some((at?, name)));
    let mut ends: Vec<(u64, Subphase)> = stamped.chain(moments).collect();
    // Of two at the same time, the one that comes first in a start is first.
    ends.sort_by_key(|&(at, subphase)| (at, subphase == Subphase::Teardown));
    let mut begin = 0;
    for (end, subphase) in ends {
        *pieces.entry(subphase.key().to_owned()).or_insert(0) += end - begin;
        begin = end;
    }
    pieces
}

/// Names and meanings of the subphases that these maps hold, in the order of a start.
pub fn legend<'a>(maps: impl Iterator<Item = &'a BTreeMap<String, u64>> + Clone) -> Vec<SubphaseOf> {
    let held = |s: &&Subphase| maps.clone().any(|map| map.contains_key(s.key()));
    let of = |s: &Subphase| SubphaseOf { name: s.key().to_owned(), meaning: s.meaning().to_owned() };
    Subphase::ALL.iter().filter(held).map(of).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::run_report::{Detail, EndReport};

    fn report(level: &str, stamps: Vec<(char, u64)>, subphases: &[(&str, u64)], clean_ns: u64) -> RunReport {
        RunReport {
            level: level.to_owned(),
            main_ns: 110,
            stamps,
            subphases: subphases.iter().map(|(key, at)| ((*key).to_owned(), *at)).collect(),
            end: EndReport::Exited(0),
            status: 0,
            memory: None,
            cpu_ns: BTreeMap::new(),
            counters: BTreeMap::new(),
            clean_ns,
            detail: Detail::default(),
        }
    }

    #[test]
    fn pieces_follow_the_stamps_whoever_made_them() {
        let stamps = vec![('B', 130), ('I', 230), ('E', 260), ('W', 262), ('R', 272), ('C', 280), ('X', 300)];
        let child =
            [("namespaces", 180), ("clone", 140), ("image_open", 120), ("idmap", 150), ("masks", 250)];
        let report = report("container", stamps, &child, 350);
        let (times, _) = Times::new(100, &report).expect("stamps in order");
        let pieces: Vec<(String, u64)> = subphases(100, &report, &times).into_iter().collect();
        let expected = [
            ("caps_seccomp", 10),
            ("channels", 10),
            ("clone", 10),
            ("exec", 2),
            ("exec_init", 50),
            ("exec_self", 10),
            ("idmap", 10),
            ("image_open", 10),
            ("masks", 20),
            ("namespaces", 30),
            ("reading", 8),
            ("teardown", 50),
            ("workload_ready", 10),
            ("workload_run", 20),
        ];
        assert_eq!(pieces, expected.map(|(name, ns)| (name.to_owned(), ns)));
    }

    proptest! {
        #[test]
        fn pieces_sum_to_clean_whatever_was_stamped(
            at in prop::collection::vec(0_u64..1 << 40, 0..40),
            keys in prop::collection::vec(0_u8..48, 40),
            level in prop::sample::select(vec!["process", "container", "vm"]),
        ) {
            let stamped: Vec<(&str, u64)> = at.iter().zip(&keys)
                .filter_map(|(at, n)| Some((Subphase::from_number(*n)?.key(), *at))).collect();
            let stamps = vec![('B', 130), ('E', 260), ('R', 272), ('X', 1 << 39)];
            let report = report(level, stamps, &stamped, (1 << 39) + 5);
            let (times, _) = Times::new(100, &report).expect("stamps in order");
            let pieces = subphases(100, &report, &times);
            prop_assert!(pieces.is_empty() == stamped.is_empty());
            if !pieces.is_empty() {
                prop_assert_eq!(Some(pieces.values().sum::<u64>()), times.clean);
            }
        }
    }
}
