//! One sample: one whole run in a fresh process, as the record keeps it. Failed runs are kept as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::conditions::Conditions;
use crate::plan::Slot;
use crate::port::MemoryReading;
use crate::run_report::{Detail, EndReport, RunReport};
use crate::subphase::subphases;
use crate::timeline::Times;

/// Value of [`MemBytes::at`]: read when the workload said that it was ready.
pub const READY: &str = "ready";

/// Exit status of a run that its deadline ended.
const DEADLINE: u8 = 124;

/// What the executor knows of one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// `CLOCK_MONOTONIC` ns just before the fresh process was started.
    pub request_ns: u64,
    /// What the process reported.
    pub report: RunReport,
    /// SHA-256 of its standard output, 64 hex digits.
    pub stdout_sha256: String,
    /// SHA-256 of its standard error, 64 hex digits.
    pub stderr_sha256: String,
    /// Its last line on standard error, where that is isolab's own.
    pub complaint: Option<String>,
    /// What was so before it.
    pub conditions: Conditions,
}

/// One run of one arm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Number in the order of execution.
    pub seq: u32,
    /// The pair it belongs to.
    pub pair: u32,
    /// Place inside the pair.
    pub pos: u32,
    /// The arm.
    pub arm: String,
    /// Stored and not analysed.
    pub warmup: bool,
    /// The second run of the base arm in its pair: only for setting the arm against itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub control: bool,
    /// The workload ran to an end of its own and the timeline is one.
    pub ok: bool,
    /// Moments from `request`; absent where the stamps are not one timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t_ns: Option<Times>,
    /// Contiguous phases; they sum to `clean`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phase_ns: BTreeMap<String, u64>,
    /// What the phases consist of, along one critical path; they sum to `clean` as well.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subphase_ns: BTreeMap<String, u64>,
    /// What the instance's cgroup was charged; absent where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_bytes: Option<MemBytes>,
    /// CPU time when it was ready: `instance`, all of its processes; `tasks`, the same as its live threads tell it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cpu_ns: BTreeMap<String, u64>,
    /// Counters when it was ready: faults, switches, exits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    /// Exit status as the shell sees it; absent where nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// How the instance ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EndReport>,
    /// Digest of standard output: the same work was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_sha256: Option<String>,
    /// Digest of standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_sha256: Option<String>,
    /// Facts of this instance.
    #[serde(default)]
    pub detail: Detail,
    /// Under what conditions it was taken.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// What went wrong where nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Doubts about this sample.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// The charge of the instance's own cgroup, in bytes; a part that the kernel does not tell is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemBytes {
    /// When it was read: [`READY`], or `exit` for a command that never says so. Then only the peak can be compared: at
    /// the end, one level's processes are gone and another's are not.
    pub at: String,
    /// Counter: `memcg-v1` or `memcg-v2`. Numbers of different counters are not compared.
    pub source: String,
    /// All that is charged.
    pub memcg_current: u64,
    /// Anonymous memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    /// Page cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    /// Kernel memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<u64>,
    /// High-water mark.
    pub peak: u64,
    /// Charged bytes that no part names. Where the parts are more than the charge, 0, and a flag says so.
    #[serde(default)]
    pub remainder: u64,
    /// Parts of the parts, and what the processes say; what is not known is absent.
    #[serde(flatten)]
    pub parts: BTreeMap<String, u64>,
}

impl MemBytes {
    /// Charged bytes that no part names.
    #[must_use]
    pub fn rest(&self) -> u64 {
        self.memcg_current.saturating_sub(self.named())
    }

    /// Bytes that the parts name. Sockets' buffers are a part of their own on version 2.
    #[must_use]
    pub fn named(&self) -> u64 {
        let sock = self.parts.get("sock").copied();
        [self.anon, self.file, self.kernel, sock].into_iter().flatten().fold(0, u64::saturating_add)
    }
}

impl Sample {
    /// The sample of an execution.
    #[must_use]
    pub fn new(slot: &Slot, execution: Execution) -> Self {
        let Execution { request_ns, report, stdout_sha256, stderr_sha256, complaint, conditions } = execution;
        let mut flags = Vec::new();
        let t_ns = match Times::new(request_ns, &report) {
            Ok((times, moved_ns)) => {
                if moved_ns > 0 {
                    flags.push(format!(
                        "stamps: a mark read {moved_ns} ns late was moved to the one after it"
                    ));
                }
                Some(times)
            }
            Err(error) => {
                flags.push(error.to_string());
                None
            }
        };
        let phase_ns = t_ns.as_ref().map(|t| t.phases(&report.level)).unwrap_or_default();
        let subphase_ns = t_ns.as_ref().map(|t| subphases(request_ns, &report, t)).unwrap_or_default();
        let has_ready = t_ns.as_ref().is_some_and(|t| t.ready.is_some());
        let mem_bytes = report.memory.as_ref().map(|m| mem_bytes(m, has_ready));
        if mem_bytes.as_ref().is_some_and(|m| m.named() > m.memcg_current) {
            flags.push("memory: parts exceed the charge (read one after the other)".to_owned());
        }
        let ran = match report.end {
            EndReport::Exited(_) | EndReport::Signalled(_) => true,
            EndReport::OutOfMemory => flag(&mut flags, "killed for memory".to_owned()),
            EndReport::Killed if report.status == DEADLINE => {
                flag(&mut flags, "ended by the deadline of --timeout".to_owned())
            }
            EndReport::Killed => flag(&mut flags, "killed by isolab (deadline or interrupt)".to_owned()),
            EndReport::Failed(step, errno) => {
                // Nothing of the workload ran: what stands on standard error is isolab's.
                let plain = || format!("step {step} before the workload failed with errno {errno}");
                flag(&mut flags, complaint.unwrap_or_else(plain))
            }
        };
        Self {
            ok: ran && t_ns.is_some(),
            t_ns,
            phase_ns,
            subphase_ns,
            mem_bytes,
            cpu_ns: report.cpu_ns,
            counters: report.counters,
            status: Some(report.status),
            end: Some(report.end),
            stdout_sha256: Some(stdout_sha256),
            stderr_sha256: Some(stderr_sha256),
            detail: report.detail,
            conditions,
            flags,
            ..Self::empty(slot)
        }
    }

