//! What one fresh `isolab run` process tells the measuring process: one line of JSON on a descriptor of its own.
//!
//! Both ends are the same binary, so an unknown field is an error and not a newer version.

use std::collections::BTreeMap;

use isolab_wire::mark::{Code, Exit};
use serde::{Deserialize, Serialize};

use crate::port::{End, MemoryReading, Outcome};

/// Longest line that a reader accepts, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// One run, as seen by the process that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunReport {
    /// The level that ran.
    pub level: String,
    /// First line of `main`, `CLOCK_MONOTONIC` ns.
    pub main_ns: u64,
    /// The moments in order of arrival: code letter of [`Code`] and `CLOCK_MONOTONIC` ns.
    pub stamps: Vec<(char, u64)>,
    /// Ends of subphases: key of [`Subphase`](isolab_wire::trace::Subphase) and `CLOCK_MONOTONIC` ns, in no order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subphases: Vec<(String, u64)>,
    /// How the instance ended.
    pub end: EndReport,
    /// Exit status of the run, as the shell sees it.
    pub status: u8,
    /// What the instance's cgroup was charged.
    pub memory: Option<MemoryReading>,
    /// CPU time in nanoseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cpu_ns: BTreeMap<String, u64>,
    /// Counters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    /// Everything was freed, `CLOCK_MONOTONIC` ns.
    pub clean_ns: u64,
    /// What is known about the instance besides numbers.
    pub detail: Detail,
}

/// Facts of one instance; what is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Detail {
    /// Digest of the image's EROFS file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// File system type of the lower layer: `erofs`, or that of an unpacked tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_fs: Option<String>,
    /// How the image reached it: `file`, `loop`, `virtio-blk`, `directory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_via: Option<String>,
    /// Release of the kernel that the workload ran on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Default limits that this user could not have enforced, by controller.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits_not_enforced: Vec<String>,
    /// Kind of start where it is not `cold`: [`SNAPSHOT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}

/// Kind of start of an instance that continues from a snapshot.
pub const SNAPSHOT: &str = "snapshot";

impl Detail {
    /// Whether the instance continued from a snapshot.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.start.as_deref() == Some(SNAPSHOT)
    }
}

/// [`End`] as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReport {
    /// The workload returned this code.
    Exited(u8),
    /// A signal ended the workload.
    Signalled(u8),
    /// Killed for memory.
    OutOfMemory,
    /// A step before the workload failed: number of the step, `errno`.
    Failed(u16, u16),
    /// Killed by isolab: deadline or interrupt.
    Killed,
}

impl From<End> for EndReport {
    fn from(end: End) -> Self {
        match end {
            End::Workload(Exit::Code(code)) => Self::Exited(code),
            End::Workload(Exit::Signal(signal)) => Self::Signalled(signal),
            End::OutOfMemory => Self::OutOfMemory,
            End::Failed(failure) => Self::Failed(failure.step as u16, failure.errno),
            End::Killed => Self::Killed,
        }
    }
}

/// A line that is not a report.
#[derive(Debug, thiserror::Error)]
pub enum RunReportError {
    /// Longer than a report can be.
    #[error("read a run report of {0} bytes: the most is {MAX_LINE}")]
    Length(usize),
    /// Not the JSON that we write.
    #[error("read a run report")]
    Json(#[source] serde_json::Error),
    /// A letter that is no [`Code`].
    #[error("read a run report with the unknown mark {0:?}")]
    Mark(char),
}

impl RunReport {
    /// The report of an outcome.
    #[must_use]
    pub fn new(level: &str, main_ns: u64, outcome: &Outcome, status: u8) -> Self {
        Self {
            level: level.to_owned(),
            main_ns,
            stamps: outcome.stamps.iter().map(|s| (char::from(s.code as u8), s.at_ns)).collect(),
            subphases: outcome.subphases.iter().map(|(s, at_ns)| (s.key().to_owned(), *at_ns)).collect(),
            end: outcome.end.into(),
            status,
            memory: outcome.memory.clone(),
            cpu_ns: outcome.cpu_ns.clone(),
            counters: outcome.counters.clone(),
            clean_ns: outcome.clean_ns,
            detail: outcome.detail.clone(),
        }
    }

