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
}

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
                    kernel_bytes: field(&stat, "kernel"),
                    // Kernels before 5.19 keep no peak: what is known is that it was at least this much.
                    peak_bytes: part.number("memory.peak").unwrap_or(current_bytes),
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

impl Part {
    fn text(&self, file: &str) -> Result<String, CgroupError> {
        read(&self.dir.join(file))
    }

    fn number(&self, file: &str) -> Result<u64, CgroupError> {
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
pub(super) fn slurp(path: &Path) -> io::Result<String> {
    const LARGEST: u64 = 4 << 20;
    let mut bytes = Vec::with_capacity(8192);
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// The number after a word at the start of a line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
