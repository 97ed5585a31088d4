//! Whether the page cache was in the declared state before each run, at each arm (T03).

use std::collections::BTreeMap;

use super::{Evidence, Found};
use crate::conditions::{CacheState, Residency};
use crate::statistics::median;

/// Shares of two arms that differ by less are the same state.
const SAME: f64 = 0.01;

pub(super) fn page_cache(e: Evidence<'_>) -> Option<Found> {
    // arm -> file -> resident share in each run
    let mut shares: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    for sample in e.samples.iter().filter(|s| s.analysed()) {
        for (file, residency) in &sample.conditions.page_cache {
            let share = share(*residency);
            shares.entry(&sample.arm).or_default().entry(file).or_default().push(share);
        }
    }
    if shares.is_empty() {
        return None;
    }
    let files: std::collections::BTreeSet<&str> = shares.values().flat_map(|of| of.keys().copied()).collect();
    let seen = |file: &str| -> Vec<(&str, &Vec<f64>)> {
        e.plan
            .arms
            .iter()
            .filter_map(|arm| Some((arm.as_str(), shares.get(arm.as_str())?.get(file)?)))
            .collect()
    };
    let (mut different, mut not_as_declared) = (vec![], vec![]);
    for file in files {
        let medians: Vec<(&str, f64)> =
            seen(file).into_iter().map(|(arm, shares)| (arm, median(shares))).collect();
        let (least, most) = medians.iter().fold((1.0_f64, 0.0_f64), |(l, m), (_, s)| (l.min(*s), m.max(*s)));
        let list = || {
            let each: Vec<String> =
                medians.iter().map(|(arm, s)| format!("{arm} {:.0} %", s * 100.0)).collect();
            format!("{file}: {}", each.join(", "))
        };
        let all = || seen(file).into_iter().flat_map(|(_, shares)| shares.iter().copied());
        if most - least > SAME {
            different.push(list());
        } else if !declared(e.plan.cache, file, all()) {
            not_as_declared.push(list());
        }
    }
    let state = e.plan.cache.map_or("not declared", CacheState::word);
    // "Cold" over warm numbers would be a lie; what is warm in part is so alike, and said.
    let not_cold = e.plan.cache == Some(CacheState::Cold) && !not_as_declared.is_empty();
    Some(if not_cold {
        Found::fail(format!(
            "page cache not cold before the runs, resident share of the {}",
            not_as_declared.join("; ")
        ))
    } else if !different.is_empty() {
        Found::fail(format!(
            "page cache in different states before the runs, resident share of the {}",
            different.join("; ")
        ))
    } else if not_as_declared.is_empty() {
        Found::pass(format!("page cache {state} before each run"))
    } else {
        Found::unsure(format!(
            "page cache not all {state}, but equal; resident share of the {}",
            not_as_declared.join("; ")
        ))
    })
}

/// Whether each run found the file in the declared state. The binary can't be cold: it runs.
fn declared(state: Option<CacheState>, file: &str, mut shares: impl Iterator<Item = f64>) -> bool {
    match state {
        Some(CacheState::Warm) => shares.all(|s| s >= 1.0),
        Some(CacheState::Cold) if file != "binary" => shares.all(|s| s <= 0.0),
        _ => true,
    }
}

#[expect(clippy::cast_precision_loss, reason = "pages, below 2^53")]
fn share(residency: Residency) -> f64 {
    if residency.pages == 0 { 1.0 } else { residency.resident_pages as f64 / residency.pages as f64 }
}
