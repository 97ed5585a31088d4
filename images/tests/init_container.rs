//! `isolab-init` as process 1 of real namespaces, against a real EROFS image.

mod container;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use container::{BlockParts, How, Lab, job, missing};
use isolab_images::job::{BlockOptions, Stdio, User};
use isolab_wire::control::Message;
use isolab_wire::mark::{Code, Exit, Failure, Step};
use std::io::Write as _;

const ENOENT: u16 = 2;
const EACCES: u16 = 13;
const ENOEXEC: u16 = 8;

/// Classic BPF: `uname` gives EPERM, everything else passes.
const NO_UNAME: [u8; 32] = [
    0x20, 0, 0, 0, 0, 0, 0, 0, // load the call's number
    0x15, 0, 0, 1, 63, 0, 0, 0, // 63?
    0x06, 0, 0, 0, 1, 0, 5, 0, // EPERM
    0x06, 0, 0, 0, 0, 0, 0xff, 0x7f, // allow
];

macro_rules! lab_or_skip {
    ($add:expr) => {
        match missing() {
            Some(what) => return eprintln!("skipped: {what}"),
            None => Lab::new($add),
        }
    };
}

#[test]
fn marks_come_in_order_with_rising_stamps() {
    let lab = lab_or_skip!(|_| {});
    let mut job = job(&["isolab-work", "null"]);
    job.marks = true;
    let report = lab.run(&job, &How::default());
    // What init tells of its own subphases comes before the end.
    assert_eq!(report.codes().replace('P', ""), "IEWRMNX", "{report:?}");
    let stamps: Vec<u64> =
        report.marks.iter().filter(|m| !b"PMN".contains(&(m.code as u8))).map(|m| m.stamp).collect();
    assert!(stamps.is_sorted_by(|a, b| a < b), "{report:?}");
}

#[test]
fn exit_codes_and_signals_are_told_exactly() {
    let lab = lab_or_skip!(|_| {});
    for code in [0, 1, 77, 255] {
        let report = lab.run(&job(&["/isolab-work", "exit", &code.to_string()]), &How::default());
        assert_eq!(report.exit(), Some(Exit::Code(code)), "{report:?}");
    }
    for signal in [6, 9, 11, 15] {
        let report = lab.run(&job(&["/isolab-work", "crash", &signal.to_string()]), &How::default());
        assert_eq!(report.exit(), Some(Exit::Signal(signal)), "{report:?}");
    }
}

#[test]
fn commands_that_can_not_run_fail_at_exec_with_their_error() {
    let lab = lab_or_skip!(|image| {
        fs::write(image.join("plain"), "x").expect("file");
        fs::write(image.join("script"), "echo hello\n").expect("file");
        fs::set_permissions(image.join("script"), fs::Permissions::from_mode(0o755)).expect("mode");
    });
    let table = [
        ("nothing", ENOENT),
        ("/nothing", ENOENT),
        ("/plain", EACCES),
        ("plain", EACCES),
        ("/script", ENOEXEC),
        ("", ENOENT),
    ];
    for (command, errno) in table {
        let report = lab.run(&job(&[command]), &How::default());
        assert_eq!(report.failure(), Some(Failure { step: Step::Exec, errno }), "{command}: {report:?}");
    }
}

#[test]
fn root_is_an_overlay_on_the_erofs_image_and_nothing_of_the_host() {
    let lab = lab_or_skip!(|_| {});
    let report = lab.run(&job(&["isolab-work", "mounts"]), &How::default());
    let text = report.text();
    let mut points: Vec<&str> = text.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    points.sort_unstable();
    let devices = ["full", "null", "random", "tty", "urandom", "zero"].map(|d| format!("/dev/{d}"));
    let mut expected: Vec<&str> = devices.iter().map(String::as_str).collect();
    expected.extend(["/", "/dev", "/dev/.image", "/dev/pts", "/dev/shm", "/proc"]);
    expected.sort_unstable();
    assert_eq!(points, expected, "{report:?}");
    assert!(text.starts_with("overlay / overlay rw,"), "{text}");
}

#[test]
fn environment_user_groups_host_name_and_directory_are_the_jobs() {
    let lab = lab_or_skip!(|_| {});
    let run = |argv: &[&str]| {
        let mut job = job(argv);
        job.user = User { uid: 1000, gid: 1001, groups: vec![7, 8] };
        job.workdir = "/made/here".to_owned();
        lab.run(
            &job,
            &How { block: BlockParts { confine_with: Some(&[]), ..BlockParts::default() }, ..How::default() },
        )
        .text()
    };
    assert_eq!(run(&["isolab-work", "env"]), "PATH=/bin:/\nNAME=value\n");
    assert_eq!(run(&["isolab-work", "id"]), "uid=1000 euid=1000 gid=1001 egid=1001 groups=7,8\n");
    assert_eq!(run(&["isolab-work", "cwd"]), "/made/here\n");
    assert!(run(&["isolab-work", "uname"]).starts_with("Linux inside "));
}

