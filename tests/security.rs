//! `docs/security.md` is true as far as a machine can see: each threat has one entry, and what an entry names as its proof is a test
//! that runs. And what isolab is built from comes from where it should.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// Attackers, with how many threats each has.
const THREATS: [(&str, usize); 4] = [("I", 14), ("C", 15), ("G", 13), ("L", 8)];

/// What isolab does against a threat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    There,
    Partly,
    NotThere,
}

/// One threat of the document.
#[derive(Debug)]
struct Entry {
    id: String,
    state: Option<State>,
    /// File and name of each test.
    tests: Vec<(String, String)>,
    /// Why there is none.
    reason: Option<String>,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    fs::read_to_string(repository().join("docs/security.md")).expect("the document")
}

/// The entries: each begins with its id in bold, and goes on with indented lines.
fn entries(document: &str) -> Vec<Entry> {
    let mut texts: Vec<String> = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        if line.starts_with("* **") && id_of(line).is_some() {
            texts.push(line.to_owned());
            inside = true;
        } else if let Some(text) = texts.last_mut().filter(|_| inside && line.starts_with("  ")) {
            text.push(' ');
            text.push_str(line.trim());
        } else {
            inside = false;
        }
    }
    texts.iter().map(|text| entry(text)).collect()
}

/// The id that a line begins with.
fn id_of(line: &str) -> Option<&str> {
    let id = line.strip_prefix("* **")?.split(' ').next()?;
    let (attacker, number) = id.split_once('-')?;
    let digits = number.len() == 2 && number.bytes().all(|c| c.is_ascii_digit());
    (digits && attacker.len() == 1).then_some(id)
}

fn entry(text: &str) -> Entry {
    let said = text.split_once("** ").map_or("", |(_, said)| said);
    let states =
        [("There", State::There), ("Partly.", State::Partly), ("Not there.", State::NotThere)].into_iter();
    let state = states.filter(|(word, _)| said.starts_with(word)).map(|(_, state)| state).next();
    let reason = text.split_once(" no test: ").map(|(_, reason)| reason.to_owned());
    let named = text.split_once(" Tests: ").map_or("", |(_, tests)| tests);
    let named = named.split(" no test: ").next().unwrap_or_default();
    let mut file = String::new();
    let mut tests = Vec::new();
    for word in named.split('`').skip(1).step_by(2) {
        if Path::new(word).extension().is_some() {
            word.clone_into(&mut file);
        } else {
            tests.push((file.clone(), word.to_owned()));
        }
    }
    Entry { id: id_of(text).unwrap_or_default().to_owned(), state, tests, reason }
}

/// Why this is not a test that `tests/run` runs, if it is none.
fn fault_of_test(file: &str, name: &str) -> Option<String> {
    let Ok(text) = fs::read_to_string(repository().join(file)) else {
        return Some(format!("there is no file {file:?}"));
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|line| line.starts_with(&format!("fn {name}("))) else {
        return Some(format!("{file} has no fn {name}"));
    };
    let before = lines[..at].iter().rev();
    let attributes: Vec<_> =
        before.take_while(|line| line.starts_with("#[") || line.starts_with("//")).collect();
    if !attributes.contains(&&"#[test]") {
        return Some(format!("{name} of {file} is no test"));
    }
    let ignored = attributes.iter().any(|line| line.starts_with("#[ignore"));
    ignored.then(|| format!("{name} of {file} is ignored"))
}

/// Everything that is wrong with the document.
fn faults(document: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let entries = entries(document);
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for (attacker, last) in THREATS {
        count.extend((1..=last).map(|n| (format!("{attacker}-{n:02}"), 0)));
    }
    for Entry { id, state, tests, reason } in &entries {
        match count.get_mut(id) {
            Some(n) => *n += 1,
            None => faults.push(format!("{id} is no threat")),
        }
        if state.is_none() {
            faults.push(format!("{id} does not say whether it is there"));
        }
        if tests.is_empty() && reason.as_ref().is_none_or(|reason| reason.len() < 10) {
            faults.push(format!("{id} has neither a test nor a reason"));
        }
        if *state == Some(State::NotThere) && !tests.is_empty() {
            faults.push(format!("{id} is not there and has tests"));
        }
        let wrong = tests.iter().filter_map(|(file, name)| fault_of_test(file, name));
        faults.extend(wrong.map(|fault| format!("{id}: {fault}")));
    }
    let odd = count.iter().filter(|(_, n)| **n != 1);
    faults.extend(odd.map(|(id, n)| format!("{id} has {n} entries")));
    let of = |state| entries.iter().filter(|entry| entry.state == Some(state)).count();
    let numbers = format!(
        "{} threats, {} there, {} partly, {} not there.",
        entries.len(),
        of(State::There),
        of(State::Partly),
        of(State::NotThere)
    );
    if !document.split_whitespace().collect::<Vec<_>>().join(" ").contains(&numbers) {
        faults.push(format!("the numbers are not these: {numbers}"));
    }
    faults
}

