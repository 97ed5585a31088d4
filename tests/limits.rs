//! Limits: enforced and read back from the kernel, or the run is refused.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::lab::WALL;
use support::{busybox, ends_within, in_lab, isolab, run};

/// Two loops that take all they get.
const TWO_LOOPS: &str = "while :; do :; done & echo started; while :; do :; done";
/// Counts the processes that it may start.
const MANY: &str = "i=0; while sleep 1000 & do i=$((i+1)); echo $i; done";

/// A container that runs until dropped.
struct Running(Child);

impl Running {
    fn start(options: &[&str], script: &str) -> Self {
        let args = [&["run"], options, &["busybox", "--", "sh", "-c", script]].concat();
        let mut child =
            isolab(&args).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("isolab starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("isolab writes");
        assert_eq!(line, "started\n");
        Self(child)
    }

    /// Its directories, one in each hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        let name = format!("isolab-{}-", self.0.id());
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&name) {
                    found.push(entry.path());
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(entry.path());
                }
            }
        }
        found
    }

    /// What the first of these files that there is holds.
    fn read(&self, names: &[&str]) -> String {
        let dirs = self.cgroups();
        let files = names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
        let text = files.filter_map(|file| std::fs::read_to_string(file).ok()).next();
        text.unwrap_or_else(|| panic!("none of {names:?} in {dirs:?}")).trim().to_owned()
    }

    /// CPU time that its processes had so far, in clock ticks.
    fn ticks(&self) -> u64 {
        let members = self.read(&["cgroup.procs"]);
        let of = |pid: &str| {
            let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
            let (_, rest) = stat.rsplit_once(") ").unwrap_or_default();
            rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
        };
        members.lines().map(of).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = run(&["gc"]);
    }
}

#[test]
fn what_was_asked_for_is_what_the_kernel_holds() {
    busybox();
    let running =
        Running::start(&["--memory", "64M", "--cpus", "1", "--pids", "7"], "echo started; sleep 1000");
    let quota = running.read(&["cpu.max", "cpu.cfs_quota_us"]);
    assert_eq!(quota.split(' ').next(), Some("100000"));
    assert_eq!(running.read(&["memory.max", "memory.limit_in_bytes"]), (64 << 20).to_string());
    assert_eq!(running.read(&["pids.max"]), "7");
}

#[test]
fn two_loops_get_one_cpu_where_one_was_asked_for() {
    busybox();
    let running = Running::start(&["--cpus", "1"], TWO_LOOPS);
    let (start, before) = (Instant::now(), running.ticks());
    // The span that is measured over: nothing ends it but time.
    assert!(!ends_within(&running.0, Duration::from_secs(3)));
    let (wall, ticks) = (start.elapsed(), running.ticks() - before);
    let used = ticks as f64 / rustix::param::clock_ticks_per_second() as f64 / wall.as_secs_f64();
    println!("two loops had {used:.2} CPUs, {}", running.read(&["cpu.stat"]).replace('\n', ", "));
    assert!(used < 1.1, "{used} CPUs");
    let throttled = running.read(&["cpu.stat"]);
    let throttled = throttled.lines().find_map(|line| line.strip_prefix("nr_throttled ")).map(str::parse);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    // On a machine that has no more to give, nothing has to be held back.
    assert!(cpus == 1 || used < 1.0 || throttled.is_some_and(|n| n.is_ok_and(|n: u64| n > 0)));
}

#[test]
fn the_process_limit_counts_process_1_and_the_command() {
    busybox();
    let result = run(&["run", "--pids", "5", "busybox", "--", "sh", "-c", MANY]);
    assert_eq!((result.status, result.stdout.as_str()), (Some(2), "1\n2\n3\n"), "{}", result.stderr);
    assert!(result.stderr.contains("can't fork"), "{}", result.stderr);
}

#[test]
fn each_writable_file_system_holds_so_many_files_and_no_more() {
    busybox();
    // Half of the memory, a file for each page of it: 8192, of which the root's own directories are some.
    let script = "cd $0; i=0; while true 2>/dev/null > f$i; do i=$((i+1)); done; echo $i";
    for (options, dir) in [(&[][..], "/root"), (&[], "/dev/shm"), (&["--read-only"], "/tmp")] {
        let command = ["run", "--memory", "64M"];
        let result = run(&[&command, options, &["busybox", "--", "sh", "-c", script, dir]].concat());
        let files = result.stdout.lines().last().and_then(|line| line.parse::<u32>().ok());
        assert!(files.is_some_and(|n| (8000..=8192).contains(&n)), "{dir}: {result:?}");
    }
}

