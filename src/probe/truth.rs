//! What the host knows: the lines of its files before and after a level ran, and what makes a line the host's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use isolab_images::probe::FileWanted;

/// What makes a value that was seen inside the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    /// The same text.
    Same,
    /// The same text, where the kernel is the host's: of another one it says nothing.
    OfKernel,
    /// A setting: reported.
    Setting,
    /// The same first words.
    Words(usize),
    /// A number that only grows, not before the host's first reading and not after its second.
    Between(Field),
    /// At least so many tasks: there are the planted threads among them.
    Tasks(u64),
    /// A number of seconds that two readings of one clock may give one apart.
    Near,
}

/// Where in a line the number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The first number after the prefix.
    First,
    /// The word of this index.
    Word(usize),
    /// After `total=`.
    Total,
}

/// A file to compare.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) file: FileWanted,
    pub(super) compare: Compare,
}

/// Lines of the host, by probe and item.
pub(super) type Lines = BTreeMap<(String, String), String>;

const FILES: &[(&str, &str, &str, &str, Compare)] = &[
    ("P01", "version", "/proc/version", "", Compare::OfKernel),
    ("P01", "boot id", "/proc/sys/kernel/random/boot_id", "", Compare::Same),
    ("P01", "boot time", "/proc/stat", "btime ", Compare::Near),
    ("P03", "command line", "/proc/cmdline", "", Compare::Same),
    ("P14", "meminfo", "/proc/meminfo", "MemTotal:", Compare::Same),
    ("P14", "stat", "/proc/stat", "ctxt ", Compare::Between(Field::First)),
    ("P14", "uptime", "/proc/uptime", "", Compare::Between(Field::Word(0))),
    ("P14", "vmstat", "/proc/vmstat", "pgfault ", Compare::Between(Field::First)),
    ("P14", "interrupts", "/proc/interrupts", "LOC:", Compare::Between(Field::First)),
    ("P14", "softirqs", "/proc/softirqs", "RCU:", Compare::Between(Field::First)),
    ("P14", "schedstat", "/proc/schedstat", "timestamp ", Compare::Between(Field::First)),
    ("P14", "pressure", "/proc/pressure/cpu", "some ", Compare::Between(Field::Total)),
    ("P14", "timers", "/proc/timer_list", "now at ", Compare::Between(Field::First)),
    ("P14", "keys", "/proc/keys", "", Compare::Words(1)),
    ("P14", "modules", "/proc/modules", "", Compare::Words(2)),
    ("P14", "input devices", "/proc/bus/input/devices", "N: Name", Compare::Same),
    ("P14", "host name", "/proc/sys/kernel/hostname", "", Compare::Same),
    ("P41", "unprivileged BPF", "/proc/sys/kernel/unprivileged_bpf_disabled", "", Compare::Setting),
    ("P41", "kernel pointers", "/proc/sys/kernel/kptr_restrict", "", Compare::Setting),
    ("P41", "kernel log", "/proc/sys/kernel/dmesg_restrict", "", Compare::Setting),
    ("P41", "perf", "/proc/sys/kernel/perf_event_paranoid", "", Compare::Setting),
    ("P41", "io_uring", "/proc/sys/kernel/io_uring_disabled", "", Compare::Setting),
    ("P41", "user namespaces", "/proc/sys/user/max_user_namespaces", "", Compare::Setting),
    ("P41", "security modules", "/sys/kernel/security/lsm", "", Compare::Setting),
    ("P41", "lockdown", "/sys/kernel/security/lockdown", "", Compare::Setting),
];

fn wanted(probe: &str, item: &str, path: &str, prefix: &str, compare: Compare) -> Wanted {
    let file = FileWanted {
        probe: probe.to_owned(),
        item: item.to_owned(),
        path: path.to_owned(),
        prefix: prefix.to_owned(),
    };
    Wanted { file, compare }
}

