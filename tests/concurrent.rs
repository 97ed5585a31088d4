//! Fifty runs at once, of mixed levels, each with a nonce of its own: no output and no status is another's.
//! On the host 25 of process and container each; in a lab process, container and guests (`ISOLAB_TEST_FULL=1`: 50 with ten guests).

mod support;

use std::process::{Child, Stdio};

use support::leaks::Oracle;
use support::random::Random;
use support::{busybox, done, full, half_in_lab_with, home, isolab};

/// A run with what it must say.
struct Planted {
    level: &'static str,
    nonce: String,
    status: i32,
    child: Child,
}

impl Planted {
    fn start(level: &'static str, random: &mut Random) -> Self {
        let nonce = format!("{:016x}", random.next());
        let status = i32::try_from(random.next() % 100).expect("small");
        // Many lines, so that the runs write at the same time.
        let script = "i=0; while [ $i -lt 100 ]; do echo $0 $i; echo error $0 >&2; i=$((i+1)); done; exit $1";
        let code = status.to_string();
        // So that many guests fit into the lab.
        let memory: &[&str] = if level == "process" { &[] } else { &["--memory", "64M"] };
        let args = ["run", "--on", "host", "--level", level];
        let command = ["busybox", "--", "sh", "-c", script, &nonce, &code];
        let child = isolab(&[&args[..], memory, &command].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("isolab starts");
        Self { level, nonce, status, child }
    }

    fn check(self) {
        let Self { level, nonce, status, child } = self;
        let ended = done(child.wait_with_output().expect("isolab ends"));
        assert_eq!(ended.status, Some(status), "{level} {nonce}: {}", ended.stderr);
        let stdout: String = (0..100).map(|i| format!("{nonce} {i}\n")).collect();
        assert_eq!(ended.stdout, stdout, "{level} {nonce}");
        assert_eq!(ended.stderr, format!("error {nonce}\n").repeat(100), "{level} {nonce}");
    }
}

/// So many of each level at once.
fn at_once(levels: &[(&'static str, usize)]) {
    let oracle = Oracle::new(&home());
    let mut random = Random::seeded("concurrent");
    let most = levels.iter().map(|(_, n)| *n).max().unwrap_or(0);
    let mut running = Vec::new();
    for i in 0..most {
        for (level, _) in levels.iter().filter(|(_, n)| i < *n) {
            running.push(Planted::start(level, &mut random));
        }
    }
    println!("{} runs at once: {levels:?}", running.len());
    // Each in a thread: one that is not read would stop at a full pipe.
    std::thread::scope(|scope| {
        for planted in running {
            scope.spawn(|| planted.check());
        }
    });
    oracle.assert_nothing("runs at once");
}

#[test]
fn fifty_runs_at_once_mix_no_output_and_no_status() {
    busybox();
    at_once(&[("process", 25), ("container", 25)]);
}

#[test]
fn runs_of_all_levels_at_once_mix_no_output_and_no_status() {
    busybox();
    let half = if full() { "inside_the_lab_fifty_runs_at_once" } else { "inside_the_lab_some_runs_at_once" };
    half_in_lab_with(&["--lab-clock", "wall", "--lab-memory", "3G"], &["busybox"], half);
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_some_runs_at_once() {
    at_once(&[("vm", 3), ("process", 6), ("container", 6)]);
}

#[test]
#[ignore = "the half inside of the lab of the test above"]
fn inside_the_lab_fifty_runs_at_once() {
    at_once(&[("vm", 10), ("process", 20), ("container", 20)]);
}
