//! The plan of a comparison: which arms, how often, in which order. It is written before the first sample.
//!
//! All "A" then all "B" turns a host drift of 3 % into 41 % false findings; one random order per round keeps it
//! at the nominal few percent. So the unit is the pair (a round of every arm), and its order comes from a seed.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::conditions::CacheState;
use crate::sample::Sample;
use crate::stop::Stop;

/// Pairs that are measured on a host at least when the user names no number, and from which on it is no flag: half the interval
/// of a median is then below 2 % on a quiet machine.
pub const PAIRS_ON_HOST: u32 = 30;
/// Pairs in the lab, whose clock hardly varies: what fits into a minute and a half of an emulator's time.
pub const PAIRS_IN_LAB: u32 = 9;
/// Pairs before the measured ones on a host: stored, marked, not analysed.
pub const WARMUP_ON_HOST: u32 = 3;
/// The same in the lab, where one fills the caches and no clock warms up.
pub const WARMUP_IN_LAB: u32 = 1;
/// Pairs of `--tail`: the 99th percentile needs 299.
pub const PAIRS_FOR_TAIL: u32 = 300;
/// Most pairs of one plan, so that the samples fit in memory and in a page.
pub const MAX_PAIRS: u32 = 10_000;

/// What is run how often, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How samples are arranged.
    pub design: Design,
    /// Seed of every random choice of this run.
    pub seed: u64,
    /// The arms in the order of the report; the first is the base of comparisons.
    pub arms: Vec<String>,
    /// Pairs that are run, stored and not analysed.
    pub warmup_pairs: u32,
    /// Measured pairs, at most: each holds every arm once.
    pub pairs: u32,
    /// Times that the whole of it is repeated with a new process tree.
    pub rounds: u32,
    /// When measuring ends, for a reader.
    pub stop_rule: String,
    /// What ends it before all pairs are measured; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// The arm that runs a second time in each pair, so that it can be set against itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// State of the page cache before each run; absent: as it happens to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheState>,
    /// The metrics that the claims are about; tests of the others are corrected for their number.
    pub primary_metrics: Vec<String>,
}

/// The headline metrics of the method.
const PRIMARY: [&str; 4] = [
    "startup.request_to_first_user_insn",
    "startup.request_to_ready",
    "startup.request_to_clean",
    "memory.charge",
];

/// How samples are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Design {
    /// Each pair holds every arm once, in a random order of its own.
    InterleavedRandomPairs,
}

/// A plan that can't be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing to measure.
    #[error("plan a comparison of no level")]
    NoArms,
    /// The same arm twice can't be told apart in the samples.
    #[error("plan level {0:?} twice")]
    Twice(String),
    /// Zero or too many.
    #[error("plan {0} pairs: give 1 to {MAX_PAIRS}")]
    Pairs(u32),
    /// Too many.
    #[error("plan {0} warm-up pairs: give 0 to {MAX_PAIRS}")]
    Warmup(u32),
}

/// One place of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Number in the order of execution, from 0.
    pub seq: u32,
    /// The pair it belongs to, from 0; warm-up pairs come first.
    pub pair: u32,
    /// Place inside the pair, from 0.
    pub pos: u32,
    /// The arm.
    pub arm: String,
    /// Not analysed.
    pub warmup: bool,
    /// The second run of the base arm.
    pub control: bool,
}

impl Plan {
    /// A plan for these arms.
    ///
    /// # Errors
    /// [`PlanError`]: no arm, an arm twice, a number out of range.
    pub fn new(arms: Vec<String>, pairs: u32, warmup_pairs: u32, seed: u64) -> Result<Self, PlanError> {
        if arms.is_empty() {
            return Err(PlanError::NoArms);
        }
        if let Some((_, arm)) = arms.iter().enumerate().find(|(i, arm)| arms[..*i].contains(arm)) {
            return Err(PlanError::Twice(arm.clone()));
        }
        if !(1..=MAX_PAIRS).contains(&pairs) {
            return Err(PlanError::Pairs(pairs));
        }
        if warmup_pairs > MAX_PAIRS {
            return Err(PlanError::Warmup(warmup_pairs));
        }
        Ok(Self {
            design: Design::InterleavedRandomPairs,
            seed,
            arms,
            warmup_pairs,
            pairs,
            rounds: 1,
            stop_rule: format!("{pairs} pairs"),
            stop: None,
            control: None,
            cache: None,
            primary_metrics: PRIMARY.map(str::to_owned).to_vec(),
        })
    }

    /// The same plan with an end that depends on what is seen: see [`Stop`].
    #[must_use]
    pub fn stopping(self, stop: Stop) -> Self {
        Self { stop_rule: stop.rule(self.pairs), stop: Some(stop), ..self }
    }

    /// The same plan with the base arm a second time in each pair; of one arm nothing is compared, so nothing changes.
    #[must_use]
    pub fn with_control(self) -> Self {
        let control = if self.arms.len() > 1 { self.arms.first().cloned() } else { None };
        Self { control, ..self }
    }

    /// Pairs before which nothing but a signal ends it.
    #[must_use]
    pub fn least_pairs(&self) -> u32 {
        self.stop.map_or(self.pairs, |stop| stop.min_pairs)
    }

    /// Runs of a pair.
    #[must_use]
    pub const fn runs_per_pair(&self) -> usize {
        self.arms.len() + self.control.is_some() as usize
    }