#[test]
fn each_threat_has_one_entry_whose_tests_run() {
    assert_eq!(faults(&document()), Vec::<String>::new());
}

#[test]
fn a_fault_of_the_document_is_noticed() {
    let document = document();
    let first_test = "`refuses_paths_that_leave_or_lie`";
    let whole = |from: &str, to: &str| {
        assert!(document.contains(from), "{from}");
        document.replace(from, to)
    };
    let table = [
        (whole("* **C-07 ", "* C-07 "), "C-07 has 0 entries"),
        (whole("* **C-07 ", "* **C-08 "), "C-08 has 2 entries"),
        (whole("* **C-07 ", "* **C-16 "), "C-16 is no threat"),
        (
            whole("`images/src/layer/path.rs`", "`images/src/layer/way.rs`"),
            "no file \"images/src/layer/way.rs\"",
        ),
        (whole(first_test, "`no_such_test`"), "has no fn no_such_test"),
        (whole(first_test, "`parse`"), "parse of images/src/layer/path.rs is no test"),
        (
            whole(
                "`tests/levels.rs` `exit_status_is_the_same_at_every_level`",
                "`tests/levels.rs` `each_exit_status_passes_through_a_guest`",
            ),
            "each_exit_status_passes_through_a_guest of tests/levels.rs is ignored",
        ),
        (whole("  no test: an absence,", "  an absence,"), "L-05 has neither a test nor a reason"),
        (document.clone() + "\n* **I-01 Again.** There. no test: for no reason\n", "I-01 has 2 entries"),
        (whole("**G-02 Registers out of order.** There.", "**G-02 Registers.** Yes."), "G-02 does not say"),
        (whole(" not there.\n", " not there, or so.\n"), "the numbers are not these"),
    ];
    for (document, expected) in table {
        let faults = faults(&document);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "no {expected:?} in {faults:#?}");
    }
}

/// The packages that a lock file names.
#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

/// Directories with a lock file of their own for what is shipped: the workspace, and the programs that `images/build.rs` builds.
fn shipped() -> Vec<PathBuf> {
    let programs = fs::read_dir(repository().join("images")).expect("a directory");
    let programs = programs.map(|entry| entry.expect("an entry").path());
    let all: Vec<PathBuf> = std::iter::once(repository().to_owned()).chain(programs).collect();
    let all: Vec<PathBuf> = all.into_iter().filter(|dir| dir.join("Cargo.lock").is_file()).collect();
    assert_eq!(all.len(), 6, "{all:?}");
    all
}

/// Those, and the fuzz targets.
fn locked() -> Vec<PathBuf> {
    let mut all = shipped();
    all.push(repository().join("fuzz"));
    all
}

fn lock(dir: &Path) -> Lock {
    let text = fs::read_to_string(dir.join("Cargo.lock")).expect("a lock file");
    toml::from_str(&text).expect("TOML")
}

/// Names of the packages of this repository.
fn ours() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![repository().to_owned()];
    while let Some(dir) = open.pop() {
        if let Ok(text) = fs::read_to_string(dir.join("Cargo.toml")) {
            let manifest: toml::Table = toml::from_str(&text).expect("TOML");
            found.extend(manifest["package"]["name"].as_str().map(str::to_owned));
        }
        // Packages lie in the repository, in a part, or in a directory of a part.
        let below = fs::read_dir(&dir).expect("a directory").map(|entry| entry.expect("an entry"));
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let near = dir.strip_prefix(repository()).is_ok_and(|way| way.components().count() < 2);
        let part = |name: &str| !name.starts_with('.') && name != "target" && name != "out";
        let below = below.filter(|entry| near && entry.file_name().to_str().is_some_and(part));
        open.extend(below.map(|entry| entry.path()));
    }
    found
}

