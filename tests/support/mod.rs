//! What the end-to-end tests share: the binary under test, a store of its own, one lab session for many commands.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod collect;
pub(crate) mod inject;
pub(crate) mod lab;
pub(crate) mod leaks;
pub(crate) mod posture;
pub(crate) mod random;
pub(crate) mod record;
pub(crate) mod roots;
pub(crate) mod samples;
pub(crate) mod slopes;
pub(crate) mod stages;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use serde_json::{Value, json};

/// What one command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Where isolab is in a lab.
const IN_LAB: &str = "/lab/isolab";

/// The release binary under test where `make test` names it, else the one that cargo built; in a lab, its own.
pub(crate) fn binary() -> PathBuf {
    if Path::new(IN_LAB).exists() {
        return IN_LAB.into();
    }
    std::env::var_os("ISOLAB_BIN").map_or_else(|| env!("CARGO_BIN_EXE_isolab").into(), PathBuf::from)
}

/// The store of the commands under test.
pub(crate) fn home() -> PathBuf {
    std::env::var_os("ISOLAB_HOME").expect("tests name a store of their own with ISOLAB_HOME").into()
}

/// Whether the long form of a test is asked for (`ISOLAB_TEST_FULL=1`).
pub(crate) fn full() -> bool {
    std::env::var_os("ISOLAB_TEST_FULL").is_some()
}

/// Runs a test of this program that is ignored elsewhere, inside of a lab with these options; over again where the lab gets stuck.
pub(crate) fn half_in_lab(options: &[&str], test: &str) -> Done {
    half_in_lab_with(options, &[], test)
}

/// The same with these images.
pub(crate) fn half_in_lab_with(options: &[&str], images: &[&str], test: &str) -> Done {
    for _ in 0..8 {
        let done = half_once(options, images, test);
        if done.status == Some(125) && done.stderr.contains("is stuck") {
            println!("the lab got stuck, again from the start");
            continue;
        }
        print!("{}", done.stdout);
        assert_eq!(done.status, Some(0), "{}{}", done.stdout, done.stderr);
        assert!(done.stdout.contains("1 passed"), "{}", done.stdout);
        return done;
    }
    panic!("the lab got stuck eight times");
}

fn half_once(options: &[&str], images: &[&str], test: &str) -> Done {
    let ourselves = std::env::current_exe().expect("a program");
    let name = ourselves.file_name().and_then(|name| name.to_str()).expect("plain");
    let (with, inside) = (ourselves.to_str().expect("plain"), format!("/lab/with/{name}"));
    let ours = ["--with", with, "--exec", "--", &inside, "--ignored", "--exact", test, "--nocapture"];
    // A word that is an image's name brings the image; to the test program it is one more filter, of no test's name.
    run(&[&["lab"], options, &ours[..], images].concat())
}

/// Makes sure that the image busybox is there.
pub(crate) fn busybox() {
    let built = run(&["image", "build", "busybox"]);
    assert_eq!(built.status, Some(0), "{}", built.stderr);
}

/// Imports a directory under this name, which it gives back.
pub(crate) fn import<'a>(root: &Path, name: &'a str) -> &'a str {
    let imported = run(&["image", "import", root.to_str().expect("UTF-8"), "--name", name]);
    assert_eq!(imported.status, Some(0), "{}", imported.stderr);
    name
}

/// Number of a child, for signals.
pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a number")).expect("a process")
}

/// Sends a child that has not been waited for a signal.
pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(pid(child), signal).expect("the child is there");
}

/// Whether a child ends within this time.
pub(crate) fn ends_within(child: &Child, time: Duration) -> bool {
    let ended = pidfd_open(pid(child), PidfdFlags::empty()).expect("pidfd");
    let time = Timespec::try_from(time).expect("a time");
    poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&time)).expect("poll") > 0
}

/// `isolab ARGS`, ready to start.
pub(crate) fn isolab(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs `isolab ARGS` to its end.
pub(crate) fn run(args: &[&str]) -> Done {
    done(isolab(args).output().expect("isolab starts"))
}

/// The same in a store of its own.
pub(crate) fn run_in(home: &Path, args: &[&str]) -> Done {
    done(isolab(args).env("ISOLAB_HOME", home).output().expect("isolab starts"))
}

/// What a finished `isolab` did.
pub(crate) fn done(output: Output) -> Done {
    Done {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether a measuring command gave its samples: it may refuse a comparison on a machine that others slow down meanwhile.
pub(crate) fn measured(result: &Done) -> bool {
    result.status == Some(0) || result.status == Some(3) && result.stderr.contains("not comparable: T12")
}

/// Runs commands one after another in one lab machine. Where QEMU gets stuck (its own fault, which isolab reports as
/// such), the session is started over: no result of a stuck one is kept. `demo` is always there, `images` are handed in.
pub(crate) fn in_lab(options: &[&str], images: &[&str], commands: &[Vec<&str>]) -> Vec<Done> {
    let input: String = commands.iter().map(|args| format!("{}\n", json!({ "args": args }))).collect();
    for _ in 0..8 {
        let mut child = isolab(&[&["lab"], options, &["--", "batch"], images].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("isolab starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("isolab reads");
        let output = done(child.wait_with_output().expect("isolab ends"));
        if output.status == Some(125) && output.stderr.contains("is stuck") {
            eprintln!("the lab got stuck, again from the start");
            continue;
        }
        assert_eq!(output.status, Some(0), "{}", output.stderr);
        let answers: Vec<Value> =
            output.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
        assert_eq!(answers.len(), commands.len());
        return answers.iter().map(answer).collect();
    }
    panic!("the lab got stuck eight times");
}

pub(crate) fn answer(answer: &Value) -> Done {
    let text = |name: &str| answer[name].as_str().expect("text").to_owned();
    let status = answer["status"].as_i64().and_then(|n| i32::try_from(n).ok());
    Done { status, stdout: text("stdout"), stderr: text("stderr") }
}

/// What a guest starts from, as a name and as options besides `--level vm`.
pub(crate) const GUESTS: [(&str, &[&str]); 2] = [("vm", &[]), ("restored vm", &["--from-snapshot"])];

/// What isolab says besides in a lab, where nobody has made the snapshot before.
pub(crate) const OF_LAB: [&str; 2] = ["isolab: running in the lab", "isolab: a lab keeps no snapshots"];

/// The same commands at each level: process and container on this host, guests that boot and guests of a snapshot in one lab session.
/// A boot takes many times as long as anything else here: of several commands, guests of a snapshot alone run them, unless
/// `ISOLAB_TEST_FULL=1`.
pub(crate) fn at_every_level(commands: &[Vec<&str>]) -> Vec<(&'static str, Vec<Done>)> {
    let with = |level: &[&'static str]| -> Vec<Vec<&str>> {
        commands.iter().map(|c| [&["run", "--level"], level, c].concat()).collect()
    };
    let here = |level| with(&[level]).iter().map(|args| run(args)).collect();
    let mut all = vec![("process", here("process")), ("container", here("container"))];
    let mut in_guests = vec![vec!["snapshot", "demo"]];
    let guests = if full() || commands.len() == 1 { &GUESTS[..] } else { &GUESTS[1..] };
    in_guests.extend(guests.iter().flat_map(|(_, options)| with(&[&["vm"], *options].concat())));
    let mut results = in_lab(&lab::WALL, &[], &in_guests).into_iter();
    assert_eq!(results.next().and_then(|made| made.status), Some(0));
    all.extend(guests.iter().map(|(name, _)| (*name, results.by_ref().take(commands.len()).collect())));
    all
}
