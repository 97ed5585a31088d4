//! Fifty runs at once, of mixed levels, each with a nonce of its own: no output and no status is another's.
//! On the host 25 of process and container each; in a lab process, container and guests (`ISOLAB_TEST_FULL=1`: 50 with ten guests).
//! And `isolab gc` beside runs and imports.

mod support;

use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::leaks::Oracle;
use support::random::Random;
use support::{busybox, done, full, half_in_lab_with, home, import, isolab, run};

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

/// A run that lives until it is given a line, and then prints that.
fn waiting(level: &str) -> Child {
    let mut command = isolab(&[
        "run",
        "--on",
        "host",
        "--level",
        level,
        "-i",
        "busybox",
        "--",
        "sh",
        "-c",
        "read line; echo $line",
    ]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("isolab starts")
}

#[test]
fn gc_in_a_loop_takes_nothing_of_runs_and_imports_beside_it_and_once_more_it_finds_nothing() {
    busybox();
    let oracle = Oracle::new(&home());
    let mut random = Random::seeded("gc");
    let dir = tempfile::Builder::new().prefix("beside-").tempdir().expect("a directory");
    let (root, tar) = (dir.path().join("root"), dir.path().join("exported.tar"));
    fs::create_dir(&root).expect("a directory");
    fs::write(root.join("file"), vec![1; 4 << 20]).expect("written");
    let long: Vec<Child> = ["process", "container"].map(waiting).into();
    // Where this thread fails, the other one ends, too.
    let (ended, most) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(60));
    let times = std::thread::scope(|scope| {
        let gc = scope.spawn(|| {
            let mut times = 0;
            while !ended.load(Ordering::SeqCst) && Instant::now() < most {
                let swept = run(&["gc"]);
                assert_eq!(swept.status, Some(0), "{}", swept.stderr);
                times += 1;
            }
            times
        });
        for _ in 0..4 {
            let levels = ["process", "container"].repeat(3);
            let short: Vec<Planted> = levels.iter().map(|level| Planted::start(level, &mut random)).collect();
            import(&root, "beside");
            short.into_iter().for_each(Planted::check);
            let exported = run(&["image", "export", "beside", "-o", tar.to_str().expect("UTF-8")]);
            assert_eq!(exported.status, Some(0), "{}", exported.stderr);
            fs::remove_file(&tar).expect("it was written");
        }
        ended.store(true, Ordering::SeqCst);
        gc.join().expect("gc")
    });
    println!("gc ran {times} times beside the others");
    assert!(times >= 4);
    for mut child in long {
        child.stdin.take().expect("piped").write_all(b"still there\n").expect("it reads");
        let ended = done(child.wait_with_output().expect("isolab ends"));
        assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "still there\n"), "{}", ended.stderr);
    }
    run(&["image", "rm", "beside"]);
    run(&["gc"]);
    assert_eq!(run(&["gc"]).stdout, "nothing to remove\n");
    oracle.assert_nothing("gc beside runs");
}
