//! Many runs: what each of them adds to the machine, and that a leak of any kind is found that way. `ISOLAB_TEST_FULL=1`: 1000 runs
//! of process and container each, 50 guests that boot and 250 that continue a snapshot, in a lab; and the same of runs that are
//! killed in each of their stages.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use support::leaks::Oracle;
use support::slopes::{SAMPLES, leaks, numbers};
use support::stages::{CONTAINER, PROCESS, RESTORED, Stages, VM, VM_BOOTED, Who, arguments};
use support::{full, half_in_lab, home, isolab, run};

/// One isolab that lives all the time and starts all runs.
struct Parent {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Parent {
    fn start() -> Self {
        let mut command = isolab(&["batch"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("isolab starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdin, stdout }
    }

    fn run(&mut self, args: &[&str]) {
        let answer = self.answer(args);
        assert_eq!(answer["status"], 0, "{args:?}: {answer}");
    }

    /// A run that is killed where this stage ends.
    fn kill(&mut self, options: &[&str], (stage, who): (&str, Who)) {
        let fault = format!("--test-fault={stage}=kill");
        let answer = self.answer(&arguments(options, &fault));
        let told = match who {
            Who::Launcher => answer["status"].is_null(),
            Who::Other => answer["status"] == 125 || answer["status"] == 137,
        };
        assert!(told, "{options:?} {stage}: {answer}");
    }

    fn answer(&mut self, args: &[&str]) -> Value {
        writeln!(self.stdin, "{}", json!({ "args": args })).expect("isolab reads");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("isolab answers");
        serde_json::from_str(&line).expect("an answer")
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many runs at a level, and none of them adds anything.
fn nothing_rises(options: &[&str], runs: usize) {
    let _alone = Oracle::new(&home());
    let args = [&["run", "--on", "host", "--level"], options, &["demo"]].concat();
    let mut parent = Parent::start();
    // The first runs fill caches and pools.
    (0..runs.div_ceil(10).min(20)).for_each(|_| parent.run(&args));
    let pid = parent.child.id();
    let runs_per_sample = runs.div_ceil(SAMPLES);
    println!("{options:?}: {} runs a series", runs_per_sample * SAMPLES);
    let found = leaks(runs_per_sample, || parent.run(&args), || numbers(&home(), Some(pid)), true);
    assert_eq!(found, BTreeSet::new(), "{options:?}");
}

/// So many kills in each of these stages, one stage after the other, and none of them adds anything that `isolab gc` does not take away.
fn nothing_rises_by_kills(options: &[&str], stages: Stages, kills: usize) {
    let mut parent = Parent::start();
    let oracle = Oracle::new(&home());
    let pid = parent.child.id();
    let mut each = || {
        stages.iter().for_each(|stage| parent.kill(options, *stage));
        parent.run(&["gc"]);
        // Those of its processes that lost their parent have ended, and are waited for.
        oracle.assert_nothing("kills and gc");
    };
    (0..2).for_each(|_| each());
    let kills_per_sample = kills.div_ceil(SAMPLES);
    println!("{options:?}: {} kills in each of {} stages", kills_per_sample * SAMPLES, stages.len());
    let found = leaks(kills_per_sample, each, || numbers(&home(), Some(pid)), true);
    assert_eq!(found, BTreeSet::new(), "{options:?}");
}

#[test]
fn runs_killed_at_each_stage_of_process_and_container_add_nothing_to_the_machine() {
    let kills = if full() { 240 } else { SAMPLES };
    for (level, stages) in [("process", PROCESS), ("container", CONTAINER)] {
        nothing_rises_by_kills(&[level], stages, kills);
    }
}

#[test]
fn runs_at_process_and_container_add_nothing_to_the_machine() {
    let runs = if full() { 1000 } else { 96 };
    for level in ["process", "container"] {
        nothing_rises(&[level], runs);
    }
}

#[test]
fn guests_add_nothing_to_the_machine() {
    let half = if full() { "inside_the_lab_many_guests" } else { "inside_the_lab_some_guests" };
    half_in_lab(&["--lab-memory", "1G", "--lab-clock", "wall"], half);
}

fn snapshot() {
    let made = run(&["snapshot", "demo"]);
    assert_eq!(made.status, Some(0), "{}", made.stderr);
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_some_guests() {
    snapshot();
    nothing_rises(&["vm", "--from-snapshot"], SAMPLES);
    // What a monitor holds before its guest runs, and a launcher that leaves one.
    nothing_rises_by_kills(&["vm"], &[("vcpu_start", Who::Other), ("clone", Who::Launcher)], SAMPLES);
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_many_guests() {
    snapshot();
    nothing_rises(&["vm", "--from-snapshot"], 250);
    nothing_rises(&["vm"], 50);
    nothing_rises_by_kills(&["vm"], VM, SAMPLES);
    nothing_rises_by_kills(&["vm"], VM_BOOTED, SAMPLES);
    nothing_rises_by_kills(&["vm", "--from-snapshot"], RESTORED, SAMPLES);
}

/// Runs a tool that plants something.
fn tool(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(status.unwrap_or_else(|e| panic!("{program}: {e}")).success(), "{program} {args:?}");
}

#[test]
fn a_leak_of_each_kind_in_each_run_is_found() {
    let oracle = Oracle::new(&home());
    let dir = tempfile::Builder::new().prefix("isolab-").tempdir().expect("temporary folder");
    let path =
        |name: &str, i: usize| dir.path().join(format!("{name}{i}")).to_str().expect("UTF-8").to_owned();
    let mut i = 0;
    let mut next = || {
        i += 1;
        i
    };
    let planted = |plant: &mut dyn FnMut()| leaks(1, plant, || numbers(&home(), None), false);
    assert_eq!(planted(&mut || ()), BTreeSet::new(), "nothing planted");

    let mut children = Vec::new();
    let mut start =
        |script: &str| children.push(Command::new("sh").args(["-c", script]).spawn().expect("sh"));
    assert!(planted(&mut || start("exec sleep 1000")).contains("process"));
    assert!(planted(&mut || start("true & exec sleep 1000")).contains("zombie"));
    for mut child in children {
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    // As many as root may have.
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).expect("more descriptors");
    let mut open: Vec<OwnedFd> = Vec::new();
    let found = planted(&mut || open.push(File::open("/dev/null").expect("open").into()));
    assert!(found.contains("own descriptors"), "{found:?}");
    // Enough of them to be seen among what others do.
    let found = planted(&mut || {
        for _ in 0..64 {
            let (read, write) = std::io::pipe().expect("a pipe");
            open.extend([OwnedFd::from(read), write.into()]);
        }
    });
    assert!(found.contains("open files") && found.contains("kernel memory"), "{found:?}");
    drop(open);

    let hierarchy = ["memory", "unified", ""].map(|name| Path::new("/sys/fs/cgroup").join(name));
    let hierarchy = hierarchy.into_iter().find(|dir| dir.join("cgroup.procs").exists()).expect("cgroups");
    let mut cgroups = Vec::new();
    let found = planted(&mut || {
        let cgroup = hierarchy.join(format!("isolab-{}-1-{}-planted", std::process::id(), next()));
        fs::create_dir(&cgroup).expect("create");
        cgroups.push(cgroup);
    });
    cgroups.iter().for_each(|cgroup| fs::remove_dir(cgroup).expect("remove"));
    assert!(found.contains("cgroup"), "{found:?}");

    let mut places = Vec::new();
    let found = planted(&mut || {
        let place = path("net", next());
        fs::write(&place, "").expect("write");
        tool("unshare", &[&format!("--net={place}"), "true"]);
        places.push(place);
    });
    places.iter().for_each(|place| tool("umount", &[place]));
    assert!(found.contains("namespace") && found.contains("mount"), "{found:?}");

    let found = planted(&mut || tool("ipcmk", &["--semaphore", "1"]));
    for leak in oracle.now().iter().filter(|leak| leak.what == "ipc object") {
        tool("ipcrm", &["--semaphore-id", leak.which.rsplit(' ').next().expect("an id")]);
    }
    assert!(found.contains("ipc object"), "{found:?}");

    let mut files = Vec::new();
    let found = planted(&mut || {
        let file = home().join("tmp").join(format!("planted-{}", next()));
        fs::write(&file, vec![1; 64 << 10]).expect("write");
        files.push(file);
    });
    files.iter().for_each(|file| fs::remove_file(file).expect("remove"));
    assert!(found.contains("folder") && found.contains("disk"), "{found:?}");
    drop(dir);
    oracle.assert_nothing("planting");
}
