//! Work that the host's kernel does for a container and charges to nobody: programs that it starts itself (handlers of crashes, loaders of
//! modules), and time outside of the container's cgroup. In the lab, where nothing else runs; each kind is seen where nothing keeps it away.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use support::half_in_lab_with;

/// Name of this test's own half, which runs inside of the lab.
const INSIDE: &str = "inside_the_lab_the_kernels_own_programs_are_counted";
/// Where the lab has its cgroups.
const ROOT: &str = "/sys/fs/cgroup";
/// Crashes of a loop.
const CRASHES: usize = 100;

#[test]
fn no_crash_and_no_socket_has_the_hosts_kernel_start_a_program_or_work_outside_of_the_cgroup() {
    half_in_lab_with(&["--lab-clock", "wall"], &["busybox"], INSIDE);
}

/// Events of the kernel's own, from now on.
struct Trace(PathBuf);

impl Trace {
    fn start() -> Self {
        let own = Path::new("/sys/kernel/tracing/instances/unaccounted");
        fs::create_dir(own).expect("a trace of our own");
        for event in ["module/module_request", "sched/sched_process_exec"] {
            fs::write(own.join("events").join(event).join("enable"), "1").expect("an event");
        }
        Self(own.to_owned())
    }

    /// Lines with each of these words, of what has come since it was last asked.
    fn taken<const N: usize>(&self, words: [&str; N]) -> [usize; N] {
        let text = fs::read_to_string(self.0.join("trace")).expect("a trace");
        fs::write(self.0.join("trace"), "").expect("emptied");
        words.map(|word| text.lines().filter(|line| line.contains(word)).count())
    }
}

/// A run that says a line, waits for one, crashes in a loop, says so and waits again.
struct Crashing {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Crashing {
    fn start(level: &str) -> Self {
        let script = format!(
            "echo started; read line; i=0; while [ $i -lt {CRASHES} ]; do sh -c 'kill -SEGV $$'; i=$((i+1)); done; \
             echo crashed; read line"
        );
        let mut command = Command::new("/lab/isolab");
        command.args(["run", "--on", "host", "--level", level, "-i", "busybox", "--", "sh", "-c", &script]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("isolab starts");
        let input = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut running = Self { child, input, lines };
        assert_eq!(running.next(), "started");
        running
    }

    fn next(&mut self) -> String {
        self.lines.next().and_then(Result::ok).expect("a line of the workload")
    }

    fn cgroup(&self) -> PathBuf {
        let name = format!("isolab-{}-", self.child.id());
        let all = fs::read_dir(ROOT).expect("cgroups").flatten().map(|entry| entry.path());
        all.into_iter().find(|path| path.to_string_lossy().contains(&name)).expect("its cgroup")
    }

    fn crash(&mut self) {
        self.input.write_all(b"\n").expect("the workload reads");
        assert_eq!(self.next(), "crashed");
    }

    fn end(mut self) {
        drop(self.input);
        self.child.wait().expect("isolab ends");
    }
}

/// Microseconds of a CPU that a cgroup has had.
fn used(cgroup: &Path) -> u64 {
    let text = fs::read_to_string(cgroup.join("cpu.stat")).expect("version 2 of cgroups");
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    line.and_then(|number| number.parse().ok()).expect("a number")
}

/// Microseconds that all CPUs have had some task.
fn used_by_all() -> u64 {
    let text = fs::read_to_string("/proc/schedstat").expect("a kernel that counts");
    let cpus = text.lines().filter(|line| line.starts_with("cpu"));
    cpus.map(|line| line.split(' ').nth(7).and_then(|ns| ns.parse::<u64>().ok()).expect("a number") / 1000)
        .sum()
}

/// Has each family of sockets asked for at a level, and without isolation before.
fn ask_for_families(options: &[&str]) {
    let args = [&["probe", "--on", "host", "--only", "P11", "--levels"], options, &["demo"]].concat();
    let output = Command::new("/lab/isolab").args(args).output().expect("isolab starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("bluetooth"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_the_kernels_own_programs_are_counted() {
    assert!(fs::exists("/lab/isolab").expect("a file system"), "this half runs in the lab");
    // The handler is this program, which runs none of its tests then.
    let ourselves = std::env::current_exe().expect("a program");
    let ourselves = ourselves.to_str().expect("plain");
    fs::write("/proc/sys/kernel/core_pattern", format!("|{ourselves} none")).expect("the lab's own kernel");
    setrlimit(Resource::Core, Rlimit { current: None, maximum: None }).expect("the lab's root");
    let trace = Trace::start();
    let handler = format!("filename={ourselves}");

    // Handlers, and microseconds of a CPU in the cgroup and outside of it, while a level's workload crashes.
    let crashes = |level| {
        let mut running = Crashing::start(level);
        let own = running.cgroup();
        trace.taken([]);
        let before = (used_by_all(), used(&own));
        running.crash();
        let (all, inside) = (used_by_all() - before.0, used(&own) - before.1);
        running.end();
        let [handlers] = trace.taken([&handler]);
        let outside = all.saturating_sub(inside);
        println!(
            "{level}: {handlers} handlers, {inside} us of a CPU in the cgroup, {outside} us outside of it"
        );
        (handlers, inside, outside)
    };
    let (handlers, _, handled) = crashes("process");
    assert_eq!(handlers, CRASHES, "a crash is handled where nothing keeps it from that");
    let (handlers, inside, outside) = crashes("container");
    assert_eq!(handlers, 0, "no handler of the host's is started");
    assert!(outside * 2 < inside && outside < handled, "{outside} us outside, {inside} us inside");

    let modules = || fs::read_to_string("/proc/modules").expect("the list of modules");
    let before = modules();
    let asked = |options: &[&str]| {
        trace.taken([]);
        ask_for_families(options);
        let [asked] = trace.taken(["module_request: "]);
        println!("{options:?}: {asked} modules asked for");
        asked
    };
    let (alone, container) = (asked(&["process"]), asked(&["container"]));
    let unfiltered = asked(&["container", "--knob", "seccomp=off"]);
    assert!(alone > 5, "a socket's family is asked for where nothing keeps it from that");
    assert_eq!(container, alone, "the container adds none");
    assert!(unfiltered > container, "without its filter it adds some");
    assert_eq!(modules(), before);
}
