//! One run of one workload at one level.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::{SuitePlan, SuiteSlot};
use super::work::{SuiteUnit, WorkLine, number};
use super::{Tells, Work};
use crate::measure::{ExecuteError, chain};
use crate::sample::{Execution, Sample};
use crate::summary::{CHARGE, CLEAN, FIRST_INSTRUCTION, METRICS, Metric, PEAK, READINESS, Unit};

/// A sample; failed ones are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteSample {
    /// Number in the order of execution.
    pub seq: u32,
    /// The pair it belongs to.
    pub pair: u32,
    /// Place of the arm inside the pair.
    pub pos: u32,
    /// The arm.
    pub arm: String,
    /// The suite.
    pub suite: String,
    /// The workload.
    pub workload: String,
    /// Stored and not analysed.
    pub warmup: bool,
    /// The workload ran to its end and told what it was to tell.
    pub ok: bool,
    /// Exit status; absent where nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// The moments and the charge of the run, whole numbers in the units of the metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, u64>,
    /// What the workload printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<WorkLine>,
    /// Why it counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Doubts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// A metric's name, unit and value.
pub(super) type Told = (&'static str, SuiteUnit, f64);

/// Name of the metric of an operation's time.
pub(super) const PER_OPERATION: &str = "time_per_operation";
/// Name of the metric of a sleep's lateness.
pub(super) const LATENESS: &str = "lateness";

impl SuiteSample {
    /// The sample of an execution and of the first bytes that the workload printed; [`Sample`] judges the run itself.
    #[must_use]
    pub fn new(
        plan: &SuitePlan,
        slot: &SuiteSlot,
        executed: Result<(Execution, Vec<u8>), ExecuteError>,
    ) -> (Self, Sample) {
        let (sample, output) = match executed {
            Ok((execution, output)) => (Sample::new(&slot.slot, execution), output),
            Err(error) => (Sample::failed(&slot.slot, chain(&*error)), Vec::new()),
        };
        let task = plan.tasks.get(slot.task);
        let mut error = sample.error.clone().or_else(|| {
            let failed = sample.status.filter(|&status| status != 0);
            let why = sample.flags.first().filter(|_| !sample.ok).cloned();
            why.or_else(|| failed.map(|status| format!("the workload ended with status {status}")))
        });
        // Where the workload tells its own numbers, doubts about the run's are none about them.
        let batch = task.and_then(|task| task.batch);
        let mut flags = if batch.is_none() { sample.flags.clone() } else { vec![] };
        let mut work = None;
        if let (None, Some(batch)) = (&error, batch) {
            let tells = plan.work(slot.task).map_or(Tells::Operations, |work| work.tells);
            let checked = WorkLine::last_of(&output)
                .and_then(|line| line.check(batch).and_then(|()| line.per_operation(tells)).map(|_| line));
            match checked {
                Ok(line) => {
                    flags.extend(line.doubts());
                    work = Some(line);
                }
                Err(why) => error = Some(chain(&why)),
            }
        }
        let metrics = METRICS.iter().filter_map(|m| Some((m.name.to_owned(), m.of(&sample)?))).collect();
        let made = Self {
            seq: sample.seq,
            pair: sample.pair,
            pos: sample.pos,
            arm: sample.arm.clone(),
            suite: task.map(|task| task.suite.clone()).unwrap_or_default(),
            workload: task.map(|task| task.workload.clone()).unwrap_or_default(),
            warmup: sample.warmup,
            ok: error.is_none(),
            status: sample.status,
            metrics,
            work,
            error,
            flags,
        };
        (made, sample)
    }

    /// What it says about its workload.
    pub(super) fn told(&self, work: &Work) -> Vec<Told> {
        let of = |metrics: &[&'static Metric]| {
            let known = metrics.iter().filter_map(|m| {
                let unit = if m.unit == Unit::Bytes { SuiteUnit::Bytes } else { SuiteUnit::Ns };
                Some((m.name, unit, number(*self.metrics.get(m.name)?)))
            });
            known.collect()
        };
        let line = |name| {
            let value = self.work.as_ref().and_then(|line| line.per_operation(work.tells).ok());
            value.map(|value| (name, SuiteUnit::NsPerOp, value)).into_iter().collect()
        };
        match work.tells {
            Tells::Operations => line(PER_OPERATION),
            Tells::Lateness => line(LATENESS),
            Tells::Moments => of(&[&FIRST_INSTRUCTION, &READINESS, &CLEAN]),
            Tells::Charge => of(&[&CHARGE, &PEAK]),
        }
    }

    /// Whether the summary counts it.
    #[must_use]
    pub const fn analysed(&self) -> bool {
        self.ok && !self.warmup
    }
}