    /// The line, with its newline.
    ///
    /// # Errors
    /// Never for the types that it holds; the serializer's own.
    pub fn to_line(&self) -> Result<String, RunReportError> {
        let mut line = serde_json::to_string(self).map_err(RunReportError::Json)?;
        line.push('\n');
        Ok(line)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`RunReportError`].
    pub fn from_line(line: &[u8]) -> Result<Self, RunReportError> {
        if line.len() > MAX_LINE {
            return Err(RunReportError::Length(line.len()));
        }
        let report: Self = serde_json::from_slice(line).map_err(RunReportError::Json)?;
        match report.stamps.iter().find(|(letter, _)| code_of(*letter).is_none()) {
            Some((letter, _)) => Err(RunReportError::Mark(*letter)),
            None => Ok(report),
        }
    }

    /// The first stamp of a moment.
    #[must_use]
    pub fn at(&self, code: Code) -> Option<u64> {
        self.stamps.iter().find(|(letter, _)| code_of(*letter) == Some(code)).map(|&(_, at_ns)| at_ns)
    }
}

fn code_of(letter: char) -> Option<Code> {
    u8::try_from(letter).ok().and_then(Code::from_byte)
}

#[cfg(test)]
mod tests {
    use isolab_wire::mark::{Failure, Step};
    use isolab_wire::trace::Subphase;
    use proptest::prelude::*;

    use super::*;
    use crate::port::Stamp;

    fn outcome(end: End) -> Outcome {
        let detail = Detail { lower_fs: Some("erofs".to_owned()), ..Detail::default() };
        let stamps = vec![Stamp { code: Code::RunBegin, at_ns: 20 }, Stamp { code: Code::Work, at_ns: 30 }];
        let memory = MemoryReading { source: "v2".to_owned(), current_bytes: 5, ..MemoryReading::default() };
        let subphases = vec![(Subphase::Clone, 25)];
        let (cpu_ns, counters) = ([("instance".to_owned(), 7)].into(), BTreeMap::new());
        Outcome { end, stamps, subphases, memory: Some(memory), cpu_ns, counters, clean_ns: 90, detail }
    }

    #[test]
    fn a_report_survives_its_line_for_every_end() {
        let failed = Failure { step: Step::Lower, errno: 19 };
        let ends = [
            End::Workload(Exit::Code(7)),
            End::Workload(Exit::Signal(9)),
            End::OutOfMemory,
            End::Failed(failed),
            End::Killed,
        ];
        for end in ends {
            let report = RunReport::new("vm", 10, &outcome(end), 7);
            let line = report.to_line().expect("plain data");
            assert_eq!(RunReport::from_line(line.as_bytes()).expect("our own line"), report);
        }
    }

    #[test]
    fn the_line_is_what_the_documentation_shows() {
        let line = RunReport::new("container", 10, &outcome(End::OutOfMemory), 137).to_line();
        assert_eq!(
            line.expect("plain data"),
            concat!(
                r#"{"level":"container","main_ns":10,"stamps":[["B",20],["W",30]],"subphases":[["clone",25]],"end":"out-of-memory","#,
                r#""status":137,"memory":{"source":"v2","current_bytes":5,"anon_bytes":null,"#,
                r#""file_bytes":null,"kernel_bytes":null,"peak_bytes":0},"cpu_ns":{"instance":7},"clean_ns":90,"#,
                r#""detail":{"lower_fs":"erofs"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn refuses_an_unknown_field_and_an_unknown_mark() {
        let line = RunReport::new("vm", 1, &outcome(End::Killed), 124).to_line().expect("plain data");
        let extra = line.replacen('{', r#"{"more":1,"#, 1);
        assert!(matches!(RunReport::from_line(extra.as_bytes()), Err(RunReportError::Json(_))));
        let mark = line.replace("\"W\"", "\"Q\"");
        assert!(matches!(RunReport::from_line(mark.as_bytes()), Err(RunReportError::Mark('Q'))));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_report_or_an_error(bytes: Vec<u8>) {
            let _ = RunReport::from_line(&bytes);
        }
    }
}