#[test]
fn an_option_that_would_have_no_effect_at_the_level_is_refused() {
    for (level, option, value, instead) in [
        ("process", "--memory", "64M", "container or vm"),
        ("process", "--cpus", "1", "container or vm"),
        ("process", "--pids", "10", "container"),
        ("process", "--hostname", "x", "container or vm"),
        ("vm", "--pids", "10", "container"),
    ] {
        let result = run(&["run", "--level", level, option, value, "demo"]);
        assert_eq!(result.status, Some(125), "{level} {option}");
        let expected = format!(
            "isolab: {option} has no effect at level {level}; leave it out, or use --level {instead}\n"
        );
        assert_eq!(result.stderr, expected);
    }
}

/// In the lab (cgroup v2, two CPUs), at the process level, which sees the lab's cgroups: starts a container and reads
/// what the kernel holds and how much CPU time two loops had.
const LAB_READ: &str = r#"
export ISOLAB_HOME=/lab/home
nsenter -t 1 -m /lab/isolab run --memory 64M --cpus 1 --pids 7 busybox -- \
  sh -c 'while :; do :; done & while :; do :; done' &
n=0
until cd /proc/1/root/sys/fs/cgroup/isolab-$!-* && grep -q . cgroup.procs; do
  sleep 0.1
  [ $((n += 1)) -lt 300 ] || exit 1
done 2>/dev/null
for f in cpu.max memory.max memory.swap.max memory.oom.group pids.max; do echo "$f $(cat $f)"; done
now() { read -r up _ < /proc/uptime; echo "${up/./}"; }
used() { sed -n 's/^usage_usec //p' cpu.stat; }
sleep 0.5
u=$(used) t=$(now)
sleep 2
u=$(($(used) - u)) t=$(($(now) - t))
echo "percent $((u / 100 / t))"
grep nr_throttled cpu.stat
kill $!
wait $!
"#;

#[test]
fn version_2_of_cgroups_and_the_guest_keep_the_limits_too() {
    busybox();
    let commands: [&[&str]; 7] = [
        &["run", "--level", "process", "busybox", "--", "sh", "-c", LAB_READ],
        &["run", "--pids", "5", "busybox", "--", "sh", "-c", MANY],
        &["run", "--memory", "64M", "demo", "--", "/isolab-work", "touch", "128"],
        &["run", "--level", "vm", "--cpus", "2", "busybox", "--", "nproc"],
        &[
            "run",
            "--level",
            "vm",
            "--memory",
            "96M",
            "busybox",
            "--",
            "sed",
            "-n",
            "s/^MemTotal: *//p",
            "/proc/meminfo",
        ],
        &["snapshot", "--cpus", "2", "--memory", "96M", "busybox"],
        &[
            "run",
            "--level",
            "vm",
            "--from-snapshot",
            "--cpus",
            "2",
            "--memory",
            "96M",
            "busybox",
            "--",
            "sh",
            "-c",
            "nproc; sed -n 's/^MemTotal: *//p' /proc/meminfo",
        ],
    ];
    let options = [&WALL[..], &["--lab-cpus", "2"]].concat();
    let results = in_lab(&options, &["busybox"], &commands.map(<[&str]>::to_vec));
    let [held, pids, memory, nproc, total, made, restored] = &results[..] else { panic!("seven results") };
    let values: BTreeMap<&str, &str> = held.stdout.lines().filter_map(|line| line.split_once(' ')).collect();
    let expected = [
        ("cpu.max", "100000 100000"),
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("pids.max", "7"),
    ];
    for (file, value) in expected {
        assert_eq!(values.get(file), Some(&value), "{}{}", held.stdout, held.stderr);
    }
    let number = |name: &str| values.get(name).and_then(|text| text.parse::<u64>().ok()).expect("a number");
    assert!(number("percent") <= 115, "{}", held.stdout);
    // Where the machine has no more than one CPU to give, there is nothing to throttle.
    assert!(number("nr_throttled") > 0 || number("percent") <= 100, "{}", held.stdout);
    assert_eq!((pids.status, pids.stdout.as_str()), (Some(2), "1\n2\n3\n"), "{}", pids.stderr);
    assert_eq!(memory.status, Some(137), "{}", memory.stderr);
    assert_eq!((nproc.status, nproc.stdout.as_str()), (Some(0), "2\n"), "{}", nproc.stderr);
    assert_eq!(total.status, Some(0), "{}", total.stderr);
    let kib = |text: &str| text.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    assert!((60 << 10..96 << 10).contains(&kib(&total.stdout)), "{} of 96 MiB", total.stdout);
    assert_eq!(made.status, Some(0), "{}", made.stderr);
    let (cpus, memory) = restored.stdout.split_once('\n').expect("two lines");
    assert_eq!(cpus, "2", "{}", restored.stderr);
    assert!((60 << 10..96 << 10).contains(&kib(memory)), "{memory} of 96 MiB");
}
