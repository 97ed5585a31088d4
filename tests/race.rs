//! Starts beside somebody who changes what a start touches, over and over: another instance of the image, and who owns the directory
//! that is imported. `ISOLAB_TEST_FULL=1`: ten thousand starts.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use support::leaks::Oracle;
use support::roots::{root, state};
use support::{busybox, full, home, isolab, run};

const LEVELS: [&str; 2] = ["process", "container"];
const MOUNTS: [&str; 4] = ["--", "/bin/busybox", "cat", "/proc/self/mountinfo"];

/// What is mounted where and how, without the numbers that each start has of its own.
fn mounts(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let (place, what) = line.split_once(" - ").expect("a line of mountinfo");
        let place: Vec<&str> = place.split(' ').skip(3).take(3).collect();
        format!("{} {}", place.join(" "), what.split(' ').next().unwrap_or_default())
    };
    text.lines().map(line).collect()
}

#[test]
fn starts_beside_an_instance_that_changes_its_own_root_are_all_the_same() {
    /// What root of an instance can try on the places where a start mounts something; a line each time that it is through.
    const CHANGES: &str = "while /bin/busybox true; do
        rm -rf /proc /dev /sys /tmp/* /etc; ln -s /proc/1/root /tmp/link; ln -s / /etc; rm /etc; mkdir -p /etc /proc /dev /sys /tmp
        mv /proc /moved; ln -s /tmp /proc; mv /moved /proc; mv /sys /moved; ln -s /tmp /sys; rm /sys; mv /moved /sys; chmod 0 /tmp; chmod 755 /tmp
        test -d /moved || echo round
    done 2>/dev/null";
    busybox();
    let oracle = Oracle::new(&home());
    let starts = if full() { 10_000 } else { 200 };
    let (rounds, output) = std::io::pipe().expect("a pipe");
    let mut other =
        isolab(&["run", "--level", "container", "busybox", "--", "/bin/busybox", "sh", "-c", CHANGES])
            .stdout(output)
            .spawn()
            .expect("isolab starts");
    let rounds = thread::spawn(move || BufReader::new(rounds).lines().count());
    for level in LEVELS {
        let args = [&["run", "--level", level, "busybox"], &MOUNTS[..]].concat();
        let seen = |n: usize| {
            let done = run(&args);
            assert_eq!((done.status, done.stderr.as_str()), (Some(0), ""), "{level}, start {n}");
            mounts(&done.stdout)
        };
        let first = seen(0);
        assert!(first.iter().any(|line| line.starts_with("/ / ")), "{first:?}");
        (1..starts / LEVELS.len()).for_each(|n| assert_eq!(seen(n), first, "{level}, start {n}"));
    }
    assert!(other.try_wait().expect("wait").is_none(), "it changed things all the time");
    other.kill().expect("kill");
    other.wait().expect("wait");
    let rounds = rounds.join().expect("a number");
    println!("{starts} starts, {rounds} rounds of changes");
    assert!(rounds >= starts / 20, "{rounds} rounds of changes, {starts} starts");
    run(&["gc"]);
    oracle.assert_nothing("starts beside changes");
}

#[test]
fn a_directory_that_changes_while_it_is_imported_leads_nowhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("secret"), "a secret of the host").expect("a file");
    let before = state(&outside);
    let root = root(dir.path(), "root");
    // What is swapped: each a directory here, and a link out of the root there.
    let there = dir.path().join("there");
    fs::create_dir(&there).expect("a directory");
    let names = ["proc", "dev", "sys", "tmp", "data"];
    for name in names {
        fs::create_dir(root.join(name)).expect("a directory");
        symlink(&outside, there.join(name)).expect("a link");
    }
    fs::write(root.join("data/file"), "of the image").expect("a file");
    let image = root.to_str().expect("UTF-8");
    let done = AtomicBool::new(false);
    let imports = if full() { 2_000 } else { 30 };
    thread::scope(|scope| {
        // Also where something below fails.
        let _end = AtEnd(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                names.iter().for_each(|name| exchange(&root.join(name), &there.join(name)));
            }
        });
        let read = [
            "--",
            "/bin/busybox",
            "sh",
            "-c",
            "cat /data/* 2>/dev/null; cat /tmp/secret /dev/secret 2>/dev/null; exit 0",
        ];
        for n in 0..imports {
            for level in LEVELS {
                let result = run(&[&["run", "--level", level, image], &read[..]].concat());
                let told = format!("{level}, import {n}: {}{}", result.stdout, result.stderr);
                assert!(!result.stdout.contains("secret of the host"), "{told}");
                match result.status {
                    Some(0) => assert!(["", "of the image"].contains(&result.stdout.as_str()), "{told}"),
                    status => {
                        assert_eq!(status, Some(125), "{told}");
                        assert!(
                            result.stderr.lines().last().is_some_and(|line| line.starts_with("isolab: ")),
                            "{told}"
                        );
                    }
                }
            }
        }
    });
    assert_eq!(state(&outside), before);
    assert_eq!(fs::read(outside.join("secret")).expect("a file"), b"a secret of the host");
}

/// Ends what asks for it.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Swaps two names in one step.
fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("swap two names");
}
