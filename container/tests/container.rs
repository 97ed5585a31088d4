//! The container with the real process 1: what the workload sees, how it ends, what stays.

mod fixture;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use fixture::{Pipes, TempDir, contained, image, shell};
use isolab_container::instance::{End, Outcome};
use isolab_container::launch::{ContainerConfig, start};
use isolab_container::root::{RootSource, mount_erofs};
use isolab_images::job::{Job, Stdio};
use isolab_wire::mark::{Code, Exit, Failure, Step};

fn run(name: &str, job: &Job) -> (Outcome, String, String) {
    let dir = TempDir::new(name);
    let root = image(&dir);
    let pipes = Pipes::new();
    let outcome = start(&contained(job, &root, &pipes)).expect("start").wait().expect("wait");
    let (out, err) = pipes.read();
    (outcome, out, err)
}

#[test]
fn sees_its_own_root_processes_names_and_network() {
    require!();
    let script = "cat /etc/only-here; echo new > /etc/made && cat /etc/made; hostname; echo $$; ls /sys/class/net; \
                  cat /proc/net/dev | wc -l; id -u; cat /proc/self/mounts; cat /proc/self/status";
    let (outcome, out, err) = run("sees", &shell(&script.replace("hostname;", "busybox hostname;")));
    assert_eq!(outcome.end, End::Workload(Exit::Code(0)), "{out} {err}");
    assert!(out.starts_with("of the image\nnew\ninside\n2\n"), "{out}");
    assert!(!out.contains("/dev/vda") && !out.contains("ext4"), "nothing of the host's mounts: {out}");
    let roots = out.lines().filter(|line| line.split(' ').nth(1) == Some("/")).count();
    assert_eq!(roots, 1, "nothing lies below the root: {out}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(out.contains(&format!("{set}:\t0000000000000000\n")), "{set}: {out}");
    }
    assert!(out.contains("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{out}");
    assert!(outcome.leftover.is_none());
}

#[test]
fn passes_every_kind_of_end_on() {
    require!();
    for (script, end) in [
        ("exit 0", Exit::Code(0)),
        ("exit 255", Exit::Code(255)),
        ("kill -TERM $$", Exit::Signal(15)),
        ("kill -KILL $$", Exit::Signal(9)),
    ] {
        assert_eq!(run("ends", &shell(script)).0.end, End::Workload(end), "{script}");
    }
}

#[test]
fn stamps_its_moments_in_order() {
    require!();
    let (outcome, ..) = run("stamps", &Job { marks: true, ..shell("exit 3") });
    let codes: Vec<Code> = outcome.stamps.iter().map(|s| s.code).collect();
    assert_eq!(codes, [Code::RunBegin, Code::Init, Code::Exec, Code::Exit]);
    let times: Vec<u64> = outcome.stamps.iter().map(|s| s.at_ns).chain([outcome.clean_ns]).collect();
    assert!(times.is_sorted(), "{times:?}");
    eprintln!("us from clone3: {:?}", times.iter().map(|t| (t - times[0]) / 1000).collect::<Vec<_>>());
    let memory = outcome.account.and_then(|account| account.memory).expect("a charge");
    assert!(memory.peak_bytes > 0 && memory.current_bytes <= memory.peak_bytes, "{memory:?}");
}

#[test]
fn tells_a_command_that_is_missing_from_one_that_is_not_executable() {
    require!();
    for (command, errno) in [("no-such", 2), ("/etc/only-here", 13)] {
        let mut job = shell("");
        job.argv = vec![command.into()];
        let end = End::Failed(Failure { step: Step::Exec, errno });
        assert_eq!(run("missing", &job).0.end, end, "{command}");
    }
}

#[test]
fn too_much_memory_ends_it_as_out_of_memory() {
    require!();
    let mut job = shell("x=0123456789abcdef; while :; do x=$x$x; done");
    job.memory_bytes = 32 << 20;
    let (outcome, ..) = run("memory", &job);
    assert_eq!(outcome.end, End::OutOfMemory);
}

#[test]
fn only_three_descriptors_arrive() {
    require!();
    // Descriptors that would be worth having: a directory and a file of the host, not closed by exec.
    let bait = [File::open("/").expect("open"), File::open("/etc/passwd").expect("open")];
    for file in &bait {
        rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).expect("inheritable");
    }
    let (_, out, err) = run("descriptors", &shell("exec ls /proc/self/fd"));
    assert_eq!(out, "0\n1\n2\n3\n", "{err}");
}

