//! Making the kernel's counters say what is used, before they are read.
//!
//! Two habits of the kernel make a small cgroup's numbers useless. It charges in batches: each CPU keeps up to 64 pages (32
//! before Linux 5.14) charged and unused. And it adds up `memory.stat` only after so many changes, or after two seconds.
//! Both are put right while the workload waits: what is counted is added up, and a charge that nothing uses is given back.
//!
//! Giving back: a limit one page below the charge makes the kernel empty the batches before it does anything else, at once
//! on the caller's CPU and soon after on the others. So that there is a batch on this CPU, and the limit is met without
//! anything being reclaimed, a page is charged here first, by this thread as a guest of the cgroup.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::host::Host;
use super::reading::read;
use super::{Cgroup, CgroupError, Controller, Part, Version};

const PAGE: u64 = 4096;
/// Pages of a batch (`MEMCG_CHARGE_BATCH`).
const BATCH: usize = 64;
/// How often batches are given back that have been taken again.
const ROUNDS: u32 = 4;
/// How long other CPUs may take to give back theirs.
const PATIENCE: Duration = Duration::from_millis(20);

impl Cgroup {
    /// Has the statistics added up and gives back what is charged and not used. Where this user may not do so, nothing
    /// happens, and what is reserved stays in the remainder of the account.
    ///
    /// # Errors
    /// The limit is not what it was, or this thread is still charged to the instance: nothing about it is true any more.
    pub(crate) fn settle(&self) -> Result<(), CgroupError> {
        let Some(part) = self.part(Controller::Memory) else { return Ok(()) };
        // Process 1 may still be on its way to its rest, and each page that it asks for takes a batch again.
        for _ in 0..ROUNDS {
            add_up(&part.dir);
            let Ok(Some(memory)) = self.read_memory() else { return Ok(()) };
            let used =
                [memory.anon_bytes, memory.file_bytes, memory.kernel_bytes].into_iter().flatten().sum();
            if memory.current_bytes <= used || !part.give_back(used)? {
                return Ok(());
            }
        }
        add_up(&part.dir);
        Ok(())
    }
}

impl Part {
    /// Gives back what is charged beyond these bytes; tells whether this user may.
    fn give_back(&self, in_use: u64) -> Result<bool, CgroupError> {
        let (usage, limit, tasks) = match self.version {
            Version::V1 => ("memory.usage_in_bytes", "memory.limit_in_bytes", "tasks"),
            Version::V2 => ("memory.current", "memory.high", "cgroup.procs"),
        };
        let limit_path = self.dir.join(limit);
        let open = |path: &Path| File::options().write(true).open(path);
        let Ok(before) = read(&limit_path) else { return Ok(false) };
        // "No limit" of version 1 is a number that it does not take back as such on every kernel.
        let unlimited = before.trim_end().parse::<u64>().is_ok_and(|bytes| bytes > u64::MAX / 4);
        let before = if unlimited { "-1" } else { before.trim_end() };
        let Ok(home) = self.home().map(|home| home.join(tasks)) else { return Ok(false) };
        let (Ok(limit), Ok(ours), Ok(theirs)) = (open(&limit_path), open(&home), open(&self.dir.join(tasks)))
        else {
            return Ok(false);
        };
        let allowed = sched_getaffinity(None);
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        let _ = sched_setaffinity(None, &here);
        let charged = if online_cpus() == 1 { Ok(true) } else { charge_here(&theirs, (&ours, &home)) };
        let mut restored = Ok(());
        let used = self.number(usage);
        if let (Ok(true), Ok(used)) = (&charged, &used) {
            // Where it is refused, the batches have been emptied all the same.
            let _ = limit.write_at(used.saturating_sub(PAGE).to_string().as_bytes(), 0);
            restored = limit.write_at(before.as_bytes(), 0).map(drop);
        }
        if let Ok(allowed) = allowed {
            let _ = sched_setaffinity(None, &allowed);
        }
        restored.map_err(|source| CgroupError::Set {
            controller: Controller::Memory,
            path: limit_path,
            value: before.to_owned(),
            source,
        })?;
        Ok(charged? && used.is_ok() && self.await_others(usage, in_use).is_ok())
    }

    /// Other CPUs give back when they come to it.
    fn await_others(&self, usage: &str, in_use: u64) -> Result<(), CgroupError> {
        let until = Instant::now() + PATIENCE;
        while self.number(usage)? > in_use && Instant::now() < until {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Our own directory in this hierarchy.
    fn home(&self) -> Result<PathBuf, CgroupError> {
        let parent = || self.dir.parent().map(Path::to_owned).unwrap_or_default();
        match self.version {
            Version::V1 => Ok(parent()),
            Version::V2 => Ok(Host::discover()?.own_v2().map_or_else(parent, Path::to_owned)),
        }
    }
}

/// Charges a page of this thread to another cgroup and gives it back: a batch of that cgroup stays on this CPU. Nothing else
/// is asked of the kernel meanwhile: what it allocates for us would be charged there, too, and some of it (the nodes of a map that
/// changes) for longer than we are there. Tells whether this user may.
fn charge_here(theirs: &File, (ours, path): (&File, &Path)) -> Result<bool, CgroupError> {
    const FRESH: usize = 1 << 20;
    const FRESH_PAGE: usize = 2 << 12;
    // Large enough to be a mapping of its own, whose pages come with the first write; the table of the first ones is there.
    let mut fresh = vec![0_u8; FRESH];
    fresh[0] = 1;
    if theirs.write_at(b"0", 0).is_err() {
        return Ok(false);
    }
    std::hint::black_box(&mut fresh)[FRESH_PAGE] = 1;
    let returned = ours.write_at(b"0", 0);
    drop(fresh);
    match returned {
        Ok(_) => Ok(true),
        Err(source) => Err(CgroupError::Return { path: path.to_owned(), source }),
    }
}

/// Has the kernel add up the statistics of all cgroups: it does when those of a cgroup above are read after enough changes,
/// and these are made here, outside of the instance.
fn add_up(dir: &Path) {
    let pages = (online_cpus() * 2 + 1) * BATCH;
    let mut fresh = vec![0_u8; pages * 4096];
    for byte in fresh.iter_mut().step_by(4096) {
        *std::hint::black_box(byte) = 1;
    }
    drop(fresh);
    for dir in dir.ancestors().skip(1).take_while(|dir| dir.join("memory.stat").exists()) {
        let _ = read(&dir.join("memory.stat"));
    }
}

/// CPUs that the kernel uses, whichever of them we may use.
fn online_cpus() -> usize {
    let list = read(Path::new("/sys/devices/system/cpu/online")).unwrap_or_default();
    count(list.trim_end()).unwrap_or(1)
}

/// How many numbers a list such as `0-3,5` names (kernel doc: admin-guide/cputopology).
fn count(list: &str) -> Option<usize> {
    list.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus_is_counted() {
        for (list, n) in [("0", Some(1)), ("0-3", Some(4)), ("0-1,4,6-7", Some(5)), ("", None), ("3-1", None)]
        {
            assert_eq!(count(list), n, "{list}");
        }
        assert!(online_cpus() >= 1);
    }
}
