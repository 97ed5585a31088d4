//! `kill -9` of the launcher: nothing lives on, and what stays is listed and swept.

mod fixture;

use std::path::Path;
use std::time::{Duration, Instant};

use fixture::{Pipes, TempDir, contained, image, shell};
use isolab_container::bare::{self, BareConfig};
use isolab_container::cgroup::{Limits, stale};
use isolab_container::child::{SpawnOptions, spawn};
use isolab_container::instance::Instance;
use isolab_container::launch;
use isolab_wire::trace::Tracer;

/// Starts an instance in a launcher of its own, kills the launcher, gives the instance's process number.
fn kill_launcher(start: impl FnOnce() -> Option<Instance>) -> i32 {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
    let launcher = spawn(&SpawnOptions::default(), |_handed| {
        let Some(instance) = start() else { return 1 };
        let _ = rustix::io::write(&write, &instance.pid().to_le_bytes());
        loop {
            std::thread::park();
        }
    });
    let launcher_pid = launcher.as_ref().expect("spawn").child().pid();
    let mut launcher = launcher.expect("spawn").release(None, &[]).expect("release");
    drop(write);
    let mut pid = [0; 4];
    assert_eq!(rustix::io::read(&read, &mut pid).expect("read"), 4, "the instance did not start");
    let pid = i32::from_le_bytes(pid);
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    launcher.kill();
    launcher.wait().expect("wait");
    // The kernel's work from here on has no event for us: the process is not our child.
    let deadline = Instant::now() + Duration::from_secs(2);
    while alive(pid) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(!alive(pid), "process {pid} outlived its launcher");
    let mine = format!("isolab-{launcher_pid}-");
    let of_launcher =
        |dirs: Vec<std::path::PathBuf>| dirs.iter().filter(|d| d.to_string_lossy().contains(&mine)).count();
    let listed = of_launcher(stale::list().expect("list"));
    assert!(listed > 0, "the cgroup of a killed launcher stays and is listed");
    assert_eq!(of_launcher(stale::sweep().expect("sweep")), listed);
    assert_eq!(of_launcher(stale::list().expect("list")), 0);
    pid
}

/// Whether a process runs; a zombie that init has not reaped yet does not.
fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]), None | Some(b'Z' | b'X'))
}

#[test]
fn a_container_dies_with_its_launcher() {
    require!();
    let dir = TempDir::new("killed-container");
    let root = image(&dir);
    let mut job = shell("sleep 1000 & sleep 1000");
    job.user.uid = 1000;
    let pipes = Pipes::new();
    kill_launcher(|| launch::start(&contained(&job, &root, &pipes)).ok());
    // Both ends are ours now: no process inside holds the pipe.
    assert_eq!(pipes.read().0, "");
}

#[test]
fn a_bare_process_dies_with_its_launcher_even_as_another_user() {
    require!();
    let dir = TempDir::new("killed-bare");
    let root = image(&dir);
    let mut job = shell("sleep 1000 & exec sleep 1000");
    job.user.uid = 1000;
    let pipes = Pipes::new();
    kill_launcher(|| {
        let config = BareConfig {
            job: &job,
            root: &root,
            program: None,
            stdio: pipes.ends(),
            limits: Limits::default(),
            tracer: Tracer::OFF,
        };
        bare::start(&config).ok()
    });
    assert_eq!(pipes.read().0, "");
}
