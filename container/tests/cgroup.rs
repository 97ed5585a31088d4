//! Limits that hold, read back from the kernel, and cgroups that go.

mod fixture;

use isolab_container::cgroup::{Cgroup, Limits, stale};
use isolab_container::child::{PANIC_STATUS, SpawnOptions, spawn};

fn limits() -> Limits {
    Limits { memory_bytes: Some(64 << 20), cpus: Some(1), pids: Some(8) }
}

fn run_in(cgroup: &Cgroup, entry: impl FnOnce() -> i32) -> (Option<i32>, Option<i32>) {
    let options = SpawnOptions { cgroup: Some(cgroup), ..SpawnOptions::default() };
    let held = spawn(&options, |_handed| entry()).expect("spawn");
    let mut child = held.release(Some(cgroup), &[]).expect("release");
    let status = child.wait().expect("wait");
    (status.exit_status(), status.terminating_signal())
}

#[test]
fn the_memory_limit_kills_and_is_counted() {
    require!();
    let cgroup = Cgroup::create(&limits()).expect("create").expect("a cgroup");
    let touch = |mib: usize| {
        move || {
            let mut block = vec![0_u8; mib << 20];
            block.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            i32::from(std::hint::black_box(&block)[4096])
        }
    };
    assert_eq!(run_in(&cgroup, touch(32)), (Some(1), None));
    assert_eq!(cgroup.oom_killed(), 0);
    let reading = cgroup.read_memory().expect("read").expect("a memory controller");
    assert!((32 << 20..=64 << 20).contains(&reading.peak_bytes), "{reading:?}");
    assert_eq!(run_in(&cgroup, touch(128)), (None, Some(9)));
    assert_eq!(cgroup.oom_killed(), 1);
    let dirs: Vec<_> = cgroup.dirs().map(ToOwned::to_owned).collect();
    cgroup.remove().expect("remove");
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

#[test]
fn the_process_limit_refuses_the_ninth() {
    require!();
    let cgroup = Cgroup::create(&limits()).expect("create").expect("a cgroup");
    let (status, _) = run_in(&cgroup, || {
        let mut threads = Vec::new();
        for n in 1..20 {
            match std::thread::Builder::new().spawn(std::thread::park) {
                Ok(thread) => threads.push(thread),
                Err(e) => return if e.raw_os_error() == Some(11) { n } else { 100 },
            }
        }
        0
    });
    // The first is the process itself.
    assert_eq!(status, Some(8));
}

#[test]
fn a_limit_that_the_kernel_refuses_is_an_error_and_leaves_nothing() {
    require!();
    // A process of its own, so that what it leaves bears its number and not that of the other tests here.
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "makes_a_cgroup_with_a_refused_limit", "--ignored", "--quiet"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("start");
    let pid = child.id();
    assert!(child.wait().expect("wait").success());
    assert_eq!(groups_of(pid), Vec::<std::path::PathBuf>::new());
}

#[test]
#[ignore = "the other half of the test above"]
fn makes_a_cgroup_with_a_refused_limit() {
    let limits = Limits { pids: Some(u32::MAX), ..limits() };
    let error = Cgroup::create(&limits).expect_err("no kernel counts so far");
    assert!(error.to_string().contains("pids"), "{error}");
    assert_eq!(groups_of(std::process::id()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn dropping_kills_what_is_inside() {
    require!();
    let cgroup = Cgroup::create(&limits()).expect("create").expect("a cgroup");
    let options = SpawnOptions { cgroup: Some(&cgroup), ..SpawnOptions::default() };
    let (read, write) = rustix::pipe::pipe().expect("pipe");
    let held = spawn(&options, |_handed| {
        let _ = rustix::io::write(&write, b"x");
        loop {
            std::thread::park();
        }
    });
    let mut child = held.expect("spawn").release(Some(&cgroup), &[]).expect("release");
    rustix::io::read(&read, &mut [0]).expect("the child is in the cgroup");
    drop(cgroup);
    assert_eq!(child.wait().expect("wait").terminating_signal(), Some(9));
}

#[test]
fn a_panicking_entry_does_not_return_into_the_launcher() {
    require!();
    let cgroup = Cgroup::create(&Limits::default()).expect("create").expect("a cgroup");
    assert_eq!(run_in(&cgroup, || panic!("on purpose")).0, Some(PANIC_STATUS));
}

#[test]
fn a_child_that_is_not_released_never_runs() {
    require!();
    let held = spawn(&SpawnOptions::default(), |_handed| 7).expect("spawn");
    let pid = held.child().pid();
    drop(held);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

/// Directories that this process made; of living owners too, so not `stale::list`.
fn groups_of(pid: u32) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let start = format!("isolab-{pid}-");
    let mut walk = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = walk.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&start) {
                    found.push(entry.path());
                }
                walk.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn what_a_killed_owner_leaves_is_swept() {
    require!();
    // The owner: a child that makes a cgroup with a process in it and is killed.
    let (read, write) = rustix::pipe::pipe().expect("pipe");
    let owner = spawn(&SpawnOptions::default(), |_handed| {
        let Ok(Some(cgroup)) = Cgroup::create(&limits()) else { return 1 };
        let options = SpawnOptions { cgroup: Some(&cgroup), ..SpawnOptions::default() };
        let held = spawn(&options, |_handed| {
            loop {
                std::thread::park();
            }
        });
        let Ok(_child) = held.and_then(|held| held.release(Some(&cgroup), &[])) else { return 2 };
        let _ = rustix::io::write(&write, b"x");
        loop {
            std::thread::park();
        }
    })
    .expect("spawn");
    let pid = owner.child().pid();
    let mut owner = owner.release(None, &[]).expect("release");
    rustix::io::read(&read, &mut [0]).expect("the owner is ready");
    let of_owner = |dirs: Vec<std::path::PathBuf>| {
        let start = format!("isolab-{pid}-");
        dirs.into_iter()
            .filter(|d| d.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&start)))
            .count()
    };
    assert_eq!(of_owner(stale::list().expect("list")), 0, "the owner lives");
    owner.kill();
    owner.wait().expect("wait");
    let listed = of_owner(stale::list().expect("list"));
    assert!(listed > 0);
    assert_eq!(of_owner(stale::sweep().expect("sweep")), listed);
    assert_eq!(of_owner(stale::list().expect("list")), 0);
}
