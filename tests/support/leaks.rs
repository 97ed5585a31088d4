//! The leak oracle: what a command under test left on this machine.
//!
//! It looks at the machine and not at what isolab says. Orphans of a killed isolab become children of the test process
//! (a subreaper), so that none gets away by losing its parent. A test that uses it must run alone in its process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid};

/// How long the kernel may take to end what a killed process held.
const SETTLE: Duration = Duration::from_secs(5);
/// Folders in which isolab, or a library of it, could leave something.
pub(crate) const FOLDERS: [&str; 5] = ["/tmp", "/var/tmp", "/run", "/dev/shm", "/var/lib/isolab"];

/// Kinds of namespaces.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
/// Where instances of the kernel's tracing are.
const TRACE_INSTANCES: [&str; 2] = ["/sys/kernel/tracing/instances", "/sys/kernel/debug/tracing/instances"];

/// Something that is there and was not there before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leak {
    /// Its kind.
    pub(crate) what: &'static str,
    /// Process number, path or line of the mount table.
    pub(crate) which: String,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.which)
    }
}

/// The machine before.
#[derive(Debug)]
pub(crate) struct Oracle {
    home: PathBuf,
    before: BTreeSet<Leak>,
    _alone: MutexGuard<'static, ()>,
}

impl Oracle {
    /// Remembers what is there. `home` is the store of the commands under test.
    pub(crate) fn new(home: &Path) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        set_child_subreaper(Some(getpid())).expect("Linux has subreapers");
        Self { home: home.to_owned(), before: look(home), _alone: alone }
    }

    /// What is there now and was not before.
    pub(crate) fn now(&self) -> BTreeSet<Leak> {
        reap_orphans();
        look(&self.home).difference(&self.before).cloned().collect()
    }

    /// What there is once `done` says that it may stay so, or after a while: the kernel needs a moment to end what a
    /// killed process held, and has no event for us.
    pub(crate) fn settled_when(&self, done: impl Fn(&BTreeSet<Leak>) -> bool) -> BTreeSet<Leak> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let found = self.now();
            if done(&found) || Instant::now() >= deadline {
                return found;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Numbers of the processes below this one.
    pub(crate) fn processes(&self) -> Vec<u32> {
        descendants().0.into_keys().collect()
    }

    /// Nothing stays.
    pub(crate) fn assert_nothing(&self, after: &str) {
        let found = self.settled_when(BTreeSet::is_empty);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "left after {after}:\n  {}", found.join("\n  "));
    }
}

