//! The order of everything, drawn before the first sample.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Suite, Work};
use crate::plan::{Design, Plan, PlanError, Slot};

/// What is run how often, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuitePlan {
    /// How samples are arranged: in each pair every workload, each at every level, all in random order.
    pub design: Design,
    /// Seed of every random choice of this run.
    pub seed: u64,
    /// The arms; the first is the base of comparisons, and batch sizes are found there.
    pub arms: Vec<String>,
    /// Pairs that are run, stored and not analysed, of the workloads without batches: those with batches were run once
    /// before, and the middle of their batches counts.
    pub warmup_pairs: u32,
    /// Measured pairs.
    pub pairs: u32,
    /// Repetitions of a batch inside one run.
    pub repetitions: u32,
    /// The workloads.
    pub tasks: Vec<Task>,
}

/// A workload of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The suite.
    pub suite: String,
    /// The workload's name.
    pub workload: String,
    /// Operations in a batch, in every arm; absent where there are no batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u64>,
    /// The command, in every arm.
    pub command: Vec<String>,
}

/// One place of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteSlot {
    /// Place, pair and arm.
    pub slot: Slot,
    /// Which of [`SuitePlan::tasks`].
    pub task: usize,
}

impl SuitePlan {
    /// A plan of these suites and arms; batch sizes come from `calibrate`, asked once for each measuring workload.
    ///
    /// # Errors
    /// [`PlanError`], or the error of `calibrate`.
    pub fn new<E: From<PlanError>>(
        suites: &[&'static Suite],
        base: &Plan,
        mut calibrate: impl FnMut(&'static Work) -> Result<u64, E>,
    ) -> Result<Self, E> {
        let mut tasks = Vec::new();
        for suite in suites {
            for work in suite.works {
                let batch = work.has_batches().then(|| calibrate(work)).transpose()?;
                let batch = batch.map(|n| n.max(work.least));
                let (suite, workload) = (suite.name.to_owned(), work.name());
                tasks.push(Task { suite, workload, batch, command: work.command(batch) });
            }
        }
        Ok(Self {
            design: base.design,
            seed: base.seed,
            arms: base.arms.clone(),
            warmup_pairs: base.warmup_pairs,
            pairs: base.pairs,
            repetitions: super::REPETITIONS,
            tasks,
        })
    }

    /// Every sample to take, in order. The same plan gives the same order on every machine.
    #[must_use]
    pub fn order(&self) -> Vec<SuiteSlot> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut slots: Vec<SuiteSlot> = Vec::new();
        for pair in 0..self.warmup_pairs.saturating_add(self.pairs) {
            let warmup = pair < self.warmup_pairs;
            let runs = |task: &usize| !warmup || self.tasks[*task].batch.is_none();
            let mut tasks: Vec<usize> = (0..self.tasks.len()).filter(runs).collect();
            tasks.shuffle(&mut rng);
            for task in tasks {
                let mut arms: Vec<&String> = self.arms.iter().collect();
                arms.shuffle(&mut rng);
                for (pos, arm) in (0..).zip(arms) {
                    let seq = u32::try_from(slots.len()).unwrap_or(u32::MAX);
                    slots.push(SuiteSlot {
                        slot: Slot { seq, pair, pos, arm: arm.clone(), warmup, control: false },
                        task,
                    });
                }
            }
        }
        slots
    }

    /// The workload of a task, where this version knows it.
    #[must_use]
    pub fn work(&self, task: usize) -> Option<&'static Work> {
        let task = self.tasks.get(task)?;
        super::suite(&task.suite)?.works.iter().find(|work| work.name() == task.workload)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::suite::{SUITES, suite};

    fn plan(seed: u64) -> SuitePlan {
        let suites: Vec<&Suite> = ["file", "startup"].map(|name| suite(name).expect("known")).to_vec();
        let base = Plan::new(vec!["process".to_owned(), "vm".to_owned()], 3, 1, seed).expect("two arms");
        SuitePlan::new(&suites, &base, |_| Ok::<u64, PlanError>(7)).expect("nothing fails")
    }

    #[test]
    fn every_pair_holds_every_workload_at_every_level_once() {
        let order = plan(5).order();
        let all: BTreeSet<(usize, &str)> =
            order.iter().filter(|s| s.slot.pair == 2).map(|s| (s.task, s.slot.arm.as_str())).collect();
        assert_eq!((order.len(), all.len()), (3 * 18 + 2, 18));
        assert!(order.iter().enumerate().all(|(i, s)| s.slot.seq as usize == i));
        assert!(order[..2].iter().all(|s| s.slot.warmup && s.task == 8));
    }

    #[test]
    fn the_seed_decides_the_order() {
        assert_eq!(plan(5).order(), plan(5).order());
        assert_ne!(plan(5).order(), plan(6).order());
    }

    #[test]
    fn a_batch_is_in_the_command_and_at_least_as_large_as_the_workload_needs() {
        let plan = plan(1);
        assert_eq!(plan.tasks[0].command, ["/isolab-work", "sys", "open", "7", "11"]);
        assert_eq!(plan.tasks[8].command, ["/isolab-work", "null"]);
        assert_eq!(plan.work(0).map(Work::name).as_deref(), Some("sys open"));
        let base = Plan::new(vec!["process".to_owned()], 1, 0, 1).expect("one arm");
        let timer = SuitePlan::new(&[suite("timer").expect("known")], &base, |_| Ok::<u64, PlanError>(1));
        assert_eq!(timer.expect("nothing fails").tasks[0].batch, Some(10));
    }

    #[test]
    fn suites_and_workloads_are_named_once() {
        let names: BTreeSet<&str> = SUITES.iter().map(|suite| suite.name).collect();
        assert_eq!(names.len(), SUITES.len());
        for suite in SUITES {
            let names: BTreeSet<String> = suite.works.iter().map(Work::name).collect();
            assert_eq!(names.len(), suite.works.len(), "{}", suite.name);
        }
    }
}