#[test]
fn bytes_pass_unchanged_from_stdin_to_stdout() {
    let lab = lab_or_skip!(|_| {});
    let bytes: Vec<u8> =
        (0..3_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut job = job(&["isolab-work", "cat"]);
    job.stdio = Stdio::Interactive;
    let report = lab.run(&job, &How { stdin: &bytes, ..How::default() });
    assert_eq!(report.exit(), Some(Exit::Code(0)), "{}", report.stderr);
    assert!(report.stdout == bytes);
}

#[test]
fn stdin_is_empty_where_the_job_has_none() {
    let lab = lab_or_skip!(|_| {});
    let report = lab.run(&job(&["isolab-work", "cat"]), &How { stdin: b"unwanted", ..How::default() });
    assert_eq!((report.exit(), report.text().as_str()), (Some(Exit::Code(0)), ""));
}

#[test]
fn image_whose_mount_point_is_not_a_directory_is_refused() {
    for name in ["proc", "dev"] {
        let link = lab_or_skip!(|image| symlink("/etc", image.join(name)).expect("link"));
        let report = link.run(&job(&["isolab-work", "null"]), &How::default());
        assert_eq!(report.failure().map(|f| f.step), Some(Step::Mounts), "{report:?}");
        let file = lab_or_skip!(|image| fs::write(image.join(name), "x").expect("file"));
        let report = file.run(&job(&["isolab-work", "null"]), &How::default());
        assert_eq!(report.failure().map(|f| f.step), Some(Step::Mounts), "{report:?}");
    }
}

#[test]
fn read_only_root_is_the_image_itself_and_needs_its_mount_points() {
    let bare = lab_or_skip!(|_| {});
    let mut job = job(&["isolab-work", "mounts"]);
    job.read_only = true;
    let report = bare.run(&job, &How::default());
    assert_eq!(report.failure(), Some(Failure { step: Step::Mounts, errno: ENOENT }), "{report:?}");
    let whole = lab_or_skip!(|image| {
        for name in ["proc", "dev"] {
            fs::create_dir(image.join(name)).expect("directory");
        }
    });
    let report = whole.run(&job, &How::default());
    let root = report.text();
    let root = root.lines().find(|l| l.split(' ').nth(1) == Some("/")).map(str::to_owned);
    assert!(root.as_deref().is_some_and(|r| r.contains(" / erofs ro,")), "{report:?}");
}

#[test]
fn confined_workload_runs_in_a_user_namespace_with_its_filter() {
    let lab = lab_or_skip!(|_| {});
    let how = How {
        block: BlockParts { confine_with: Some(&NO_UNAME), ..BlockParts::default() },
        user_namespace: true,
        ..How::default()
    };
    let report = lab.run(&job(&["isolab-work", "id"]), &how);
    assert_eq!(report.text(), "uid=0 euid=0 gid=0 egid=0 groups=\n", "{report:?}");
    let report = lab.run(&job(&["isolab-work", "uname"]), &how);
    assert_eq!(report.stderr, "isolab-work uname: error number 1\n", "{report:?}");
    let report = lab.run(&job(&["isolab-work", "mounts"]), &how);
    let text = report.text();
    assert!(text.contains(" /proc/keys ") && text.contains("/proc/sys proc ro,"), "{report:?}");
}

#[test]
fn confined_workload_has_no_capability_and_no_way_to_new_ones() {
    let lab = lab_or_skip!(|_| {});
    if !lab.image_dir().join("bin/busybox").exists() {
        return eprintln!("skipped: needs a static /bin/busybox");
    }
    let how = How {
        block: BlockParts { confine_with: Some(&NO_UNAME), ..BlockParts::default() },
        ..How::default()
    };
    let report = lab
        .run(&job(&["/bin/busybox", "grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/self/status"]), &how);
    let zero = "0000000000000000";
    let expected =
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|c| format!("{c}:\t{zero}\n")).concat();
    assert_eq!(report.text(), format!("{expected}NoNewPrivs:\t1\nSeccomp:\t2\n"), "{report:?}");
    let report = lab.run(&job(&["/bin/busybox", "ls", "-l", "/proc/self/fd"]), &how);
    // Its three streams, and the directory that ls has open (its last, closed when the name is read).
    assert_eq!(report.text().lines().filter(|l| l.contains(" -> ")).count(), 3, "{report:?}");
    assert_eq!(report.text().lines().count(), 1 + 4, "{report:?}");
}

#[test]
fn limits_reach_the_workload() {
    const RLIMIT_NOFILE: u32 = 7;
    let lab = lab_or_skip!(|_| {});
    if !lab.image_dir().join("bin/busybox").exists() {
        return eprintln!("skipped: needs a static /bin/busybox");
    }
    let how = How {
        block: BlockParts { limits: &[(RLIMIT_NOFILE, 33, 44)], ..BlockParts::default() },
        ..How::default()
    };
    let report = lab.run(&job(&["/bin/busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn"]), &how);
    assert_eq!(report.text(), "33\n44\n", "{report:?}");
}

