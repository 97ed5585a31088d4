//! What `/proc` tells of the live processes of an instance.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::slurp;

/// `PF_KTHREAD`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Sums over all processes; nothing where one of them did not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    /// Pages of theirs, each page that several map counted for each.
    pub(crate) rss: Option<u64>,
    /// Pages of theirs, a page that several map (also outside of the instance) divided by their number.
    pub(crate) pss: Option<u64>,
    /// Pages that only one of them maps, and nobody else.
    pub(crate) uss: Option<u64>,
    /// Their page tables.
    pub(crate) page_tables: Option<u64>,
    /// Anonymous pages of the ranges that a VMM published.
    pub(crate) guest_ram: Option<u64>,
    /// CPU time of all their threads since they were made, in nanoseconds.
    pub(crate) cpu_ns: Option<u64>,
    /// The same of kernel threads that serve them (KVM has some), which nothing else here counts.
    pub(crate) kernel_cpu_ns: Option<u64>,
    /// Faults served without reading.
    pub(crate) minflt: Option<u64>,
    /// Faults that had to wait for a disk.
    pub(crate) majflt: Option<u64>,
    /// Times that a thread gave up its CPU.
    pub(crate) nvcsw: Option<u64>,
    /// Times that a thread lost its CPU.
    pub(crate) nivcsw: Option<u64>,
    /// Processes.
    pub(crate) processes: u64,
    /// Threads.
    pub(crate) threads: u64,
}

impl Processes {
    /// Reads those of these numbers; `ram` are the ranges of guest RAM in the address space of the process `vmm`.
    pub(crate) fn read(pids: &[i32], vmm: i32, ram: &[(u64, u64)]) -> Self {
        let mut sum = Self { guest_ram: None, ..Self::zero() };
        for pid in pids {
            sum.add(&PathBuf::from(format!("/proc/{pid}")));
        }
        if !ram.is_empty() {
            let maps = slurp(Path::new(&format!("/proc/{vmm}/smaps"))).ok();
            sum.guest_ram = maps.and_then(|maps| within(&maps, ram));
        }
        sum
    }

    /// CPU time of all threads of these processes, and of kernel threads among them, in nanoseconds; nothing where one of
    /// them did not tell.
    pub(crate) fn cpu_ns(pids: &[i32]) -> Option<u64> {
        let tasks = |pid: &i32| fs::read_dir(format!("/proc/{pid}/task")).ok();
        let mut sum = Some(0);
        for tasks in pids.iter().map(tasks) {
            for task in tasks?.flatten() {
                add(&mut sum, run_time(&slurp(&task.path().join("schedstat")).ok()?));
            }
        }
        sum
    }

    const fn zero() -> Self {
        let zero = Some(0);
        Self {
            rss: zero,
            pss: zero,
            uss: zero,
            page_tables: zero,
            guest_ram: zero,
            cpu_ns: zero,
            kernel_cpu_ns: zero,
            minflt: zero,
            majflt: zero,
            nvcsw: zero,
            nivcsw: zero,
            processes: 0,
            threads: 0,
        }
    }

    fn add(&mut self, dir: &Path) {
        let text = |name: &str| slurp(&dir.join(name)).unwrap_or_default();
        let stat = text("stat");
        // After the name in brackets, which may hold anything, field 3 comes first (proc_pid_stat(5)).
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |n: usize| after.split_ascii_whitespace().nth(n - 3)?.parse::<u64>().ok();
        if field(9).is_some_and(|flags| flags & KERNEL_THREAD != 0) {
            add(&mut self.kernel_cpu_ns, run_time(&text("schedstat")));
            return;
        }
        self.processes += 1;
        let (rollup, status) = (text("smaps_rollup"), text("status"));
        let private = kib(&rollup, "Private_Clean").zip(kib(&rollup, "Private_Dirty")).map(|(a, b)| a + b);
        add(&mut self.rss, kib(&rollup, "Rss"));
        add(&mut self.pss, kib(&rollup, "Pss"));
        add(&mut self.uss, private);
        add(&mut self.page_tables, kib(&status, "VmPTE"));
        add(&mut self.minflt, field(10));
        add(&mut self.majflt, field(12));
        let tasks = fs::read_dir(dir.join("task")).into_iter().flatten().flatten();
        for task in tasks.map(|entry| entry.path()) {
            self.threads += 1;
            let of = |name: &str| slurp(&task.join(name)).unwrap_or_default();
            add(&mut self.cpu_ns, run_time(&of("schedstat")));
            let status = of("status");
            add(&mut self.nvcsw, line(&status, "voluntary_ctxt_switches").and_then(|n| n.parse().ok()));
            add(&mut self.nivcsw, line(&status, "nonvoluntary_ctxt_switches").and_then(|n| n.parse().ok()));
        }
    }
}

