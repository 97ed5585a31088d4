//! The measuring loop: for each slot of the plan one fresh execution, one sample. Nothing else happens in between.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::plan::{Plan, Slot};
use crate::sample::{Execution, Sample};
use crate::stop::Ended;

/// Why an execution gave nothing to measure, shown as a chain.
pub type ExecuteError = Box<dyn std::error::Error + Send + Sync>;

/// Runs one arm once, in a fresh process.
pub trait Executor {
    /// Runs the arm from request to clean.
    ///
    /// # Errors
    /// No report came back. A workload that fails is not an error: it is a sample with a status.
    fn execute(&mut self, arm: &str) -> Result<Execution, ExecuteError>;
}

/// Sees the measuring as it goes: progress, and the wish to stop.
pub trait Observer {
    /// The slot is about to be run.
    fn started(&mut self, slot: &Slot);
    /// The slot gave this sample; a break ends the measuring with the samples so far.
    fn finished(&mut self, sample: &Sample) -> ControlFlow<()>;
}

/// Sees nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn started(&mut self, _: &Slot) {}
    fn finished(&mut self, _: &Sample) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// A sample of each slot that was run, in order.
    pub samples: Vec<Sample>,
    /// Why there are no more.
    pub ended: Ended,
}

/// Carries out the plan. Each slot gives a sample, also where the execution failed. Whether the plan's rule ends it is asked
/// after each whole pair.
pub fn measure(plan: &Plan, executor: &mut dyn Executor, observer: &mut dyn Observer) -> Measured {
    let started = Instant::now();
    let mut samples = Vec::new();
    for slot in plan.order() {
        observer.started(&slot);
        let sample = match executor.execute(&slot.arm) {
            Ok(execution) => Sample::new(&slot, execution),
            Err(error) => Sample::failed(&slot, chain(&*error)),
        };
        let flow = observer.finished(&sample);
        samples.push(sample);
        if flow.is_break() {
            return Measured { samples, ended: Ended::Stopped };
        }
        let whole = slot.pos as usize + 1 == plan.runs_per_pair();
        let stop = plan.stop.as_ref().filter(|_| whole);
        if let Some(ended) = stop.and_then(|stop| stop.reached(plan, &samples, started.elapsed())) {
            return Measured { samples, ended };
        }
    }
    Measured { samples, ended: Ended::Pairs }
}

/// An error and its causes, joined.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let texts: Vec<String> =
        std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Conditions;
    use crate::run_report::{Detail, EndReport, RunReport};
    use crate::stop::Stop;

    /// Answers from a clock that it moves itself; every third request fails.
    #[derive(Default)]
    struct Fake {
        asked: Vec<String>,
        now_ns: u64,
    }

    impl Executor for Fake {
        fn execute(&mut self, arm: &str) -> Result<Execution, ExecuteError> {
            self.asked.push(arm.to_owned());
            if self.asked.len().is_multiple_of(3) {
                return Err("spawn isolab".into());
            }
            let request_ns = self.now_ns;
            self.now_ns += 100;
            let report = RunReport {
                level: arm.to_owned(),
                main_ns: request_ns + 10,
                stamps: vec![('B', request_ns + 20), ('W', request_ns + 40), ('X', request_ns + 50)],
                subphases: vec![],
                end: EndReport::Exited(0),
                status: 0,
                memory: None,
                cpu_ns: Default::default(),
                counters: Default::default(),
                clean_ns: request_ns + 60,
                detail: Detail::default(),
            };
            Ok(Execution {
                request_ns,
                report,
                stdout_sha256: String::new(),
                stderr_sha256: String::new(),
                complaint: None,
                conditions: Conditions::default(),
            })
        }
    }

    struct StopAfter(usize);

    impl Observer for StopAfter {
        fn started(&mut self, _: &Slot) {}
        fn finished(&mut self, _: &Sample) -> ControlFlow<()> {
            self.0 -= 1;
            if self.0 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }

    fn plan() -> Plan {
        Plan::new(vec!["process".to_owned(), "vm".to_owned()], 4, 1, 9).expect("two arms")
    }

    #[test]
    fn asks_in_the_order_of_the_plan_and_keeps_failures() {
        let mut fake = Fake::default();
        let Measured { samples, ended } = measure(&plan(), &mut fake, &mut Unobserved);
        assert_eq!(ended, Ended::Pairs);
        let planned: Vec<String> = plan().order().into_iter().map(|slot| slot.arm).collect();
        assert_eq!(fake.asked, planned);
        assert_eq!(samples.len(), 10);
        assert_eq!(samples.iter().filter(|s| s.error.as_deref() == Some("spawn isolab")).count(), 3);
        assert!(samples.iter().all(|s| s.ok == s.error.is_none()));
    }

    #[test]
    fn the_rule_of_the_plan_ends_it_after_a_whole_pair() {
        let stop = Stop { min_pairs: 2, half_width_percent: 2, time_limit_ms: 0 };
        let measured = measure(&plan().with_control().stopping(stop), &mut Fake::default(), &mut Unobserved);
        assert_eq!((measured.samples.len(), measured.ended), (3 * (1 + 2), Ended::Time));
    }

    #[test]
    fn ends_with_the_samples_so_far_when_told_to_stop() {
        let measured = measure(&plan(), &mut Fake::default(), &mut StopAfter(4));
        assert_eq!((measured.samples.len(), measured.ended), (4, Ended::Stopped));
    }
}