#[test]
fn packages_come_from_one_registry_or_are_ours() {
    let ours = ours();
    let mut sources = BTreeSet::new();
    for dir in locked() {
        for package in lock(&dir).package {
            match package.source {
                None => assert!(ours.contains(&package.name), "{} of {}", package.name, dir.display()),
                Some(source) => {
                    assert_eq!(package.checksum.as_ref().map(String::len), Some(64), "{}", package.name);
                    sources.insert(source);
                }
            }
        }
    }
    let [source] = &sources.iter().collect::<Vec<_>>()[..] else { panic!("{sources:?}") };
    assert!(source.starts_with("registry+https://"), "{source}");
    // Cargo knows one registry by itself, and of others only what it is told here.
    let cargo = fs::read_to_string(repository().join(".cargo/config.toml")).expect("cargo's configuration");
    let cargo: toml::Table = toml::from_str(&cargo).expect("TOML");
    assert!(
        ["source", "registry", "registries", "patch"].iter().all(|key| !cargo.contains_key(*key)),
        "{cargo:?}"
    );
    let rules: toml::Table = toml::from_str(&rules()).expect("TOML");
    let rules = &rules["sources"];
    assert_eq!(
        (rules["unknown-registry"].as_str(), rules["unknown-git"].as_str()),
        (Some("deny"), Some("deny"))
    );
    assert!(rules.get("allow-registry").is_none() && rules.get("allow-git").is_none(), "{rules:?}");
}

fn rules() -> String {
    fs::read_to_string(repository().join("deny.toml")).expect("the rules")
}

/// A version's three numbers.
fn version(text: &str) -> Vec<u64> {
    let text = text.split(['-', '+']).next().unwrap_or_default();
    text.split('.').map(|part| part.parse().expect("a number")).collect()
}

#[test]
fn crates_with_known_holes_are_newer_than_those() {
    /// The first version without, and whether the crate must be there.
    const FIRST: [(&str, &str, bool); 4] = [
        ("vm-memory", "0.12.2", true),
        ("vmm-sys-util", "0.12.0", true),
        ("kvm-ioctls", "0.19.1", true),
        ("tar", "0.4.45", false),
    ];
    let packages: Vec<Package> = locked().iter().flat_map(|dir| lock(dir).package).collect();
    for (name, first, needed) in FIRST {
        let found: Vec<&str> =
            packages.iter().filter(|package| package.name == name).map(|p| p.version.as_str()).collect();
        assert!(!found.is_empty() || !needed, "{name}");
        assert!(found.iter().all(|found| version(found) >= version(first)), "{name} {found:?}, {first}");
    }
    assert!(version("0.12.1") < version("0.12.2") && version("0.9.0") < version("0.12.0+x"));
}

/// Whether these licences are enough for a package whose manifest says this.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = any(&words, &mut at, allowed);
    assert_eq!(at, words.len(), "{expression}");
    result
}

fn any(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut result = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= all(words, at, allowed);
    }
    result
}

fn all(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut result = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at, allowed);
    }
    result
}

fn one(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let word = *words.get(*at).expect("a licence");
    *at += 1;
    if word == "(" {
        let result = any(words, at, allowed);
        assert_eq!(words.get(*at), Some(&")"));
        *at += 1;
        return result;
    }
    let with = words.get(*at) == Some(&"WITH");
    let name = if with { format!("{word} WITH {}", words[*at + 1]) } else { word.to_owned() };
    *at += if with { 2 } else { 0 };
    allowed.contains(&name.as_str())
}

#[test]
fn licences_are_those_that_are_allowed() {
    let rules: toml::Table = toml::from_str(&rules()).expect("TOML");
    let allowed = rules["licenses"]["allow"].as_array().expect("a list");
    let allowed: Vec<&str> = allowed.iter().filter_map(toml::Value::as_str).collect();
    let mut expressions = BTreeSet::new();
    for dir in shipped() {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--offline", "--locked"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(&dir)
            .output()
            .expect("cargo metadata runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        for package in metadata["packages"].as_array().expect("packages") {
            let expression =
                package["license"].as_str().unwrap_or_else(|| panic!("{} has none", package["name"]));
            assert!(satisfied(expression, &allowed), "{}: {expression}", package["name"]);
            expressions.insert(expression.to_owned());
        }
    }
    for licence in &allowed {
        let others: Vec<&str> = allowed.iter().copied().filter(|other| other != licence).collect();
        assert!(expressions.iter().any(|e| !satisfied(e, &others)), "nothing needs {licence}");
    }
    assert!(
        satisfied("(MIT OR GPL-2.0) AND ISC", &["MIT", "ISC"]) && !satisfied("MIT AND GPL-2.0", &["MIT"])
    );
    assert!(!satisfied("Apache-2.0 WITH LLVM-exception", &["Apache-2.0"]));
}

#[test]
fn overflow_is_checked_in_what_is_shipped() {
    for dir in ["", "images/probe", "images/pull"] {
        let text = fs::read_to_string(repository().join(dir).join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = toml::from_str(&text).expect("TOML");
        assert_eq!(manifest["profile"]["release"]["overflow-checks"].as_bool(), Some(true), "{dir:?}");
    }
}
