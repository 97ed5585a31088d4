//! Knobs: arms of one level that differ from the base in one mechanism each, and what that mechanism costs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::comparability::{Evidence, judge};
use crate::record::{Arm, Record};
use crate::statistics::Estimate;

/// One mechanism, set to another value than in the base arm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The arm that has it.
    pub arm: String,
    /// The mechanism.
    pub knob: String,
    /// Its value in the base arm, which is the first of the plan.
    pub from: String,
    /// Its value in this arm.
    pub to: String,
    /// This value is a weaker isolation than isolab gives outside of measuring.
    pub weaker: bool,
}

/// A change and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variation {
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Median of (arm - base) over the pairs, in the metric's own unit, by metric.
    pub marginal: BTreeMap<String, Estimate>,
}

impl Record {
    /// Takes these changes for what the comparison is about: they are no reason against comparing, and each gets its costs.
    /// Everything else of the arms must still be equal.
    #[must_use]
    pub fn with_changes(mut self, changes: Vec<Change>) -> Self {
        let Some(base) = self.run.plan.arms.first().and_then(|name| self.arms.get(name)) else { return self };
        let mut judged = self.arms.clone();
        for change in &changes {
            if let Some(arm) = judged.get_mut(&change.arm) {
                excuse(arm, base, &change.knob);
            }
        }
        let watermark = self.comparability.watermark.take();
        self.comparability = judge(Evidence {
            plan: &self.run.plan,
            host: &self.host,
            arms: &judged,
            workload: &self.workload,
            samples: &self.samples,
        });
        self.comparability.watermark = watermark;
        self.quote();
        let costs = |change: Change| {
            let own = self.summary.iter().filter_map(|summary| {
                let found = summary.comparisons.iter().find(|c| c.b == change.arm)?;
                Some((summary.metric.clone(), found.difference))
            });
            Variation { marginal: own.collect(), change }
        };
        self.vary = changes.into_iter().map(costs).collect();
        self
    }
}

/// Makes the fact that a knob changes that of the base.
fn excuse(arm: &mut Arm, base: &Arm, knob: &str) {
    match knob {
        "memory" => arm.mem_limit_bytes = base.mem_limit_bytes,
        "cpus" => arm.cpus = base.cpus,
        "limits" => (arm.mem_limit_bytes, arm.cpus) = (base.mem_limit_bytes, base.cpus),
        "net" => arm.net.clone_from(&base.net),
        "console" => arm.console.clone_from(&base.console),
        "seccomp" => arm.seccomp.clone_from(&base.seccomp),
        "free-page-reporting" => {
            arm.free_page_reporting = base.free_page_reporting;
            arm.isolation.clone_from(&base.isolation);
        }
        "kernel" => arm.kernel.clone_from(&base.kernel),
        _ => {}
    }
}
