//! `kill -9` of isolab at random moments: what stays is listed and removed by the next `isolab gc`.

mod support;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::collect::check_and_collect;
use support::lab::Session;
use support::leaks::Oracle;
use support::random::Random;
use support::{ends_within, home, isolab, run};

/// Kills per level and workload.
const MOMENTS: u64 = 20;
/// Kills at level vm, each with a boot; in each stage of a start `tests/faults.rs` kills, too.
const MOMENTS_OF_VM: u64 = 12;
/// A workload with processes of its own that ignore everything but SIGKILL.
const BROOD: &str = "trap '' INT TERM HUP; sleep 1000 & (sleep 1000; :) & echo started; wait";

/// Kills a child at a moment after its start, if it has not ended by then.
fn kill_at(child: &mut Child, start: Instant, us: u64) {
    ends_within(child, Duration::from_micros(us).saturating_sub(start.elapsed()));
    child.kill().expect("kill");
    child.wait().expect("wait");
}

fn kills(level: &str, args: &[&str], span_us: u64, random: &mut Random) {
    let oracle = Oracle::new(&home());
    let mut left = 0;
    for us in random.moments(MOMENTS, span_us) {
        let start = Instant::now();
        let mut child = isolab(&[&["run", "--level", level], args].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("isolab starts");
        kill_at(&mut child, start, us);
        left += check_and_collect(&oracle, &format!("{level} {args:?} killed after {us} us"));
    }
    println!(
        "{level} {args:?}: {MOMENTS} kills within {span_us} us left {left} things, all listed and removed"
    );
}

/// Microseconds that a command takes; the longest of three times.
fn span(args: &[&str]) -> u64 {
    let once = || {
        let start = Instant::now();
        // A comparison may be refused where others slow this machine down.
        assert!(matches!(run(args).status, Some(0 | 3)));
        start.elapsed()
    };
    let longest = (0..3).map(|_| once()).max().expect("three times");
    u64::try_from(longest.as_micros()).expect("a short time")
}

#[test]
fn kill_9_at_random_moments_of_process_and_container_leaves_nothing_that_gc_does_not_remove() {
    run(&["gc"]);
    support::busybox();
    let mut random = Random::seeded("killed");
    for level in ["process", "container"] {
        let args = ["demo", "--", "/isolab-work", "touch", "8"];
        let span_us = span(&[&["run", "--level", level], &args[..]].concat());
        kills(level, &args, span_us, &mut random);
        // The same span twice over: the second half finds the brood hatched.
        kills(level, &["busybox", "--", "sh", "-c", BROOD], span_us * 2, &mut random);
    }
}

#[test]
fn kill_9_of_a_comparison_and_of_a_lab_leaves_nothing_that_gc_does_not_remove() {
    run(&["gc"]);
    let mut random = Random::seeded("killed compare");
    let oracle = Oracle::new(&home());
    let compare = ["compare", "--on", "host", "--levels", "process,container", "--pairs", "3", "demo"];
    let span_us = span(&compare);
    let lab = ["run", "--on", "lab", "--level", "vm", "demo", "--", "/isolab-work", "pause"];
    let cases = random.moments(8, span_us).into_iter().map(|us| (&compare[..], us));
    let cases = cases.chain(random.moments(4, 6_000_000).into_iter().map(|us| (&lab[..], us)));
    for (args, us) in cases.collect::<Vec<_>>() {
        let start = Instant::now();
        let mut command = isolab(args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("isolab starts");
        kill_at(&mut child, start, us);
        check_and_collect(&oracle, &format!("{args:?} killed after {us} us"));
    }
}

/// The oracle of the lab, as a script at the process level, which sees the lab's processes: what is there of each
/// kind, one a line. Its own processes are the same each time; its own cgroup is left out.
const LAB_ORACLE: &str = r#"
cd /proc/1/root
for p in /proc/[0-9]*; do
  exe=$(readlink $p/exe) || continue # the kernel's own come and go
  echo "process $exe"
  net=$(readlink $p/ns/net) && echo "network namespace $net"
done | sort
sed 's/^/mount /' /proc/1/mountinfo
find sys/fs/cgroup -type d -name 'isolab-*' ! -name "isolab-$PPID-*" | sed 's/^/cgroup /'
grep -H . sys/block/loop*/loop/backing_file 2>/dev/null | sed 's/^/loop device /'
find tmp run var root dev/shm lab/home/tmp lab/home/scratch -mindepth 1 | sed 's/^/folder /'
"#;

/// The lab as its oracle sees it; nothing where it got stuck.
fn look(session: &mut Session) -> Option<Vec<String>> {
    let done = session.run(&["run", "--level", "process", "busybox", "--", "sh", "-c", LAB_ORACLE])?;
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    Some(done.stdout.lines().map(str::to_owned).collect())
}

/// What is in the one and not in the other, counted.
fn more(after: &[String], before: &[String]) -> Vec<String> {
    let mut before = before.to_vec();
    let new = |line: &&String| match before.iter().position(|b| b == *line) {
        Some(at) => {
            before.swap_remove(at);
            false
        }
        None => true,
    };
    after.iter().filter(new).cloned().collect()
}

/// Kills at these millionths of a run's time, as many as a session serves before it gets stuck; gives the moments in
/// microseconds, with what each left.
fn kills_in_lab(parts: &[u64]) -> Vec<(u64, Vec<String>)> {
    let mut session = Session::start(&["busybox"], &["--lab-clock", "wall"]);
    let mut kills = Vec::new();
    let served = (|| -> Option<()> {
        let args = ["run", "--level", "vm", "demo"];
        let first = session.ask(&json!({ "args": args }))?;
        assert_eq!(first["status"], 0, "{first}");
        let span_us = first["ms"].as_u64().expect("a time") * 1000;
        let before = look(&mut session)?;
        for part in parts {
            let us = span_us * part / 1_000_000;
            session.ask(&json!({ "args": args, "kill_after_us": us }))?;
            let left = more(&look(&mut session)?, &before);
            let removed = session.run(&["gc", "--json"])?.stdout;
            for leak in &left {
                let path = leak.rsplit(' ').next().unwrap_or_default();
                assert!(removed.contains(path), "gc does not list {leak}: {removed}");
            }
            let clean = look(&mut session)?;
            assert_eq!(more(&clean, &before), Vec::<String>::new(), "left after a kill at {us} us and gc");
            kills.push((us, left));
        }
        Some(())
    })();
    session.end(served.is_some());
    kills
}

#[test]
fn kill_9_at_random_moments_of_the_vm_leaves_nothing_that_gc_does_not_remove() {
    support::busybox();
    let mut random = Random::seeded("killed vm");
    let parts = random.moments(MOMENTS_OF_VM, 1_100_000);
    let mut kills = Vec::new();
    for _ in 0..8 {
        let done = kills.len();
        kills.extend(kills_in_lab(&parts[done..]));
        if kills.len() == parts.len() {
            let left: usize = kills.iter().map(|(_, left)| left.len()).sum();
            let moments: Vec<u64> = kills.iter().map(|(us, _)| *us).collect();
            println!("vm: kills after {moments:?} us left {left} things, all listed and removed");
            // A cgroup has no owner that could remove it; if the oracle never saw one, it sees nothing.
            assert!(left > 0);
            return;
        }
        println!("the lab got stuck, on with a new one");
    }
    panic!("the lab got stuck eight times");
}

/// Runs a tool that plants something.
fn tool(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The kinds of what is there now and was not before.
fn kinds(oracle: &Oracle) -> BTreeSet<&'static str> {
    oracle.now().iter().map(|leak| leak.what).collect()
}

#[test]
fn the_oracle_sees_each_kind_of_leak() {
    let dir = tempfile::Builder::new().prefix("isolab-").tempdir().expect("temporary folder");
    let oracle = Oracle::new(&home());
    let text = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    oracle.assert_nothing("doing nothing");

    // An orphan in a session of its own: its parent ends at once.
    tool("sh", &["-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $! > \"$0\"", &text("pid")]);
    assert_eq!(kinds(&oracle), BTreeSet::from(["process"]));
    let orphan = oracle.now().first().expect("a process").which.clone();
    tool("kill", &["-9", orphan.split(' ').next().expect("a number")]);
    oracle.assert_nothing("the orphan's end");

    std::fs::create_dir(text("mount")).expect("create");
    tool("mount", &["-t", "tmpfs", "tmpfs", &text("mount")]);
    assert_eq!(kinds(&oracle), BTreeSet::from(["mount"]));
    tool("umount", &[&text("mount")]);
    oracle.assert_nothing("unmounting");

    let hierarchy = ["memory", "unified", ""]
        .map(|name| std::path::Path::new("/sys/fs/cgroup").join(name))
        .into_iter()
        .find(|dir| dir.join("cgroup.procs").exists())
        .expect("a cgroup hierarchy");
    let cgroup = hierarchy.join(format!("isolab-{}-1-1-planted", std::process::id()));
    std::fs::create_dir(&cgroup).expect("create");
    assert_eq!(kinds(&oracle), BTreeSet::from(["cgroup"]));
    std::fs::remove_dir(&cgroup).expect("remove");
    oracle.assert_nothing("removing the cgroup");

    let disk = home().join("planted");
    std::fs::write(&disk, vec![0; 1 << 20]).expect("write");
    let device = Command::new("losetup").args(["--find", "--show"]).arg(&disk).output().expect("losetup");
    if device.status.success() {
        assert_eq!(kinds(&oracle), BTreeSet::from(["loop device"]));
        tool("losetup", &["-d", String::from_utf8_lossy(&device.stdout).trim()]);
        oracle.assert_nothing("detaching the loop device");
    } else {
        println!("skipped: this kernel has no loop devices, none can leak");
    }
    std::fs::remove_file(&disk).expect("remove");

    for kind in ["net", "uts", "ipc"] {
        std::fs::write(text(kind), "").expect("write");
        tool("unshare", &[&format!("--{kind}={}", text(kind)), "true"]);
        assert_eq!(kinds(&oracle), BTreeSet::from(["mount", "namespace"]));
        tool("umount", &[&text(kind)]);
        oracle.assert_nothing("unmounting the namespace");
    }

    tool("ipcmk", &["--shmem", "4096"]);
    assert_eq!(kinds(&oracle), BTreeSet::from(["ipc object"]));
    let id = oracle.now().first().expect("an object").which.rsplit(' ').next().expect("an id").to_owned();
    tool("ipcrm", &["--shmem-id", &id]);
    oracle.assert_nothing("removing the shared memory");

    // Its parent, which does not wait for it, becomes another program.
    let mut parent = Command::new("sh").args(["-c", "true & exec sleep 1000"]).spawn().expect("sh");
    let seen = oracle.settled_when(|found| found.iter().any(|leak| leak.what == "zombie"));
    assert_eq!(
        seen.iter().map(|leak| leak.what).collect::<BTreeSet<_>>(),
        BTreeSet::from(["process", "zombie"])
    );
    parent.kill().expect("kill");
    parent.wait().expect("wait");
    oracle.assert_nothing("the end of a zombie's parent");

    let link = Command::new("ip").args(["link", "add", "isolab-planted", "type", "dummy"]).output();
    if link.is_ok_and(|output| output.status.success()) {
        assert_eq!(kinds(&oracle), BTreeSet::from(["network link"]));
        tool("ip", &["link", "del", "isolab-planted"]);
        oracle.assert_nothing("removing the link");
    } else {
        println!("skipped: no network link can be made here, none can leak");
    }

    let traces = std::path::Path::new("/sys/kernel/tracing/instances/isolab-planted");
    if std::fs::create_dir(traces).is_ok() {
        assert_eq!(kinds(&oracle), BTreeSet::from(["trace instance"]));
        std::fs::remove_dir(traces).expect("remove");
        oracle.assert_nothing("removing the trace instance");
    } else {
        println!("skipped: this kernel has no trace instances, none can leak");
    }

    for folder in [home().join("scratch/planted"), "/tmp/isolab-planted".into()] {
        std::fs::create_dir(&folder).expect("create");
        assert_eq!(kinds(&oracle), BTreeSet::from(["folder"]));
        std::fs::remove_dir(&folder).expect("remove");
    }
    oracle.assert_nothing("removing the folders");
}
