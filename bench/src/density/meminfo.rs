//! The machine's memory, from `/proc/meminfo`.

use std::fs;
use std::io;
use std::path::Path;

/// What counts as memory that can't be reclaimed: no page cache, no free lists.
const UNRECLAIMABLE: [&str; 7] =
    ["AnonPages", "Shmem", "KernelStack", "PageTables", "SecPageTables", "SUnreclaim", "Percpu"];

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemMemory {
    /// What can't be reclaimed. A kernel that does not tell one of the parts (`SecPageTables` came with Linux 6.1) has it
    /// in none.
    pub unreclaimable: u64,
    /// What could be given to programs.
    pub available: u64,
    /// RAM.
    pub total: u64,
}

impl SystemMemory {
    /// Reads it under `root` (`/` but for tests). Where this user may, the kernel adds up its counters of each CPU first:
    /// each may lag behind by some hundred KiB.
    ///
    /// # Errors
    /// The file can't be read, or lacks what every Linux tells.
    pub fn now(root: &Path) -> io::Result<Self> {
        // Root only; without it the numbers are rougher, and the residual says how rough.
        let _ = fs::read(root.join("proc/sys/vm/stat_refresh"));
        let text = fs::read_to_string(root.join("proc/meminfo"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "lines of meminfo are missing"))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let number = |line: &str| {
                line.strip_prefix(key)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok()
            };
            text.lines().find_map(number).and_then(|kib: u64| kib.checked_mul(1024))
        };
        // The largest part is in every Linux.
        bytes(UNRECLAIMABLE[0])?;
        Some(Self {
            unreclaimable: UNRECLAIMABLE.into_iter().filter_map(bytes).fold(0, u64::saturating_add),
            available: bytes("MemAvailable")?,
            total: bytes("MemTotal")?,
        })
    }

    /// Whether so little is left that nothing more is started.
    #[must_use]
    pub const fn is_little(&self) -> bool {
        self.available <= self.total / 100 * super::LEAST_AVAILABLE_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "MemTotal:     1000 kB\nMemFree:  1 kB\nMemAvailable:  101 kB\nCached: 7000 kB\nAnonPages: 20 kB\n\
                        Shmem: 3 kB\nShmemHugePages: 900 kB\nKernelStack: 4 kB\nPageTables: 5 kB\nSUnreclaim: 6 kB\nPercpu: 7 kB\n";

    #[test]
    fn adds_what_cannot_be_reclaimed_and_nothing_else() {
        let memory = SystemMemory::parse(TEXT).expect("all lines");
        assert_eq!(memory.unreclaimable, 45 * 1024);
        assert_eq!((memory.available, memory.total), (101 * 1024, 1000 * 1024));
    }

    #[test]
    fn a_tenth_is_little() {
        let memory = SystemMemory::parse(TEXT).expect("all lines");
        assert!(!memory.is_little());
        assert!(SystemMemory { available: memory.total / 10, ..memory }.is_little());
    }

    #[test]
    fn what_every_linux_tells_must_be_there() {
        assert_eq!(SystemMemory::parse(&TEXT.replace("AnonPages", "Anon")), None);
        assert_eq!(SystemMemory::parse(&TEXT.replace("MemAvailable", "MemAv")), None);
        assert_eq!(SystemMemory::parse(&TEXT.replace("20 kB", "x kB")), None);
    }

    #[test]
    fn this_machine_tells_it() {
        let memory = SystemMemory::now(Path::new("/")).expect("Linux tells it");
        assert!(0 < memory.unreclaimable && memory.unreclaimable < memory.total);
        assert!(memory.available <= memory.total);
    }
}