/// Time on a CPU, the first number of `schedstat`.
pub(crate) fn run_time(schedstat: &str) -> Option<u64> {
    schedstat.split(' ').next()?.parse().ok()
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    *sum = sum.zip(more).map(|(a, b)| a.saturating_add(b));
}

/// The value of a line `name: value`.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// Bytes of a line `name: N kB`.
pub(crate) fn kib(text: &str, name: &str) -> Option<u64> {
    line(text, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Anonymous bytes of the mappings inside of these ranges. Nothing where a mapping lies across an end: the kernel has then
/// joined guest RAM with something else, and the two can't be told apart.
pub(crate) fn within(maps: &str, ranges: &[(u64, u64)]) -> Option<u64> {
    let mut sum = 0_u64;
    let mut inside = false;
    for line in maps.lines() {
        if let Some((start, end)) = mapping(line) {
            let covers = |&(first, len): &(u64, u64)| start >= first && end <= first.saturating_add(len);
            let touches = |&(first, len): &(u64, u64)| start < first.saturating_add(len) && end > first;
            inside = ranges.iter().any(covers);
            if !inside && ranges.iter().any(touches) && !spans_whole(ranges, start, end) {
                return None;
            }
            inside |= spans_whole(ranges, start, end);
        } else if inside && let Some(bytes) = kib(line, "Anonymous") {
            sum = sum.saturating_add(bytes);
        }
    }
    Some(sum)
}

/// Whether a mapping is made of whole ranges and nothing else.
fn spans_whole(ranges: &[(u64, u64)], start: u64, end: u64) -> bool {
    let mut held = ranges.iter().filter(|(first, len)| *first >= start && first.saturating_add(*len) <= end);
    held.try_fold(0_u64, |sum, (_, len)| sum.checked_add(*len)) == Some(end.saturating_sub(start))
}

/// First and last address of a line `start-end flags ...`.
fn mapping(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-3000 rw-p 00000000 00:00 0
Rss:                   8 kB
Anonymous:             8 kB
7000-9000 rw-p 00000000 00:00 0
Anonymous:             4 kB
a000-b000 rw-p 00000000 00:00 0          [heap]
Anonymous:             4 kB
";

    #[test]
    fn guest_ram_is_what_lies_in_the_published_ranges_and_nothing_else() {
        assert_eq!(within(MAPS, &[(0x1000, 0x2000)]), Some(8192));
        assert_eq!(within(MAPS, &[(0x1000, 0x2000), (0x7000, 0x2000)]), Some(12288));
        assert_eq!(within(MAPS, &[(0x7000, 0x1000), (0x8000, 0x1000)]), Some(4096), "joined by the kernel");
        assert_eq!(within(MAPS, &[(0x7000, 0x1000)]), None, "joined with something else");
        assert_eq!(within(MAPS, &[(0x6000, 0x2000)]), None);
        assert_eq!(within("", &[(0x6000, 0x2000)]), Some(0));
        let all = "0-ffffffffffffffff rw-p 00000000 00:00 0\n";
        assert_eq!(within(all, &[(1, u64::MAX), (2, u64::MAX)]), None, "ranges that no address space holds");
    }

    #[test]
    fn this_process_tells_of_itself() {
        let pid = i32::try_from(std::process::id()).expect("a number");
        let ours = Processes::read(&[pid], pid, &[]);
        assert!(ours.pss <= ours.rss && ours.uss <= ours.pss && ours.uss > Some(0), "{ours:?}");
        assert!(ours.cpu_ns > Some(0) && ours.page_tables > Some(0) && ours.threads > 0, "{ours:?}");
        assert_eq!(ours.guest_ram, None);
        assert!(Processes::cpu_ns(&[pid]) >= ours.cpu_ns);
        assert_eq!(Processes::cpu_ns(&[pid, i32::MAX]), None);
    }

    #[test]
    fn one_process_that_is_gone_leaves_the_sums_unknown() {
        let pid = i32::try_from(std::process::id()).expect("a number");
        assert_eq!(Processes::read(&[pid, i32::MAX], pid, &[]).pss, None);
    }
}
