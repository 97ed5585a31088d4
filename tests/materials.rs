//! The bills of materials that `make sbom` writes name what isolab is made of, and nothing of the machine that they were made on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// Each program, with the directory of its manifest.
const PROGRAMS: [(&str, &str); 6] = [
    ("isolab", ""),
    ("isolab-bare", "images/bare"),
    ("isolab-init", "images/init"),
    ("isolab-probe", "images/probe"),
    ("isolab-pull", "images/pull"),
    ("isolab-work", "images/work"),
];

/// A bill, as far as it is looked at here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bill {
    bom_format: String,
    serial_number: Option<String>,
    metadata: Metadata,
    components: Vec<Component>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    component: Component,
}

#[derive(Debug, Deserialize)]
struct Component {
    name: String,
    version: String,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn make_into(dir: &Path) {
    let made = Command::new("make")
        .args(["--silent", "sbom", &format!("SBOM={}", dir.display())])
        .current_dir(repository())
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .expect("make starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The bills: made anew, and again the same, where their tool is; else those that are there.
fn bills(dir: &Path) -> Option<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    if target.join("tools/bin/cargo-cyclonedx").is_file() {
        let [made, again] = ["made", "again"].map(|name| dir.join(name));
        make_into(&made);
        make_into(&again);
        for (name, _) in PROGRAMS {
            let [first, second] = [&made, &again].map(|dir| fs::read(dir.join(format!("{name}.cdx.json"))));
            assert_eq!(first.expect("a bill"), second.expect("a bill"), "{name} is another each time");
        }
        return Some(made);
    }
    let made = repository().join("out/sbom");
    made.is_dir().then_some(made)
}

/// What cargo compiles for a program and its dependencies, as name and version.
fn linked(name: &str, dir: &str) -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--edges=normal", "--prefix=none", "--offline", "--locked", "--package", name])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .current_dir(repository().join(dir))
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let mut packages = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (name, rest) = line.split_once(" v").expect("a version");
        packages.insert((name.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned()));
    }
    packages
}

#[test]
fn bills_of_materials_name_what_is_linked() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(bills) = bills(dir.path()) else {
        println!("skipped: no bill of materials is here, nor the tool that makes one: make sbom");
        return;
    };
    for (name, manifest) in PROGRAMS {
        let text = fs::read_to_string(bills.join(format!("{name}.cdx.json"))).expect("a bill");
        let bill: Bill = serde_json::from_str(&text).expect("JSON");
        assert_eq!((bill.bom_format.as_str(), bill.serial_number), ("CycloneDX", None), "{name}");
        assert_eq!(bill.metadata.component.name, name);
        let named: BTreeSet<(String, String)> = bill
            .components
            .into_iter()
            .chain([bill.metadata.component])
            .map(|component| (component.name, component.version))
            .collect();
        assert_eq!(named, linked(name, manifest), "{name}: make sbom");
        let here = repository().to_str().expect("text");
        assert!(!text.contains(here), "{name} names {here}");
    }
}
