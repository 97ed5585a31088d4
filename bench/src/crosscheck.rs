//! The instrument's checks of itself, on every sample of a record.

use serde::{Deserialize, Serialize};

use crate::comparability::CheckStatus;
use crate::sample::{MemBytes, READY, Sample};

/// A check of the instrument by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crosscheck {
    /// Its name.
    pub id: String,
    /// What must hold.
    pub expect: String,
    /// What was seen.
    pub observed: String,
    /// Its result.
    pub status: CheckStatus,
}

/// Largest share of a charge that may stay without a name, in thousandths.
const REMAINDER_PERMILLE: u64 = 20;

/// Every check, on these samples; `cpus`: how many the machine has.
#[must_use]
pub fn crosschecks(samples: &[Sample], cpus: Option<u32>) -> Vec<Crosscheck> {
    let largest = |id: &str, expect: &str, errors: Vec<u64>| Crosscheck {
        id: id.to_owned(),
        expect: expect.to_owned(),
        observed: errors
            .iter()
            .max()
            .map_or_else(|| "no timeline".into(), |ns| format!("largest error {ns} ns")),
        status: status(errors.iter().max().map(|ns| *ns == 0)),
    };
    let sums = |map: fn(&Sample) -> &std::collections::BTreeMap<String, u64>| {
        let error = |s: &Sample| {
            let clean = s.t_ns.as_ref()?.clean?;
            (!map(s).is_empty())
                .then(|| map(s).values().fold(0_u64, |sum, ns| sum.saturating_add(*ns)).abs_diff(clean))
        };
        samples.iter().filter_map(error).collect::<Vec<u64>>()
    };
    vec![
        largest("phase-sum", "the phases of each sample sum to clean exactly", sums(|s| &s.phase_ns)),
        largest(
            "subphase-sum",
            "the subphases of each sample sum to clean exactly",
            sums(|s| &s.subphase_ns),
        ),
        ordered(samples),
        parts(samples),
        remainder(samples),
        cpu(samples, cpus),
    ]
}

fn status(holds: Option<bool>) -> CheckStatus {
    holds.map_or(CheckStatus::Unknown, |holds| if holds { CheckStatus::Pass } else { CheckStatus::Fail })
}

/// A check that counts the samples where something does not hold.
fn counted(id: &str, expect: &str, results: &[bool]) -> Crosscheck {
    let wrong = results.iter().filter(|holds| !**holds).count();
    Crosscheck {
        id: id.to_owned(),
        expect: expect.to_owned(),
        observed: format!("{wrong} of {} samples differ", results.len()),
        status: status((!results.is_empty()).then_some(wrong == 0)),
    }
}

fn ordered(samples: &[Sample]) -> Crosscheck {
    let ran = samples.iter().filter(|s| s.error.is_none() && s.end.is_some());
    let results: Vec<bool> = ran.map(|s| s.t_ns.is_some()).collect();
    counted("stamps-ordered", "every moment lies at or after the one that must precede it", &results)
}

/// Whether every part of this account is at most its whole.
fn parts_fit(m: &MemBytes) -> bool {
    let part = |key: &str| m.parts.get(key).copied();
    let fits =
        |part: Option<u64>, whole: Option<u64>| part.zip(whole).is_none_or(|(part, whole)| part <= whole);
    let whole = Some(m.memcg_current);
    let charged =
        [m.anon, m.file, m.kernel].into_iter().all(|p| fits(p, whole)) && m.named() <= m.memcg_current;
    let kernel: u64 = ["kernel_stack", "slab", "percpu", "vmalloc"]
        .iter()
        .filter_map(|key| part(key))
        .fold(0, u64::saturating_add);
    charged
        && m.memcg_current > 0
        && fits(whole, Some(m.peak))
        && fits(part("uss"), part("pss"))
        && fits(part("pss"), part("rss"))
        && fits(part("guest_ram_resident"), m.anon)
        && fits(part("shmem"), m.file)
        && fits(Some(kernel), m.kernel)
}

