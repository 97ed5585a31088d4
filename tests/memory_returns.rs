//! Memory that a guest frees returns to the host where that is asked for, and nowhere else. What its cgroup is charged is read from
//! outside of the guest, inside of the lab.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Name of this test's own half, which runs inside of the lab.
const INSIDE: &str = "inside_the_lab_the_charge_is_watched";
const MIB: u64 = 1 << 20;
/// What the workload touches and frees, in MiB.
const TOUCHED: &str = "48";
/// What of it must have returned.
const LEAST: u64 = 32 * MIB;
/// The kernel tells of free memory two seconds after it was freed, and of all that there is in some rounds.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn what_a_guest_frees_returns_to_the_host_where_that_is_asked_for() {
    support::half_in_lab(&[], INSIDE);
}

/// What a guest was charged with the memory touched and after it was freed, and the time from there on: until enough of it
/// had returned, or all that it was given.
#[derive(Debug)]
struct Seen {
    touched: u64,
    freed: u64,
    took: Duration,
}

impl Seen {
    const fn returned(&self) -> u64 {
        self.touched.saturating_sub(self.freed)
    }
}

fn isolab(options: &[&str]) -> Command {
    let mut command = Command::new("/lab/isolab");
    command.args(["run", "--on", "host", "--level", "vm", "-i"]).args(options);
    command.args(["demo", "--", "/isolab-work", "touch-free", TOUCHED]);
    command
}

/// The cgroups of instances below a directory: there is one while one guest runs.
fn instances(below: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below).expect("cgroups").map(|entry| entry.expect("a cgroup").path());
    let dirs: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    let is_instance = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("isolab-"))
            && fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|processes| !processes.is_empty())
    };
    let own = dirs.iter().filter(is_instance).cloned();
    own.chain(dirs.iter().flat_map(|dir| instances(dir))).collect()
}

/// Runs a guest that touches and frees, and watches it for this long.
fn watched(options: &[&str], patience: Duration) -> Seen {
    let mut command = isolab(options);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("isolab starts");
    let mut input = child.stdin.take().expect("piped");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().and_then(Result::ok).expect("a line of the workload");
    assert_eq!(next(), "touched");
    let found = instances(Path::new("/sys/fs/cgroup"));
    let [cgroup] = &found[..] else { panic!("one instance, not {found:?}") };
    let charge = || -> u64 {
        let text = fs::read_to_string(cgroup.join("memory.current")).expect("a charge");
        text.trim().parse().expect("a number")
    };
    let touched = charge();
    input.write_all(b"\n").expect("the workload reads");
    assert_eq!(next(), "freed");
    let start = Instant::now();
    let mut seen = Seen { touched, freed: charge(), took: Duration::ZERO };
    while seen.returned() < LEAST && seen.took < patience {
        thread::sleep(Duration::from_millis(20));
        seen = Seen { touched, freed: charge(), took: start.elapsed() };
    }
    drop(input);
    assert!(child.wait().expect("isolab ends").success());
    println!("{options:?}: {seen:?}");
    seen
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_the_charge_is_watched() {
    assert!(fs::exists("/lab/isolab").expect("a file system"), "this half runs in the lab");
    let cold = watched(&["--free-page-reporting"], DEADLINE);
    assert!(cold.returned() >= LEAST, "{cold:?}");
    let restored = watched(&["--free-page-reporting", "--from-snapshot"], DEADLINE);
    assert!(restored.returned() >= LEAST, "{restored:?}");
    let without = watched(&[], cold.took.max(restored.took) * 2);
    assert!(without.touched > 48 * MIB && without.returned() < 4 * MIB, "{without:?}");

    // An entry as isolab made it before there was such a device.
    let home = PathBuf::from(std::env::var_os("ISOLAB_HOME").expect("the lab's store"));
    let path = home.join("kernels/stock/entry.json");
    let mut entry: Value = serde_json::from_slice(&fs::read(&path).expect("an entry")).expect("JSON");
    entry.as_object_mut().expect("an object").remove("reporting_modules").expect("a list of modules");
    fs::write(&path, entry.to_string()).expect("the lab's own copy");
    let refused = isolab(&["--free-page-reporting", "--kernel", "stock"]).output().expect("isolab starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(125), "{said}");
    assert!(said.contains("`isolab kernel fetch`"), "{said}");
}
