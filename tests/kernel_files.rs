//! What procfs and sysfs show and take inside of a container, file by file: a golden list. A difference in either direction fails.

mod support;

use std::collections::BTreeSet;

use support::{Done, busybox, in_lab};

/// Says of each of these files, or of each below `/proc` and `/sys` that is no process's, whether it can be opened for writing, and
/// whether it shows anything.
const LOOK: &str = r#"
if [ $# = 0 ]; then find /proc /sys -path '/proc/[0-9]*' -prune -o -type f -print; else printf '%s\n' "$@"; fi |
while read -r file; do
  { true >> "$file"; } && echo "takes $file"
  line=
  read -r line < "$file"
  [ -n "$line" ] && echo "shows $file"
done 2>/dev/null
echo looked
"#;

/// What of `/proc` shows something, but for the settings below `sys`: nearly all of it is the host's. Each interrupt is `N`.
const SHOWN: &str = "
    buddyinfo bus/input/handlers cgroups cmdline consoles cpuinfo crypto devices diskstats driver/rtc dynamic_debug/control
    execdomains filesystems iomem ioports irq/N/affinity_hint irq/N/effective_affinity irq/N/effective_affinity_list irq/N/node
    irq/N/smp_affinity irq/N/smp_affinity_list irq/N/spurious irq/default_smp_affinity kallsyms loadavg meminfo misc modules
    partitions pressure/cpu pressure/io pressure/memory schedstat softirqs stat swaps sysvipc/msg sysvipc/sem sysvipc/shm tty/drivers
    tty/ldiscs uptime version vmstat zoneinfo
";

fn facts<'a>(done: &'a Done, kind: &str) -> BTreeSet<&'a str> {
    assert_eq!((done.status, done.stdout.lines().last()), (Some(0), Some("looked")), "{}", done.stderr);
    done.stdout.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')).collect()
}

/// The file, of whichever interrupt it is.
fn named(file: &str) -> String {
    let parts = file.split('/').map(|part| if part.parse::<u32>().is_ok() { "N" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn a_container_can_write_none_of_the_kernels_files_and_reads_only_those_listed_here() {
    busybox();
    let run = |level, files: &[&'static str]| {
        [&["run", "--level", level, "busybox", "--", "sh", "-c", LOOK, "sh"], files].concat()
    };
    // Not all of them where nothing is masked: some have no end, and some wait.
    let some = ["/proc/interrupts", "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"];
    let results = in_lab(&[], &["busybox"], &[run("container", &[]), run("process", &some)]);
    let [container, process] = &results[..] else { panic!("two results") };
    assert_eq!(facts(container, "takes"), BTreeSet::new(), "settings of the kernel that all share");
    let (settings, shown): (BTreeSet<&str>, _) =
        facts(container, "shows").into_iter().partition(|file| file.starts_with("/proc/sys/"));
    let shown: BTreeSet<String> = shown.into_iter().map(named).collect();
    let expected: BTreeSet<String> = SHOWN.split_whitespace().map(|file| format!("/proc/{file}")).collect();
    assert_eq!(shown, expected);
    assert!(settings.contains("/proc/sys/kernel/osrelease"));
    // The same look finds more where nothing is masked.
    assert_eq!(facts(process, "takes"), BTreeSet::from(some));
    assert!(facts(process, "shows").contains(some[0]));
}
