//! The process that reads an image of unknown origin: what it is left with, and what an import is without it.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use support::run_in;

/// Contents that take a while to read and write.
const BYTES: u64 = 192 << 20;

/// A directory with a large file, and the same as an archive.
fn sources(dir: &Path) {
    fs::create_dir(dir.join("root")).expect("a directory");
    let mut file = File::create(dir.join("root/file")).expect("a file");
    let mut random = File::open("/dev/urandom").expect("random bytes").take(BYTES);
    std::io::copy(&mut random, &mut file).expect("filled");
    let tar = Command::new("tar").args(["-cf", "root.tar", "-C", "root", "."]).current_dir(dir).status();
    assert!(tar.expect("tar").success());
}

/// Begins an import into a store of its own.
fn begun(home: &Path, source: &Path) -> Child {
    let args = ["image", "import", source.to_str().expect("UTF-8"), "--name", "image"];
    let mut isolab = support::isolab(&args);
    isolab.env("ISOLAB_HOME", home).stdout(Stdio::piped()).stderr(Stdio::piped());
    isolab.spawn().expect("isolab starts")
}

/// The importer, stopped as soon as it has given up its rights.
fn stopped(isolab: &Child) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", isolab.id());
    loop {
        let children = fs::read_to_string(&children).expect("the import was over before it was seen");
        let Some(pid) = children.split_whitespace().next() else { continue };
        if status(pid).get("Seccomp").is_some_and(|mode| mode == "2") {
            let pid = Pid::from_raw(pid.parse().expect("a number")).expect("a process");
            kill_process(pid, Signal::STOP).expect("it is there");
            return pid;
        }
        std::thread::yield_now();
    }
}

/// The fields of a process's status.
fn status(pid: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

#[test]
fn it_has_no_rights_but_to_read_its_source_and_to_write_its_image() {
    let dir = tempfile::tempdir().expect("temporary directory");
    sources(dir.path());
    // Another user reads an archive, which is open already; below a directory it may read what isolab may.
    let nobody = "65534\t65534\t65534\t65534";
    for (source, user, capability) in [("root.tar", nobody, 0_u64), ("root", "0\t0\t0\t0", 1 << 2)] {
        let home = dir.path().join(format!("home-{source}"));
        let source = dir.path().join(source);
        let isolab = begun(&home, &source);
        let pid = stopped(&isolab);
        let proc = format!("/proc/{}", pid.as_raw_pid());
        let status = status(&pid.as_raw_pid().to_string());
        let field = |name: &str| status[name].as_str();
        assert_eq!((field("Uid"), field("Gid"), field("NoNewPrivs")), (user, user, "1"));
        for (set, bits) in [("CapInh", 0), ("CapPrm", capability), ("CapEff", capability), ("CapAmb", 0)] {
            assert_eq!(field(set), format!("{bits:016x}"), "{set} of {}", source.display());
        }
        let open = fs::read_dir(format!("{proc}/fd")).expect("its descriptors");
        let mut open: Vec<String> = open
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .collect();
        open.retain(|link| link != "/dev/null" && !link.starts_with("pipe:"));
        let source_text = source.to_str().expect("UTF-8");
        let (of_source, others): (Vec<_>, Vec<_>) =
            open.iter().partition(|link| link.starts_with(source_text));
        assert!(!of_source.is_empty(), "{open:?}");
        let store = home.to_str().expect("UTF-8");
        // The spool, which has no name any more, and the image.
        assert_eq!(others.iter().filter(|link| link.starts_with(store)).count(), 2, "{open:?}");
        assert_eq!(others.len(), 2, "{open:?}");
        let limits = fs::read_to_string(format!("{proc}/limits")).expect("its limits");
        for (what, most) in [("Max processes", "0"), ("Max core file size", "0"), ("Max cpu time", "1020")] {
            let line = limits.lines().find(|line| line.starts_with(what)).expect(what);
            assert_eq!(line[what.len()..].split_whitespace().next(), Some(most), "{line}");
        }
        kill_process(pid, Signal::CONT).expect("it is there");
        let done = support::done(isolab.wait_with_output().expect("isolab ends"));
        assert_eq!(done.status, Some(0), "{}", done.stderr);
        let listed = run_in(&home, &["image", "ls"]);
        assert!(listed.stdout.contains("image"), "{}", listed.stdout);
    }
}

#[test]
fn an_import_that_loses_it_says_so_and_leaves_nothing_and_it_ends_with_isolab() {
    let dir = tempfile::tempdir().expect("temporary directory");
    sources(dir.path());
    let source = dir.path().join("root.tar");
    let home = dir.path().join("home");
    let isolab = begun(&home, &source);
    let pid = stopped(&isolab);
    kill_process(pid, Signal::KILL).expect("it is there");
    let done = support::done(isolab.wait_with_output().expect("isolab ends"));
    assert_eq!((done.status, done.stderr.lines().count()), (Some(125), 1), "{}", done.stderr);
    assert!(done.stderr.contains("ended without a word (signal 9); nothing was changed"), "{}", done.stderr);
    for left in ["images", "names", "tmp"] {
        assert_eq!(fs::read_dir(home.join(left)).expect("a part of the store").count(), 0, "{left}");
    }

    let mut isolab = begun(&home, &source);
    let pid = stopped(&isolab);
    let importer = pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor of it");
    isolab.kill().expect("it is there");
    isolab.wait().expect("it ends");
    let time = Timespec::try_from(Duration::from_secs(10)).expect("a time");
    assert_eq!(poll(&mut [PollFd::new(&importer, PollFlags::IN)], Some(&time)), Ok(1), "it outlives isolab");
    let swept = run_in(&home, &["gc"]);
    assert_eq!(swept.status, Some(0), "{}", swept.stderr);
    assert_eq!(fs::read_dir(home.join("tmp")).expect("a part of the store").count(), 0);
}

#[test]
fn process_1_of_a_container_with_few_capabilities_imports_too() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: rootless: needs root to become other users");
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("root/file");
    fs::create_dir(dir.path().join("root")).expect("a directory");
    fs::write(&file, "a user's own").expect("a file");
    std::os::unix::fs::chown(&file, Some(1000), Some(1000)).expect("another owner");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("closed to others");
    // As a container engine starts it: without the capability that is made for reading, and as the first process of its namespace.
    for around in [
        &["setpriv", "--bounding-set=-dac_read_search", "--inh-caps=-dac_read_search"][..],
        &["unshare", "--pid", "--fork", "--mount-proc"],
    ] {
        let mut command = Command::new(around[0]);
        command
            .args(&around[1..])
            .arg(support::binary())
            .args(["image", "import", "root", "--name", "image"]);
        command.current_dir(dir.path()).env("ISOLAB_HOME", dir.path().join("home"));
        let done = support::done(command.output().expect("it starts"));
        assert_eq!(done.status, Some(0), "{around:?}: {}", done.stderr);
    }
}
