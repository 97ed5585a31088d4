//! The bare process: image as root, exit status, user, failures.

mod fixture;

use fixture::{Pipes, TempDir, image, shell};
use isolab_container::bare::{BareConfig, start};
use isolab_container::cgroup::Limits;
use isolab_container::instance::{End, Outcome};
use isolab_images::job::Job;
use isolab_wire::fd;
use isolab_wire::mark::{Code, Exit, Failure, Step};
use isolab_wire::trace::Tracer;

fn run(name: &str, job: &Job) -> (Outcome, String, String) {
    let dir = TempDir::new(name);
    let root = image(&dir);
    let pipes = Pipes::new();
    let config = BareConfig {
        job,
        root: &root,
        program: None,
        stdio: pipes.ends(),
        limits: Limits::default(),
        tracer: Tracer::OFF,
    };
    let instance = start(&config).expect("start");
    let outcome = instance.wait().expect("wait");
    let (out, err) = pipes.read();
    (outcome, out, err)
}

#[test]
fn has_the_image_as_its_root_and_can_write_to_it() {
    require!();
    let script = "cat /etc/only-here; echo new > /etc/made && cat /etc/made; echo $GREETING; cat /proc/self/mounts; ls /dev/null; echo bad >&2";
    let (outcome, out, err) = run("root", &shell(script));
    assert_eq!(outcome.end, End::Workload(Exit::Code(0)), "{out} {err}");
    assert!(out.starts_with("of the image\nnew\nhello\noverlay / overlay "), "{out}");
    let roots = out.lines().filter(|line| line.split(' ').nth(1) == Some("/")).count();
    assert_eq!(roots, 1, "nothing of the host lies below: {out}");
    assert_eq!(err, "bad\n");
    assert!(outcome.leftover.is_none());
    let codes: Vec<Code> = outcome.stamps.iter().map(|s| s.code).collect();
    assert_eq!(codes, [Code::RunBegin, Code::Exec, Code::Exit]);
    let times: Vec<u64> = outcome.stamps.iter().map(|s| s.at_ns).chain([outcome.clean_ns]).collect();
    assert!(times.is_sorted() && times[0] < times[1] && times[2] < times[3], "{times:?}");
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
fn the_end_is_seen_and_never_taken_from_the_workload() {
    require!();
    let zeros = "\\000".repeat(15);
    let forge = format!("printf 'X{zeros}' >&{}; sleep 0.05; exit 4", fd::MARKS);
    let (outcome, ..) = run("forged", &Job { marks: true, ..shell(&forge) });
    assert_eq!(outcome.end, End::Workload(Exit::Code(4)));
    let ends: Vec<u64> = outcome.stamps.iter().filter(|s| s.code == Code::Exit).map(|s| s.at_ns).collect();
    assert_eq!(ends.len(), 1, "{:?}", outcome.stamps);
    assert!(ends[0] - outcome.stamps[0].at_ns > 50_000_000, "after the sleep");
}

#[test]
fn runs_as_the_jobs_user_in_its_directory() {
    require!();
    let mut job = shell("id -u; id -g; id -G; pwd");
    job.user.uid = 1234;
    job.user.gid = 55;
    job.user.groups = vec![77];
    job.workdir = "/a/new/place".into();
    let (outcome, out, err) = run("user", &job);
    assert_eq!(outcome.end, End::Workload(Exit::Code(0)), "{err}");
    assert_eq!(out, "1234\n55\n55 77\n/a/new/place\n");
}

#[test]
fn a_read_only_root_is_the_image_itself() {
    require!();
    let mut job = shell("echo x > /etc/made");
    job.read_only = true;
    let (outcome, _, err) = run("read-only", &job);
    assert_eq!(outcome.end, End::Workload(Exit::Code(1)));
    assert!(err.contains("Read-only file system"), "{err}");
}

#[test]
fn tells_a_command_that_is_missing_from_one_that_is_not_executable() {
    require!();
    for (command, errno) in [("no-such", 2), ("/etc/only-here", 13), ("/bin/none", 2)] {
        let mut job = shell("");
        job.argv = vec![command.into()];
        let end = End::Failed(Failure { step: Step::Exec, errno });
        assert_eq!(run("missing", &job).0.end, end, "{command}");
    }
}

#[test]
fn no_descriptor_of_the_launcher_arrives() {
    require!();
    let (outcome, out, _) = run("descriptors", &shell("exec ls /proc/self/fd"));
    assert_eq!(outcome.end, End::Workload(Exit::Code(0)));
    // ls itself opens the directory as the last one.
    assert_eq!(out, "0\n1\n2\n3\n");
}

#[test]
fn a_killed_instance_says_so_and_is_gone() {
    require!();
    let dir = TempDir::new("killed");
    let root = image(&dir);
    let pipes = Pipes::new();
    let job = shell("sleep 1000 & sleep 1000");
    let config = BareConfig {
        job: &job,
        root: &root,
        program: None,
        stdio: pipes.ends(),
        limits: Limits::default(),
        tracer: Tracer::OFF,
    };
    let mut instance = start(&config).expect("start");
    let dirs: Vec<_> =
        instance.cgroup().map(|c| c.dirs().map(ToOwned::to_owned).collect()).unwrap_or_default();
    instance.kill();
    let outcome = instance.wait().expect("wait");
    assert_eq!(outcome.end, End::Killed);
    assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
    // The second sleep would hold the pipe open.
    let _ = pipes.read();
}
