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
use std::io;
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
    pub(crate) fn settle(&self) {
        let Some(part) = self.part(Controller::Memory) else { return };
        // Process 1 may still be on its way to its rest, and each page that it asks for takes a batch again.
        for _ in 0..ROUNDS {
            add_up(&part.dir);
            let Ok(Some(memory)) = self.read_memory() else { return };
            let used =
                [memory.anon_bytes, memory.file_bytes, memory.kernel_bytes].into_iter().flatten().sum();
            if memory.current_bytes <= used || part.give_back(used).is_err() {
                return;
            }
        }
        add_up(&part.dir);
    }
}

impl Part {
    /// Gives back what is charged beyond these bytes.
    fn give_back(&self, in_use: u64) -> Result<(), CgroupError> {
        let (usage, limit, tasks) = match self.version {
            Version::V1 => ("memory.usage_in_bytes", "memory.limit_in_bytes", "tasks"),
            Version::V2 => ("memory.current", "memory.high", "cgroup.procs"),
        };
        let open = |path: PathBuf| {
            File::options().write(true).open(&path).map_err(|source| CgroupError::Read { path, source })
        };
        let before = read(&self.dir.join(limit))?;
        // "No limit" of version 1 is a number that it does not take back as such on every kernel.
        let unlimited = before.trim_end().parse::<u64>().is_ok_and(|bytes| bytes > u64::MAX / 4);
        let before = if unlimited { "-1" } else { before.trim_end() };
        let limit = open(self.dir.join(limit))?;
        let (ours, theirs) = (open(self.home()?.join(tasks))?, open(self.dir.join(tasks))?);
        let allowed = sched_getaffinity(None);
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        let _ = sched_setaffinity(None, &here);
        let given = std::thread::available_parallelism().map_or(1, usize::from) == 1
            || charge_here(&theirs, &ours).is_ok();
        let result = self.number(usage).map(|used| {
            if given {
                let _ = limit.write_at(used.saturating_sub(PAGE).to_string().as_bytes(), 0);
                let _ = limit.write_at(before.as_bytes(), 0);
            }
        });
        if let Ok(allowed) = allowed {
            let _ = sched_setaffinity(None, &allowed);
        }
        result?;
        self.await_others(usage, in_use)
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
/// is asked of the kernel meanwhile: what it allocates for us would be charged there, too.
fn charge_here(theirs: &File, ours: &File) -> io::Result<()> {
    const FRESH: usize = 1 << 20;
    // Large enough to be a mapping of its own, whose pages come with the first write.
    let mut fresh = Vec::<u8>::with_capacity(FRESH);
    theirs.write_at(b"0", 0)?;
    fresh.push(1);
    drop(std::hint::black_box(fresh));
    ours.write_at(b"0", 0).map(drop)
}

/// Has the kernel add up the statistics of all cgroups: it does when those of a cgroup above are read after enough changes,
/// and these are made here, outside of the instance.
fn add_up(dir: &Path) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let pages = (cpus * 2 + 1) * BATCH;
    let mut fresh = vec![0_u8; pages * 4096];
    for byte in fresh.iter_mut().step_by(4096) {
        *std::hint::black_box(byte) = 1;
    }
    drop(fresh);
    for dir in dir.ancestors().skip(1).take_while(|dir| dir.join("memory.stat").exists()) {
        let _ = read(&dir.join("memory.stat"));
    }
}
