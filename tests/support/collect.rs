//! What a killed isolab leaves, which the next `isolab gc` lists and removes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::leaks::{Leak, Oracle};
use super::run;

/// What `isolab gc` says, as kind and path.
fn gc(args: &[&str]) -> BTreeSet<(String, String)> {
    let result = run(&[&["gc", "--json"], args].concat());
    assert_eq!(result.status, Some(0), "{}", result.stderr);
    let items: Value = serde_json::from_str(&result.stdout).expect("JSON");
    let text = |item: &Value, name: &str| item[name].as_str().expect("text").to_owned();
    items.as_array().expect("a list").iter().map(|item| (text(item, "what"), text(item, "path"))).collect()
}

/// Whether gc lists it: a process by its number, anything else by its path.
fn listed(leak: &Leak, items: &BTreeSet<(String, String)>) -> bool {
    items.iter().any(|(_, path)| *path == leak.which)
}

/// Checks that the next gc lists and removes all that a kill left; gives how many things that were.
pub(crate) fn check_and_collect(oracle: &Oracle, what: &str) -> usize {
    let may_stay = |leak: &Leak| {
        matches!(leak.what, "cgroup" | "folder")
            || leak.what == "process" && in_leaked_cgroup(leak)
            || is_of_process(leak)
    };
    let found = oracle.settled_when(|found| found.iter().all(may_stay));
    let before = gc(&["--dry-run"]);
    // A process that ended while gc looked needs no listing.
    let still = oracle.now();
    for leak in found.intersection(&still).filter(|leak| !is_of_process(leak)) {
        assert!(listed(leak, &before), "{what}: gc does not list {leak}: {before:?}");
    }
    let removed = gc(&[]);
    assert!(
        still.iter().all(|leak| leak.what == "process" || is_of_process(leak) || listed(leak, &removed)),
        "{what}: {still:?}, removed {removed:?}"
    );
    oracle.assert_nothing(what);
    found.len()
}

/// The one namespace that processes of level process have, and which goes with the last of them. Those of a container go at once: their
/// process 1 dies with isolab.
fn is_of_process(leak: &Leak) -> bool {
    leak.what == "namespace" && leak.which.starts_with("mnt:")
}

fn in_leaked_cgroup(leak: &Leak) -> bool {
    let pid = leak.which.split(' ').next().unwrap_or_default();
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains("/isolab-"))
}