    /// The sample of an execution that gave nothing.
    #[must_use]
    pub fn failed(slot: &Slot, error: String) -> Self {
        Self { error: Some(error), ..Self::empty(slot) }
    }

    fn empty(slot: &Slot) -> Self {
        Self {
            seq: slot.seq,
            pair: slot.pair,
            pos: slot.pos,
            arm: slot.arm.clone(),
            warmup: slot.warmup,
            control: slot.control,
            ok: false,
            t_ns: None,
            phase_ns: BTreeMap::new(),
            subphase_ns: BTreeMap::new(),
            mem_bytes: None,
            cpu_ns: BTreeMap::new(),
            counters: BTreeMap::new(),
            status: None,
            end: None,
            stdout_sha256: None,
            stderr_sha256: None,
            detail: Detail::default(),
            conditions: Conditions::default(),
            error: None,
            flags: Vec::new(),
        }
    }

    /// Whether the summary counts it.
    #[must_use]
    pub const fn analysed(&self) -> bool {
        self.ok && !self.warmup && !self.control
    }

    /// Whether the noise floor counts it.
    #[must_use]
    pub const fn is_usable_control(&self) -> bool {
        self.ok && !self.warmup && self.control
    }
}

/// Notes why a run counts for nothing.
fn flag(flags: &mut Vec<String>, text: String) -> bool {
    flags.push(text);
    false
}

fn mem_bytes(m: &MemoryReading, has_ready: bool) -> MemBytes {
    let mut mem = MemBytes {
        at: if has_ready { READY } else { "exit" }.to_owned(),
        source: format!("memcg-{}", m.source),
        memcg_current: m.current_bytes,
        anon: m.anon_bytes,
        file: m.file_bytes,
        kernel: m.kernel_bytes,
        peak: m.peak_bytes,
        remainder: 0,
        parts: m.parts.clone(),
    };
    mem.remainder = mem.rest();
    mem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot { seq: 4, pair: 2, pos: 0, arm: "vm".to_owned(), warmup: false, control: false }
    }

    fn execution(end: EndReport, stamps: Vec<(char, u64)>) -> Execution {
        let memory = MemoryReading {
            source: "v2".to_owned(),
            current_bytes: 100,
            anon_bytes: Some(60),
            file_bytes: None,
            kernel_bytes: Some(30),
            peak_bytes: 120,
            parts: BTreeMap::from([("pss".to_owned(), 50)]),
        };
        let report = RunReport {
            level: "vm".to_owned(),
            main_ns: 1100,
            stamps,
            subphases: vec![],
            end,
            status: 3,
            memory: Some(memory),
            cpu_ns: BTreeMap::new(),
            counters: BTreeMap::new(),
            clean_ns: 2000,
            detail: Detail::default(),
        };
        let (stdout_sha256, stderr_sha256) = ("aa".to_owned(), "bb".to_owned());
        Execution {
            request_ns: 1000,
            report,
            stdout_sha256,
            stderr_sha256,
            complaint: None,
            conditions: Conditions::default(),
        }
    }

    #[test]
    fn keeps_times_from_request_and_the_rest_of_the_charge() {
        let sample = Sample::new(&slot(), execution(EndReport::Exited(3), vec![('W', 1500), ('R', 1600)]));
        let memory = sample.mem_bytes.clone().expect("a reading was given");
        assert!(sample.analysed());
        assert_eq!(sample.t_ns.as_ref().and_then(|t| t.ready), Some(600));
        assert_eq!(sample.phase_ns.values().sum::<u64>(), 1000);
        assert_eq!((memory.rest(), memory.at.as_str(), memory.source.as_str()), (10, "ready", "memcg-v2"));
    }

    #[test]
    fn a_run_that_isolab_ended_is_kept_and_not_analysed() {
        let sample = Sample::new(&slot(), execution(EndReport::Killed, vec![]));
        assert!(!sample.analysed());
        assert_eq!(sample.flags, ["killed by isolab (deadline or interrupt)"]);
        assert_eq!(sample.t_ns.and_then(|t| t.clean), Some(1000));
    }

    #[test]
    fn a_run_that_failed_says_why_as_run_does() {
        let complaint = "command \"cta\" not found in the image";
        let execution = Execution {
            complaint: Some(complaint.to_owned()),
            ..execution(EndReport::Failed(17, 2), vec![])
        };
        assert_eq!(Sample::new(&slot(), execution).flags, [complaint]);
        let mut late = self::execution(EndReport::Killed, vec![]);
        late.report.status = 124;
        assert_eq!(Sample::new(&slot(), late).flags, ["ended by the deadline of --timeout"]);
    }

    #[test]
    fn stamps_out_of_order_give_no_timeline_and_say_so() {
        let sample = Sample::new(&slot(), execution(EndReport::Exited(0), vec![('X', 1500), ('B', 1600)]));
        assert!(!sample.ok && sample.t_ns.is_none() && sample.phase_ns.is_empty());
        assert_eq!(sample.flags, ["order the stamps: exit at 1500 ns lies before run_begin at 1600 ns"]);
    }
}
