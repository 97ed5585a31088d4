//! Cgroups whose owner is gone: what `kill -9` of isolab can leave behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::host::Host;
use super::reading::slurp;
use super::{CgroupError, REMOVE_TIMEOUT, kill};

const PREFIX: &str = "isolab-";
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Who made a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    /// Field 22 of `/proc/PID/stat`: tells a process from a later one of the same number.
    start: u64,
    /// Inode of the pid namespace in which `pid` means something.
    namespace: u64,
}

impl Owner {
    fn this() -> io::Result<Self> {
        let pid = std::process::id();
        let start = start_time(pid)?.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { pid, start, namespace: pid_namespace()? })
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let mut next = || parts.next()?.parse::<u64>().ok();
        let (pid, start, namespace, _n) = (next()?, next()?, next()?, next()?);
        Some(Self { pid: pid.try_into().ok()?, start, namespace })
    }

    /// Whether it surely is gone: an owner in another pid namespace is not for us to judge.
    fn gone(self, here: u64) -> bool {
        self.namespace == here && !matches!(start_time(self.pid), Ok(Some(start)) if start == self.start)
    }
}

fn pid_namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// When a process started, in clock ticks; nothing if it is gone or dead.
fn start_time(pid: u32) -> io::Result<Option<u64>> {
    let stat = match slurp(Path::new(&format!("/proc/{pid}/stat"))) {
        Ok(stat) => stat,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // The command name may hold anything, so count from its closing parenthesis: state is field 3.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return Ok(None) };
    let mut fields = rest.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return Ok(None);
    }
    Ok(fields.nth(18).and_then(|field| field.parse().ok()))
}

/// A name for this process's next cgroup.
pub(super) fn own_name() -> io::Result<String> {
    let Owner { pid, start, namespace } = Owner::this()?;
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{PREFIX}{pid}-{start}-{namespace}-{n}"))
}

/// Directories of cgroups that isolab made and whose owner is gone.
///
/// # Errors
/// The host's hierarchies can't be read.
pub fn list() -> Result<Vec<PathBuf>, CgroupError> {
    let host = Host::discover()?;
    let here =
        pid_namespace().map_err(|source| CgroupError::Discover { path: "/proc/self/ns/pid", source })?;
    let mut found = Vec::new();
    for root in host.roots() {
        // An owner's own cgroup may be anywhere in the hierarchy, and be gone.
        walk(root, here, &mut found);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Kills what is left in these cgroups and removes them; gives the ones removed.
///
/// # Errors
/// The host's hierarchies can't be read. A cgroup that stays is not an error: it is not in the answer.
pub fn sweep() -> Result<Vec<PathBuf>, CgroupError> {
    let mut removed = list()?;
    removed.retain(|dir| kill::remove(dir, REMOVE_TIMEOUT).is_ok());
    Ok(removed)
}

fn walk(dir: &Path, here: u64, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        match entry.file_name().to_str().and_then(Owner::parse) {
            Some(owner) if owner.gone(here) => found.push(path),
            Some(_) => {}
            None => walk(&path, here, found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_name_has_a_living_owner() {
        let name = own_name().expect("a name");
        let owner = Owner::parse(&name).expect("an owner");
        assert!(!owner.gone(pid_namespace().expect("namespace")));
    }

    #[test]
    fn a_later_process_of_the_same_number_is_not_the_owner() {
        let mut owner = Owner::this().expect("this process");
        owner.start += 1;
        assert!(owner.gone(owner.namespace));
        assert!(!owner.gone(owner.namespace + 1), "another pid namespace is not for us to judge");
    }

    #[test]
    fn other_names_have_no_owner() {
        for name in
            ["isolab", "isolab-", "isolab-1-2-3", "isolab-x-1-2-3", "user.slice", "isolab-99999999999-1-1-1"]
        {
            assert_eq!(Owner::parse(name), None, "{name}");
        }
    }
}