fn parts(samples: &[Sample]) -> Crosscheck {
    let results: Vec<bool> = at_ready(samples).map(parts_fit).collect();
    counted("part-of-whole", "no part of an account is larger than what it is a part of", &results)
}

fn at_ready<'s>(samples: impl IntoIterator<Item = &'s Sample>) -> impl Iterator<Item = &'s MemBytes> {
    samples.into_iter().filter_map(|s| s.mem_bytes.as_ref()).filter(|m| m.at == READY)
}

/// Of what is claimed: the first run in a machine, a warm-up, is charged two pages that have no name.
fn remainder(samples: &[Sample]) -> Crosscheck {
    let shares = at_ready(samples.iter().filter(|s| !s.warmup)).filter(|m| m.memcg_current > 0);
    let largest = shares.map(|m| m.remainder.saturating_mul(1000) / m.memcg_current).max();
    let observed = |permille: u64| format!("largest {}.{} %", permille / 10, permille % 10);
    Crosscheck {
        id: "remainder".to_owned(),
        expect: "less than 2 % of the charge at ready has no name".to_owned(),
        observed: largest.map_or_else(|| "no account".to_owned(), observed),
        status: status(largest.map(|permille| permille < REMAINDER_PERMILLE)),
    }
}

fn cpu(samples: &[Sample], cpus: Option<u32>) -> Crosscheck {
    let of = |s: &Sample| {
        let (wall, used) = (s.t_ns.as_ref()?.ready?, *s.cpu_ns.get("instance")?);
        Some(used > 0 && used <= wall.saturating_mul(cpus?.into()))
    };
    let results: Vec<bool> = samples.iter().filter_map(of).collect();
    counted("cpu-time", "CPU time until ready is above zero and at most wall time on every CPU", &results)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::Slot;

    fn account() -> MemBytes {
        MemBytes {
            at: READY.to_owned(),
            source: "memcg-v2".to_owned(),
            memcg_current: 1000,
            anon: Some(600),
            file: Some(100),
            kernel: Some(290),
            peak: 1200,
            remainder: 10,
            parts: BTreeMap::from([("guest_ram_resident".to_owned(), 500), ("slab".to_owned(), 90)]),
        }
    }

    #[test]
    fn an_account_that_adds_up_fits_and_each_part_that_is_too_large_does_not() {
        assert!(parts_fit(&account()));
        let with = |key: &str, n: u64| {
            let mut account = account();
            account.parts.insert(key.to_owned(), n);
            account
        };
        for (key, n) in [("guest_ram_resident", 601), ("slab", 291), ("shmem", 101)] {
            assert!(!parts_fit(&with(key, n)), "{key}");
        }
        assert!(!parts_fit(&MemBytes { peak: 999, ..account() }));
        assert!(!parts_fit(&MemBytes { kernel: Some(301), ..account() }));
    }

    #[test]
    fn a_charge_without_a_name_fails_where_it_is_counted() {
        let of = |warmup| {
            let slot = Slot { seq: 0, pair: 0, pos: 0, arm: String::new(), warmup, control: false };
            let mem_bytes = Some(MemBytes { remainder: 20, ..account() });
            Sample { mem_bytes, ..Sample::failed(&slot, String::new()) }
        };
        let fine = Sample { mem_bytes: Some(account()), ..of(false) };
        let check = |samples: &[Sample]| remainder(samples).status;
        assert_eq!(check(&[of(true), fine.clone()]), CheckStatus::Pass);
        assert_eq!(check(&[fine, of(false)]), CheckStatus::Fail);
        assert_eq!(check(&[of(true)]), CheckStatus::Unknown);
    }

    #[test]
    fn nothing_to_look_at_is_no_success() {
        assert!(crosschecks(&[], Some(1)).iter().all(|check| check.status == CheckStatus::Unknown));
    }
}