#[test]
fn runs_as_the_jobs_user() {
    require!();
    let mut job = shell("id -u; id -g; id -G; pwd; stat -c %u /etc/only-here");
    (job.user.uid, job.user.gid, job.user.groups) = (1234, 55, vec![77]);
    job.workdir = "/a/new/place".into();
    let (outcome, out, err) = run("user", &job);
    assert_eq!(outcome.end, End::Workload(Exit::Code(0)), "{err}");
    // The file of root is root's inside too: the image's mount is mapped.
    assert_eq!(out, "1234\n55\n55 77\n/a/new/place\n0\n");
}

#[test]
fn outside_it_is_an_unprivileged_user() {
    require!();
    let (_, out, _) = run("ids", &shell("cat /proc/self/uid_map"));
    let fields: Vec<u32> = out.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    assert_eq!((fields[0], fields[2], fields.len()), (0, 65_536, 3));
    assert!(fields[1] >= 0x4000_0000, "{out}");
}

#[test]
fn instances_of_one_process_share_no_user_and_no_group() {
    require!();
    let dir = TempDir::new("blocks");
    let root = image(&dir);
    let job = shell("cat /proc/self/uid_map /proc/self/gid_map");
    let pipes = [(); 3].map(|()| Pipes::new());
    // A block is an instance's until that has been waited for.
    let instances = pipes.each_ref().map(|pipes| start(&contained(&job, &root, pipes)).expect("start"));
    for instance in instances {
        assert_eq!(instance.wait().expect("wait").end, End::Workload(Exit::Code(0)));
    }
    let firsts = pipes.map(|pipes| {
        let (maps, _) = pipes.read();
        let fields: Vec<u32> = maps.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        let [0, users, 65_536, 0, groups, 65_536] = fields[..] else { panic!("{maps}") };
        assert_eq!(users, groups);
        users
    });
    let apart = |a: u32, b: u32| a.abs_diff(b) >= 65_536;
    let [a, b, c] = firsts;
    assert!(apart(a, b) && apart(b, c) && apart(a, c), "{firsts:x?}");
}

#[test]
fn two_mounts_of_one_image_are_two_file_systems() {
    require!();
    let dir = TempDir::new("mounts");
    let RootSource::Erofs(file) = image(&dir) else { panic!("a file") };
    let mounts = [0, 1].map(|_| mount_erofs(&file).expect("mount"));
    let devices = mounts.each_ref().map(|mount| rustix::fs::fstat(mount).expect("stat").st_dev);
    // A page cache belongs to a file of a file system: what is in that of one is not in that of the other.
    assert_ne!(devices[0], devices[1]);
}

#[test]
fn forwards_signals_and_standard_input() {
    require!();
    let dir = TempDir::new("signals");
    let root = image(&dir);
    let mut job =
        shell("trap 'echo caught; exit 9' TERM; read line; echo got $line; while :; do sleep 0.01; done");
    job.stdio = Stdio::Interactive;
    let mut pipes = Pipes::new();
    let (input, input_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
    let mut input_write = File::from(input_write);
    let [_, out, err] = pipes.ends();
    let stdio = [std::os::fd::AsFd::as_fd(&input), out, err];
    let instance = start(&ContainerConfig { stdio, ..contained(&job, &root, &pipes) }).expect("start");
    pipes.close_ends();
    input_write.write_all(b"a line\n").expect("write");
    let mut seen = String::new();
    let mut buffer = [0; 64];
    while !seen.contains("got a line\n") {
        let n = rustix::io::read(pipes.out(), &mut buffer).expect("read");
        assert_ne!(n, 0, "ended after {seen:?}");
        seen.push_str(std::str::from_utf8(&buffer[..n]).expect("text"));
    }
    instance.signal(15);
    assert_eq!(instance.wait().expect("wait").end, End::Workload(Exit::Code(9)));
    assert_eq!(pipes.read().0, "caught\n");
}

#[test]
fn dropping_it_leaves_nothing() {
    require!();
    let dir = TempDir::new("dropped");
    let root = image(&dir);
    let job = shell("sleep 1000 & sleep 1000");
    let pipes = Pipes::new();
    let instance = start(&contained(&job, &root, &pipes)).expect("start");
    let pid = instance.pid();
    let groups: Vec<PathBuf> = instance.cgroup().expect("a cgroup").dirs().map(ToOwned::to_owned).collect();
    assert!(groups.iter().all(|dir| dir.exists()));
    drop(instance);
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    assert!(groups.iter().all(|dir| !dir.exists()), "{groups:?}");
    assert_eq!(pipes.read(), (String::new(), String::new()));
}
