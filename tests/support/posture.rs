//! What a process is to the kernel, seen from outside: whose it is, what it may do, what it sees and what it has open.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One fact a line, sorted; a thread's facts begin with its name.
pub(crate) type Posture = Vec<String>;

/// Lines of `status` that say what a thread is and may do (proc_pid_status(5)).
const OF_THREADS: [&str; 11] = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
];
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
const LIMITS: [&str; 2] = ["Max core file size", "Max open files"];

/// The posture of a process. `words` stand for what differs from run to run.
pub(crate) fn of(pid: i32, words: &[(String, &str)]) -> Posture {
    let dir = Path::new("/proc").join(pid.to_string());
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut facts = vec![];
    for task in fs::read_dir(dir.join("task")).expect("threads") {
        let status = fs::read_to_string(task.expect("a thread").path().join("status")).expect("status");
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or("none").split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let name = value("Name");
        facts.extend(OF_THREADS.iter().map(|key| format!("{name}: {key} {}", value(key))));
    }
    let root = fs::read_dir(dir.join("root")).expect("a root directory");
    let names = root.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    facts.extend(names.map(|name| format!("in its root: {name}")));
    // Numbers, parent and device depend on the moment, and devtmpfs on the machine's memory.
    let mount = |line: &str| {
        let fields: Vec<&str> = line.split(' ').skip(3).collect();
        let own = fields.contains(&"devtmpfs").then_some(fields.len() - 1);
        fields[..own.unwrap_or(fields.len())].join(" ")
    };
    facts.extend(read("mountinfo").lines().map(|line| format!("mount: {}", mount(line))));
    for name in NAMESPACES {
        let link = |of: &Path| fs::read_link(of.join("ns").join(name)).expect("a namespace");
        let shared = link(&dir) == link(Path::new("/proc/self"));
        facts.push(format!("namespace {name}: {}", if shared { "the host's" } else { "its own" }));
    }
    let ids = |name: &str| read(name).split_whitespace().collect::<Vec<_>>().join(" ");
    facts.extend(["uid_map", "gid_map"].map(|name| format!("{name}: {}", ids(name))));
    let limits = read("limits");
    for name in LIMITS {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("a limit");
        facts.push(format!("limit {name}: {}", line.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    facts
        .push(format!("its files in /proc belong to: {}", fs::metadata(dir.join("mem")).expect("mem").uid()));
    let mut open: BTreeMap<String, u32> = BTreeMap::new();
    for fd in fs::read_dir(dir.join("fd")).expect("descriptors") {
        let link = fs::read_link(fd.expect("a descriptor").path()).expect("a link");
        let link = link.to_str().expect("UTF-8");
        // Named by its digest.
        let link = if link.contains("/images/sha256-") { "IMAGE" } else { link };
        // Pipes and sockets have numbers.
        let kind = link.split_once(":[").filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
        *open.entry(kind.map_or(link, |(kind, _)| kind).to_owned()).or_default() += 1;
    }
    facts.extend(open.into_iter().map(|(what, times)| format!("open: {what} x{times}")));
    for (text, word) in words {
        facts.iter_mut().for_each(|fact| *fact = fact.replace(text, word));
    }
    facts.sort();
    facts
}

/// How a posture differs from what it should be, one fact a line.
pub(crate) fn differences(expected: &[String], found: &[String]) -> Vec<String> {
    let not_in = |these: &[String], those: &[String], sign: &str| {
        let others = these.iter().filter(|fact| !those.contains(fact));
        others.map(|fact| format!("{sign} {fact}")).collect::<Vec<_>>()
    };
    [not_in(expected, found, "-"), not_in(found, expected, "+")].concat()
}