/// All files to compare on this host; `threads` were planted, and the image has so many KiB.
pub(super) fn files(threads: u32, image_kib: u64) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = FILES
        .iter()
        .map(|(probe, item, path, prefix, compare)| wanted(probe, item, path, prefix, *compare))
        .collect();
    all.push(wanted("P14", "loadavg", "/proc/loadavg", "", Compare::Tasks(threads.into())));
    // The first disk that is one: lines of loop and memory disks are alike everywhere, and a disk of the image's size may be the
    // image, which is the guest's as well.
    let partitions = fs::read_to_string("/proc/partitions").unwrap_or_default();
    let disk = partitions.lines().skip(2).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [major, minor, blocks, name] = words[..] else { return None };
        let in_memory = ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
        let is_image = blocks.parse().is_ok_and(|kib: u64| kib == image_kib);
        (!in_memory && !is_image).then_some((line.trim_start(), [major, minor, name]))
    });
    if let Some((line, head)) = disk {
        all.push(wanted("P14", "partitions", "/proc/partitions", line, Compare::Same));
        let stats = fs::read_to_string("/proc/diskstats").unwrap_or_default();
        let line = stats.lines().map(str::trim_start).find(|line| line.split_whitespace().take(3).eq(head));
        if let Some(end) = line.and_then(|line| Some((line, line.find(head[2])? + head[2].len()))) {
            let prefix = end.0.get(..end.1).unwrap_or_default();
            let reads = Compare::Between(Field::Word(3));
            all.push(wanted("P14", "diskstats", "/proc/diskstats", &format!("{prefix} "), reads));
        }
    }
    let dir = "/sys/devices/system/cpu/vulnerabilities";
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    all.extend(names.iter().map(|name| wanted("P36", name, &format!("{dir}/{name}"), "", Compare::Setting)));
    all
}

/// Reads the host's lines now.
pub(super) fn read(files: &[Wanted]) -> Lines {
    let line = |wanted: &Wanted| {
        let bytes = fs::read(Path::new(&wanted.file.path)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let found = text.lines().map(str::trim_start).find(|line| line.starts_with(&wanted.file.prefix))?;
        Some(((wanted.file.probe.clone(), wanted.file.item.clone()), found.to_owned()))
    };
    files.iter().filter_map(line).collect()
}

/// Whether what was seen is the host's; nothing where a line has no such number.
pub(super) fn is_hosts(wanted: &Wanted, seen: &str, before: &str, after: &str) -> Option<bool> {
    let prefix = wanted.file.prefix.len();
    match wanted.compare {
        Compare::Same | Compare::OfKernel | Compare::Setting => Some(seen == before),
        Compare::Words(n) => Some(seen.split_whitespace().take(n).eq(before.split_whitespace().take(n))),
        Compare::Between(field) => {
            let [seen, before, after] = [seen, before, after].map(|line| number(line, prefix, field));
            Some((before?..=after?).contains(&seen?))
        }
        Compare::Tasks(least) => {
            let tasks: u64 = seen.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
            Some(tasks >= least)
        }
        Compare::Near => {
            let [seen, before] = [seen, before].map(|line| number(line, prefix, Field::First));
            Some(seen?.abs_diff(before?) <= 1)
        }
    }
}

/// A number without its point: uptime has hundredths.
fn number(line: &str, prefix: usize, field: Field) -> Option<u64> {
    let word = match field {
        Field::First => line.get(prefix..)?.split_whitespace().next()?,
        Field::Word(n) => line.split_whitespace().nth(n)?,
        Field::Total => line.split_once("total=")?.1.split_whitespace().next()?,
    };
    let digits: String = word.chars().filter(|c| *c != '.').collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(prefix: &str, compare: Compare, seen: &str, before: &str, after: &str) -> Option<bool> {
        is_hosts(&wanted("P14", "x", "/x", prefix, compare), seen, before, after)
    }

    #[test]
    fn a_counter_is_the_hosts_between_its_two_readings_only() {
        let between = Compare::Between(Field::First);
        assert_eq!(judged("ctxt ", between, "ctxt 15", "ctxt 10", "ctxt 20"), Some(true));
        assert_eq!(judged("ctxt ", between, "ctxt 9", "ctxt 10", "ctxt 20"), Some(false));
        assert_eq!(judged("ctxt ", between, "ctxt 21", "ctxt 10", "ctxt 20"), Some(false));
        assert_eq!(judged("ctxt ", between, "ctxt", "ctxt 10", "ctxt 20"), None);
        let uptime = Compare::Between(Field::Word(0));
        assert_eq!(judged("", uptime, "100.51 3.00", "100.50 1.00", "100.70 9.00"), Some(true));
        let total = Compare::Between(Field::Total);
        assert_eq!(
            judged("some ", total, "some avg10=0.00 total=7", "some total=7", "some total=8"),
            Some(true)
        );
    }

    #[test]
    fn the_planted_threads_are_what_tells_whose_tasks_are_counted() {
        let tasks = Compare::Tasks(200);
        assert_eq!(judged("", tasks, "0.1 0.1 0.1 1/250 77", "", ""), Some(true));
        assert_eq!(judged("", tasks, "0.1 0.1 0.1 1/60 77", "", ""), Some(false));
        assert_eq!(judged("", tasks, "nonsense", "", ""), None);
    }

    #[test]
    fn each_item_is_named_once() {
        let mut names: Vec<(&str, &str)> = FILES.iter().map(|(probe, item, ..)| (*probe, *item)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