/// Everything of the kinds that the oracle knows which is there now.
pub(crate) fn look(home: &Path) -> BTreeSet<Leak> {
    let (ours, zombies) = descendants();
    let mut found = BTreeSet::new();
    let mut add = |what, which: String| {
        found.insert(Leak { what, which });
    };
    for (pid, name) in &ours {
        add("process", format!("{pid} ({name})"));
    }
    for pid in zombies {
        add("zombie", pid.to_string());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    for line in mounts.lines().filter(|line| !is_others(line, home)) {
        add("mount", line.to_owned());
        // A file of the kernel's own file system for namespaces, kept by this mount.
        if let Some(namespace) = line.split(' ').nth(3).filter(|root| root.contains(":[")) {
            add("namespace", namespace.to_owned());
        }
    }
    let own: BTreeSet<PathBuf> = namespaces(std::process::id()).collect();
    let fds = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_namespace = |target: &PathBuf| {
        target.to_str().and_then(|t| t.split_once(":[")).is_some_and(|(kind, _)| NAMESPACES.contains(&kind))
    };
    for pid in ours.keys() {
        let of_fds = fds(*pid).filter_map(|fd| fs::read_link(fd.path()).ok()).filter(is_namespace);
        for namespace in namespaces(*pid).chain(of_fds).filter(|n| !own.contains(n)) {
            add("namespace", namespace.display().to_string());
        }
    }
    for dir in cgroups(Path::new("/sys/fs/cgroup")) {
        if is_ours(&dir, &ours) {
            add("cgroup", dir.display().to_string());
        }
    }
    for device in names("/sys/block").filter(|name| name.starts_with("loop")) {
        // Of our own store's images: other tests run at the same time, in stores of their own.
        if let Ok(file) = fs::read_to_string(format!("/sys/block/{device}/loop/backing_file"))
            && Path::new(file.trim_end()).starts_with(home)
        {
            add("loop device", format!("{device} {}", file.trim_end()));
        }
    }
    for name in names("/sys/block").filter(|name| name.starts_with("dm-")) {
        add("mapped device", name);
    }
    for name in names("/sys/class/net").chain(names("/run/netns")) {
        add("network link", name);
    }
    for instance in TRACE_INSTANCES.into_iter().flat_map(names) {
        add("trace instance", instance);
    }
    for kind in ["shm", "sem", "msg"] {
        let table = fs::read_to_string(Path::new("/proc/sysvipc").join(kind)).unwrap_or_default();
        for row in table.lines().skip(1) {
            let key_and_id: Vec<&str> = row.split_whitespace().take(2).collect();
            add("ipc object", format!("{kind} {}", key_and_id.join(" ")));
        }
    }
    for key in fs::read_to_string("/proc/keys").unwrap_or_default().lines() {
        let fields: Vec<&str> = key.split_whitespace().collect();
        // Those of sessions and threads are the kernel's own way to know them; logins come and go.
        let description = fields.get(8).copied().unwrap_or_default();
        if !description.starts_with('_') {
            add("key", format!("{} {description}", fields.first().copied().unwrap_or_default()));
        }
    }
    for folder in ["tmp", "scratch", "kernels", "snapshots"] {
        let folder = home.join(folder);
        let has_entries = folder.ends_with("kernels") || folder.ends_with("snapshots");
        for name in names(&folder).filter(|name| has_entries <= name.starts_with('.')) {
            add("folder", folder.join(name).display().to_string());
        }
    }
    for folder in FOLDERS {
        for name in names(folder).filter(|name| name.to_lowercase().contains("isolab")) {
            add("folder", Path::new(folder).join(name).display().to_string());
        }
    }
    found
}

/// A mount below another program's temporary folder, as mmdebstrap makes them: isolab mounts nothing there.
fn is_others(line: &str, home: &Path) -> bool {
    let target = line.split(' ').nth(4).unwrap_or_default();
    target.starts_with("/tmp/") && !target.contains("isolab") && !Path::new(target).starts_with(home)
}

fn names(dir: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// What a process's links to its namespaces say.
fn namespaces(pid: u32) -> impl Iterator<Item = PathBuf> {
    NAMESPACES.iter().filter_map(move |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
}

/// Parent and name of each process, and whether it is a zombie.
fn processes() -> BTreeMap<u32, (u32, String, bool)> {
    let mut found = BTreeMap::new();
    for pid in names("/proc").filter_map(|name| name.parse::<u32>().ok()) {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let (Some((head, rest)), Some(start)) = (stat.rsplit_once(") "), stat.find('(')) else { continue };
        let mut fields = rest.split(' ');
        let (state, parent) = (fields.next(), fields.next().and_then(|ppid| ppid.parse().ok()));
        if let (Some(parent), false) = (parent, state == Some("X")) {
            found.insert(pid, (parent, head[start + 1..].to_owned(), state == Some("Z")));
        }
    }
    found
}

/// Running processes below this one, with their names, and the zombies below those: this process's own it reaps itself.
fn descendants() -> (BTreeMap<u32, String>, BTreeSet<u32>) {
    let all = processes();
    let own = std::process::id();
    let below = |mut pid: u32| {
        while let Some((parent, ..)) = all.get(&pid) {
            if *parent == own {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let (mut running, mut zombies) = (BTreeMap::new(), BTreeSet::new());
    for (pid, (parent, name, is_zombie)) in all.iter().filter(|(pid, _)| below(**pid)) {
        if !is_zombie {
            running.insert(*pid, name.clone());
        } else if *parent != own {
            zombies.insert(*pid);
        }
    }
    (running, zombies)
}

/// Takes the status of orphans that ended, so that they are no zombies.
fn reap_orphans() {
    for pid in names("/proc").filter_map(|name| name.parse::<i32>().ok()) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let ours = stat.rsplit_once(") ").is_some_and(|(_, rest)| {
            let mut fields = rest.split(' ');
            fields.next() == Some("Z") && fields.next() == Some(&std::process::id().to_string())
        });
        if let (true, Some(pid)) = (ours, Pid::from_raw(pid)) {
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Every cgroup of every hierarchy.
fn cgroups(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
                found.push(entry.path());
            }
        }
    }
    found
}

/// A cgroup with isolab's name in it, made by one of ours or by somebody who is no more; other people's isolab may
/// run on this machine at the same time.
fn is_ours(dir: &Path, ours: &BTreeMap<u32, String>) -> bool {
    let owner = dir.components().find_map(|part| {
        let rest = part.as_os_str().to_str()?.strip_prefix("isolab-")?;
        rest.split('-').next()?.parse::<u32>().ok()
    });
    owner.is_some_and(|pid| {
        ours.contains_key(&pid)
            || pid == std::process::id()
            || fs::metadata(format!("/proc/{pid}")).map_or(true, |meta| meta.nlink() == 0)
    })
}
