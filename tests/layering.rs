//! The arrows between the parts go one way: isolab -> {bench, container, vmm} -> images -> wire, and bench -> statistics.

use std::collections::BTreeMap;
use std::process::Command;

/// Each of our packages with the ones of ours that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("isolab", &["isolab-bench", "isolab-container", "isolab-vmm", "isolab-images", "isolab-wire"]),
    ("isolab-bench", &["isolab-images", "isolab-statistics", "isolab-wire"]),
    ("isolab-statistics", &[]),
    ("isolab-container", &["isolab-images", "isolab-wire"]),
    ("isolab-vmm", &["isolab-images", "isolab-wire"]),
    ("isolab-images", &["isolab-wire"]),
    ("isolab-bpf", &[]),
    ("isolab-wire", &[]),
    ("regex", &[]),
];

#[test]
fn dependencies_follow_the_one_direction() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let found: BTreeMap<&str, Vec<&str>> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let ours = dependencies
                .iter()
                .filter(|d| d["kind"].is_null())
                .filter_map(|d| d["name"].as_str())
                .filter(|name| name.starts_with("isolab"));
            (package["name"].as_str().expect("name"), ours.collect())
        })
        .collect();
    for (package, dependencies) in &found {
        let allowed = ALLOWED.iter().find(|(name, _)| name == package).expect("a package without a rule").1;
        for dependency in dependencies {
            assert!(allowed.contains(dependency), "{package} must not depend on {dependency}");
        }
    }
    assert_eq!(found.len(), ALLOWED.len());
}
