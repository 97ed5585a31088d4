//! What the kernel counted: memory charge and kills for memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Cgroup, CgroupError, Controller, Part, Version};

/// The charge of the instance, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryReading {
    /// Cgroup version that gave the numbers: `v1` or `v2`.
    pub source: &'static str,
    /// Everything charged now.
    pub current_bytes: u64,
    /// Anonymous pages.
    pub anon_bytes: Option<u64>,
    /// Page cache, tmpfs included.
    pub file_bytes: Option<u64>,
    /// Kernel memory.
    pub kernel_bytes: Option<u64>,
    /// High-water mark of the charge.
    pub peak_bytes: u64,
    /// What the kernel tells besides, by the record's key: parts of the three above.
    pub parts: Vec<(&'static str, u64)>,
}

/// Parts that `memory.stat` of version 2 tells, and their keys in records.
const PARTS: [(&str, &str); 8] = [
    ("shmem", "shmem"),
    ("kernel_stack", "kernel_stack"),
    ("pagetables", "host_page_tables"),
    ("sec_pagetables", "secondary_page_tables"),
    ("slab", "slab"),
    ("percpu", "percpu"),
    ("vmalloc", "vmalloc"),
    ("sock", "sock"),
];

impl Cgroup {
    /// The memory charge now; nothing without the memory controller.
    ///
    /// # Errors
    /// A counter that can't be read.
    pub fn read_memory(&self) -> Result<Option<MemoryReading>, CgroupError> {
        let Some(part) = self.part(Controller::Memory) else { return Ok(None) };
        // The charge first: what the other reads cost is not the instance's.
        let reading = match part.version {
            Version::V1 => {
                let current_bytes = part.number("memory.usage_in_bytes")?;
                let stat = part.text("memory.stat")?;
                MemoryReading {
                    source: "v1",
                    current_bytes,
                    anon_bytes: field(&stat, "total_rss"),
                    file_bytes: field(&stat, "total_cache"),
                    kernel_bytes: part.number("memory.kmem.usage_in_bytes").ok(),
                    peak_bytes: part.number("memory.max_usage_in_bytes")?,
                    parts: field(&stat, "total_shmem").map(|bytes| ("shmem", bytes)).into_iter().collect(),
                }
            }
            Version::V2 => {
                let current_bytes = part.number("memory.current")?;
                let stat = part.text("memory.stat")?;
                MemoryReading {
                    source: "v2",
                    current_bytes,
                    anon_bytes: field(&stat, "anon"),
                    file_bytes: field(&stat, "file"),
                    kernel_bytes: field(&stat, "kernel").or_else(|| kernel_parts(&stat)),
                    // Kernels before 5.19 keep no peak: what is known is that it was at least this much.
                    peak_bytes: part.number("memory.peak").unwrap_or(current_bytes),
                    parts: PARTS.iter().filter_map(|(name, key)| Some((*key, field(&stat, name)?))).collect(),
                }
            }
        };
        Ok(Some(reading))
    }

    /// How many processes the kernel killed because the limit was reached.
    #[must_use]
    pub fn oom_killed(&self) -> u64 {
        let Some(part) = self.part(Controller::Memory) else { return 0 };
        let file = match part.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        part.text(file).ok().and_then(|text| field(&text, "oom_kill")).unwrap_or(0)
    }
}

impl Cgroup {
    /// Numbers of the processes in it, as far as our pid namespace can name them.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let text = self.parts.first().and_then(|part| part.text("cgroup.procs").ok()).unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// CPU time of all that ever ran in it, in nanoseconds, where its processes were in it from their first instruction: on
    /// version 2. (On version 1 they join late, and what they did before is not in it.)
    pub(crate) fn cpu_ns(&self) -> Option<u64> {
        let part = self.parts.iter().find(|part| part.version == Version::V2)?;
        field(&part.text("cpu.stat").ok()?, "usage_usec")?.checked_mul(1000)
    }
}

impl Part {
    fn text(&self, file: &str) -> Result<String, CgroupError> {
        read(&self.dir.join(file))
    }

    pub(super) fn number(&self, file: &str) -> Result<u64, CgroupError> {
        let text = self.text(file)?;
        text.trim_end().parse().map_err(|e| CgroupError::Read {
            path: self.dir.join(file),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, e),
        })
    }
}

pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    slurp(path).map_err(|source| CgroupError::Read { path: path.to_owned(), source })
}

/// The whole of a kernel-made file. Such files have no size, so asking for it and growing from small reads, as
/// `fs::read_to_string` does, would be the larger part of the system calls of a start.
pub(crate) fn slurp(path: &Path) -> io::Result<String> {
    const LARGEST: u64 = 4 << 20;
    let mut bytes = Vec::with_capacity(8192);
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Kernel memory where the kernel gives no sum of it (before 5.18).
pub(crate) fn kernel_parts(stat: &str) -> Option<u64> {
    let known = ["kernel_stack", "slab"].map(|name| field(stat, name));
    let more =
        ["pagetables", "percpu", "vmalloc", "sec_pagetables"].map(|name| field(stat, name).unwrap_or(0));
    known.into_iter().chain(more.map(Some)).sum()
}

/// The number after a word at the start of a line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
