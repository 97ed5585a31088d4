//! Leaks too small for one look: numbers of the machine while a command runs many times, and what each run adds to them.
//!
//! The slope is that of Cox and Stuart's pairs: each sample of the first half against the one as far into the second half, so that
//! no two pairs share a sample; of their slopes Hodges and Lehmann's estimate with its 95 % interval
//! (`isolab_bench::statistics`). A number leaks where the interval lies above zero and the slope above what is noise, in
//! each of [`TRIES`] series: what others do on this machine rises by chance in one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use isolab_bench::statistics::hodges_lehmann;

use super::leaks::{FOLDERS, look};

/// Samples of a series.
pub(crate) const SAMPLES: usize = 24;
/// Series in which a leak must show.
const TRIES: usize = 3;
/// Numbers that are sizes in KiB. All others are counts.
const SIZES: [&str; 3] = ["kernel memory", "disk", "parent's memory"];
/// KiB in a whole series that are noise, but never more than a page for each run.
const LEAST_KIB: f64 = 1024.0;
const PAGE_KIB: f64 = 4.0;
/// Things for each run that are noise.
const LEAST: f64 = 0.5;

/// Each number by its name.
pub(crate) type Numbers = BTreeMap<&'static str, f64>;

/// The numbers now; `parent` is a process that lives all the time and starts the runs.
pub(crate) fn numbers(home: &Path, parent: Option<u32>) -> Numbers {
    let mut numbers = Numbers::new();
    // Each kind, that it was not there at first included.
    let kinds = ["process", "zombie", "mount", "namespace", "cgroup", "loop device", "folder", "ipc object"];
    let more = ["network link", "trace instance", "mapped device", "key"];
    numbers.extend(kinds.into_iter().chain(more).map(|kind| (kind, 0.0)));
    for leak in look(home) {
        *numbers.entry(leak.what).or_default() += 1.0;
    }
    numbers.insert("own descriptors", entries(Path::new("/proc/self/fd")));
    if let Some(pid) = parent {
        numbers.insert("parent's descriptors", entries(&Path::new("/proc").join(pid.to_string()).join("fd")));
        numbers.insert("parent's memory", field(&format!("/proc/{pid}/status"), "VmRSS:"));
    }
    // What the kernel keeps of names and inodes until it needs their memory, those of cgroups that are gone among them, has parts that
    // it counts as memory that can't be reclaimed. Only root can have it dropped.
    let _ = fs::write("/proc/sys/vm/drop_caches", "2");
    let open = fs::read_to_string("/proc/sys/fs/file-nr").expect("/proc");
    numbers
        .insert("open files", open.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number"));
    numbers.insert("kernel memory", field("/proc/meminfo", "SUnreclaim:"));
    let ours = FOLDERS.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let ours = ours.filter(|entry| entry.file_name().to_string_lossy().to_lowercase().contains("isolab"));
    numbers.insert("disk", disk_kib(home) + ours.map(|entry| disk_kib(&entry.path())).sum::<f64>());
    numbers
}

fn entries(dir: &Path) -> f64 {
    f64::from(u32::try_from(fs::read_dir(dir).into_iter().flatten().count()).expect("few"))
}

/// A field in KiB.
fn field(path: &str, name: &str) -> f64 {
    let text = fs::read_to_string(path).expect("/proc");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// What lies below a path takes on its disk, in KiB.
fn disk_kib(path: &Path) -> f64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0.0 };
    let own = f64::from(u32::try_from(meta.blocks()).expect("not so large")) / 2.0;
    if !meta.is_dir() {
        return own;
    }
    own + fs::read_dir(path).into_iter().flatten().flatten().map(|entry| disk_kib(&entry.path())).sum::<f64>()
}

/// What each run adds to a number: slope, interval.
fn slope(values: &[f64], runs_per_sample: f64) -> Option<(f64, [f64; 2])> {
    let half = values.len() / 2;
    let apart = f64::from(u32::try_from(half).ok()?) * runs_per_sample;
    let slopes: Vec<f64> = values.iter().zip(&values[half..]).map(|(a, b)| (b - a) / apart).collect();
    let found = hodges_lehmann(&slopes)?;
    Some((found.median, found.ci95?))
}

/// The numbers that rose in a series.
fn risen(samples: &[Numbers], runs_per_sample: f64, tell: bool) -> BTreeSet<&'static str> {
    let mut risen = BTreeSet::new();
    for name in samples.iter().flat_map(BTreeMap::keys).copied().collect::<BTreeSet<_>>() {
        let values: Vec<f64> = samples.iter().filter_map(|numbers| numbers.get(name).copied()).collect();
        let Some((slope, [low, high])) = slope(&values, runs_per_sample) else { continue };
        let runs = runs_per_sample * f64::from(u32::try_from(samples.len()).expect("few"));
        let least = if SIZES.contains(&name) { PAGE_KIB.min(LEAST_KIB / runs) } else { LEAST };
        if tell && (low, high) != (0.0, 0.0) {
            println!("  {name}: {slope:.3} [{low:.3}, {high:.3}] a run");
        }
        if low > 0.0 && slope > least {
            risen.insert(name);
        }
    }
    risen
}

/// Runs something so many times between two samples and gives the numbers that each run adds to.
pub(crate) fn leaks(
    runs_per_sample: usize,
    mut run: impl FnMut(),
    mut numbers: impl FnMut() -> Numbers,
    tell: bool,
) -> BTreeSet<&'static str> {
    let mut found: Option<BTreeSet<&'static str>> = None;
    for _ in 0..TRIES {
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            (0..runs_per_sample).for_each(|_| run());
            samples.push(numbers());
        }
        let risen = risen(&samples, f64::from(u32::try_from(runs_per_sample).expect("few")), tell);
        let still =
            found.map_or_else(|| risen.clone(), |before| before.intersection(&risen).copied().collect());
        if still.is_empty() {
            return still;
        }
        found = Some(still);
    }
    found.unwrap_or_default()
}
