//! `--test-delay`: makes subphases of a start longer, to see that they and no others grow.

use std::str::FromStr;

use isolab_wire::DELAY_ENV;
use isolab_wire::trace::Subphase;

/// Which subphase, and by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    pub(crate) subphase: Subphase,
    pub(crate) ms: u16,
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, ms) = text.split_once('=').ok_or("give PHASE=MILLISECONDS")?;
        let subphase = Subphase::from_key(key).ok_or_else(|| format!("there is no phase {key:?}"))?;
        let ms =
            ms.parse().ok().filter(|ms| (1..=10_000).contains(ms)).ok_or("give 1 to 10000 milliseconds")?;
        Ok(Self { subphase, ms })
    }
}

impl Delay {
    /// As the option's value.
    pub(crate) fn text(self) -> String {
        format!("{}={}", self.subphase.key(), self.ms)
    }

    /// What tells `isolab-work` of the delay that it has to make itself, one at most.
    pub(crate) fn for_workload(all: &[Self]) -> Option<String> {
        let own = |delay: &&Self| matches!(delay.subphase, Subphase::WorkloadReady | Subphase::WorkloadRun);
        all.iter().find(own).map(|delay| format!("{DELAY_ENV}={}", delay.text()))
    }

    /// The options that say the same.
    pub(crate) fn options(all: &[Self]) -> impl Iterator<Item = String> + '_ {
        all.iter().map(|delay| format!("--test-delay={}", delay.text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_refuses_the_rest() {
        for subphase in Subphase::ALL {
            let delay = Delay { subphase: *subphase, ms: 50 };
            assert_eq!(delay.text().parse(), Ok(delay));
        }
        for wrong in ["", "exec", "exec=", "exec=0", "exec=10001", "nosuch=5"] {
            assert!(wrong.parse::<Delay>().is_err(), "{wrong}");
        }
    }
}