#[test]
fn directory_root_lies_read_only_below_the_overlay() {
    let lab = lab_or_skip!(|_| {});
    let mut job = job(&["isolab-work", "cwd"]);
    job.workdir = "/new".to_owned();
    let how = How { block: BlockParts { root_is_dir: true, ..BlockParts::default() }, ..How::default() };
    let report = lab.run(&job, &how);
    assert_eq!(report.text(), "/new\n", "{report:?}");
    assert!(!lab.image_dir().join("new").exists(), "the directory itself stays as it is");
}

#[test]
fn signals_are_passed_on() {
    let lab = lab_or_skip!(|_| {});
    let mut job = job(&["isolab-work", "pause"]);
    job.marks = true;
    let block = job.encode(&BlockOptions::default()).expect("job fits");
    let mut instance = lab.start(&block, &How::default());
    instance.until(Code::Ready);
    instance.control.write_all(&Message::Signal(15).encode()).expect("message");
    assert_eq!(instance.finish(b"").exit(), Some(Exit::Signal(15)));
}

#[test]
fn everything_ends_when_the_launcher_is_gone() {
    let lab = lab_or_skip!(|_| {});
    let mut job = job(&["isolab-work", "pause"]);
    job.marks = true;
    let block = job.encode(&BlockOptions::default()).expect("job fits");
    let mut instance = lab.start(&block, &How::default());
    instance.until(Code::Ready);
    let container::Instance { control, mut child, .. } = instance;
    drop(control);
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn orphans_end_with_the_workload() {
    let lab = lab_or_skip!(|_| {});
    if !lab.image_dir().join("bin/busybox").exists() {
        return eprintln!("skipped: needs a static /bin/busybox");
    }
    // The background process holds stdout; the test would never see its end otherwise.
    let report =
        lab.run(&job(&["/bin/busybox", "sh", "-c", "/isolab-work pause & echo started"]), &How::default());
    assert_eq!((report.exit(), report.text().as_str()), (Some(Exit::Code(0)), "started\n"));
}

#[test]
fn terminal_has_the_jobs_size_and_all_output() {
    let lab = lab_or_skip!(|_| {});
    let mut job = job(&["isolab-work", "ttysize"]);
    job.stdio = Stdio::Terminal { rows: 33, cols: 101 };
    for user_namespace in [false, true] {
        let how = How { user_namespace, ..How::default() };
        let report = lab.run(&job, &how);
        assert_eq!(
            (report.exit(), report.text().as_str()),
            (Some(Exit::Code(0)), "33 101\r\n"),
            "{report:?}"
        );
    }
    // What is written just before the end is not lost.
    job.argv = ["isolab-work", "yes", "1"].map(str::to_owned).to_vec();
    let report = lab.run(&job, &How::default());
    assert_eq!(report.stdout.len(), (1 << 20) / 2 * 3, "{} {}", report.codes(), report.stderr);
}

#[test]
fn terminal_turns_control_c_into_a_signal_and_takes_new_sizes() {
    let lab = lab_or_skip!(|_| {});
    let mut job = job(&["isolab-work", "pause"]);
    job.stdio = Stdio::Terminal { rows: 1, cols: 1 };
    job.marks = true;
    let block = job.encode(&BlockOptions::default()).expect("job fits");
    let mut instance = lab.start(&block, &How::default());
    instance.until(Code::Ready);
    instance.control.write_all(&Message::Resize { rows: 5, cols: 6 }.encode()).expect("message");
    assert_eq!(instance.finish(b"\x03").exit(), Some(Exit::Signal(2)));
}

#[test]
fn blocks_that_are_not_jobs_fail_at_the_job_step() {
    let lab = lab_or_skip!(|_| {});
    let good = job(&["isolab-work", "null"]).encode(&BlockOptions::default()).expect("job fits");
    let mut wrong_total = good.clone();
    wrong_total[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut unknown_flag = good.clone();
    unknown_flag[15] = 0x80;
    let noise: Vec<u8> = (0..64_u8).map(|i| i.wrapping_mul(73)).collect();
    for block in [wrong_total, unknown_flag, noise] {
        let report = lab.start(&block, &How::default()).finish(b"");
        assert_eq!(report.failure().map(|f| f.step), Some(Step::Job), "{report:?}");
    }
    // The launcher dies in the middle of the block.
    let mut instance = lab.start(&good[..70], &How::default());
    instance.control = fs::File::open("/dev/null").expect("open");
    let report = instance.finish(b"");
    assert_eq!(report.failure().map(|f| f.step), Some(Step::Job), "{report:?}");
}