    /// How many of these pairs, which come in order, are of each round.
    #[must_use]
    pub fn rounds_of(&self, pairs: impl Iterator<Item = u32>) -> Vec<usize> {
        let mut sizes: BTreeMap<u64, usize> = BTreeMap::new();
        for pair in pairs {
            let measured = u64::from(pair.saturating_sub(self.warmup_pairs));
            let round = measured * u64::from(self.rounds) / u64::from(self.pairs.max(1));
            *sizes.entry(round).or_default() += 1;
        }
        sizes.into_values().collect()
    }

    /// Every sample to take, in order. The same plan gives the same order on every machine.
    #[must_use]
    pub fn order(&self) -> Vec<Slot> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut slots = Vec::new();
        for pair in 0..self.warmup_pairs.saturating_add(self.pairs) {
            let mut arms: Vec<(&String, bool)> = self.arms.iter().map(|arm| (arm, false)).collect();
            arms.extend(self.control.as_ref().map(|arm| (arm, true)));
            arms.shuffle(&mut rng);
            for (pos, (arm, control)) in (0..).zip(arms) {
                let (seq, warmup) =
                    (u32::try_from(slots.len()).unwrap_or(u32::MAX), pair < self.warmup_pairs);
                slots.push(Slot { seq, pair, pos, arm: arm.clone(), warmup, control });
            }
        }
        slots
    }
}

/// Measured pairs in which every arm has run, the control too.
#[must_use]
pub fn pairs_done(plan: &Plan, samples: &[Sample]) -> u32 {
    let mut runs: BTreeMap<u32, usize> = BTreeMap::new();
    for sample in samples.iter().filter(|s| !s.warmup) {
        *runs.entry(sample.pair).or_default() += 1;
    }
    let whole = runs.values().filter(|&&n| n == plan.runs_per_pair()).count();
    u32::try_from(whole).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn plan(pairs: u32, seed: u64) -> Plan {
        let arms = ["process", "container", "vm"].map(str::to_owned).to_vec();
        Plan::new(arms, pairs, 1, seed).expect("three different arms")
    }

    #[test]
    fn seed_42_gives_the_order_that_old_records_name() {
        let order: Vec<String> =
            plan(3, 42).order().chunks(3).map(|p| [0, 1, 2].map(|i| &p[i].arm[..1]).concat()).collect();
        assert_eq!(order, ["vcp", "pcv", "cvp", "cpv"]);
    }

    #[test]
    fn orders_vary_between_pairs_and_reach_every_permutation() {
        let order = plan(200, 7).order();
        let seen: BTreeSet<String> =
            order.chunks(3).map(|p| p.iter().map(|s| s.arm.as_str()).collect::<Vec<_>>().join(",")).collect();
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn refuses_what_cannot_be_carried_out() {
        assert_eq!(Plan::new(vec![], 1, 0, 0), Err(PlanError::NoArms));
        let twice = vec!["vm".to_owned(), "vm".to_owned()];
        assert_eq!(Plan::new(twice, 1, 0, 0), Err(PlanError::Twice("vm".to_owned())));
        assert_eq!(Plan::new(vec!["vm".to_owned()], 0, 0, 0), Err(PlanError::Pairs(0)));
        assert_eq!(Plan::new(vec!["vm".to_owned()], 1, 10_001, 0), Err(PlanError::Warmup(10_001)));
    }

    #[test]
    fn the_control_is_the_base_arm_again_in_any_place() {
        let order = plan(60, 3).with_control().order();
        let places: BTreeSet<u32> = order.iter().filter(|s| s.control).map(|s| s.pos).collect();
        assert_eq!(places, BTreeSet::from([0, 1, 2, 3]));
        for pair in order.chunks(4) {
            assert_eq!(pair.iter().filter(|s| s.control && s.arm == "process").count(), 1);
            assert_eq!(pair.iter().filter(|s| s.arm == "process").count(), 2);
        }
        let alone = Plan::new(vec!["vm".to_owned()], 3, 0, 1).expect("one arm").with_control();
        assert_eq!((alone.control.as_ref(), alone.runs_per_pair()), (None, 1));
    }

    #[test]
    fn pairs_belong_to_rounds_of_equal_size() {
        let rounds = Plan { rounds: 3, ..plan(30, 1) };
        assert_eq!(rounds.rounds_of(1..=30), [10, 10, 10]);
        assert_eq!(rounds.rounds_of((1..=30).filter(|pair| *pair != 5)), [9, 10, 10]);
        assert_eq!(plan(30, 1).rounds_of(1..=30), [30]);
    }

    proptest! {
        #[test]
        fn each_pair_holds_every_arm_once(pairs in 1_u32..40, seed: u64) {
            let plan = plan(pairs, seed);
            let order = plan.order();
            prop_assert_eq!(order.len(), 3 * (pairs as usize + 1));
            for (i, pair) in order.chunks(3).enumerate() {
                let mut arms: Vec<&str> = pair.iter().map(|s| s.arm.as_str()).collect();
                arms.sort_unstable();
                prop_assert_eq!(arms, vec!["container", "process", "vm"]);
                prop_assert!(pair.iter().all(|s| s.pair as usize == i && s.warmup == (i == 0)));
            }
            prop_assert!(order.iter().enumerate().all(|(i, s)| s.seq as usize == i));
            prop_assert_eq!(plan.order(), order);
        }
    }
}
