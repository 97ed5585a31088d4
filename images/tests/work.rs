//! `isolab-work` as a plain process: each workload does the known thing that its name promises.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use isolab_images::programs::WORK;
use isolab_wire::mark::{Clock, Code, Mark, RECORD_LEN};
use tempfile::TempDir;

/// The program as a file. It is written before this process forks for the first time: a child that another thread forks
/// meanwhile would hold it open for writing until it executes, and a file that is written can't be executed (ETXTBSY).
fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let unnamed =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempfile_in(dir);
        let mut file = unnamed.expect("temporary file");
        file.write_all(WORK).expect("program");
        // By rename: another run's processes may be executing the one that is there.
        let path = dir.join("isolab-work");
        drop(file.persist(&path).expect("renamed"));
        path
    });
    &PROGRAM
}

fn run(args: &[&str]) -> Output {
    Command::new(program()).args(args).output().expect("runs")
}

#[test]
fn status_is_the_one_asked_for() {
    for code in [0, 7, 255] {
        assert_eq!(run(&["exit", &code.to_string()]).status.code(), Some(code));
    }
    for signal in [6, 9, 11, 15] {
        assert_eq!(run(&["crash", &signal.to_string()]).status.signal(), Some(signal));
    }
    assert_eq!(run(&["null"]).status.code(), Some(0));
    assert_eq!(run(&["crash"]).status.signal(), Some(11));
}

#[test]
fn wrong_use_is_status_2_with_a_reason() {
    let unknown = run(&["no-such-name"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).starts_with("usage: isolab-work NAME"));
    let asked = run(&["help"]);
    assert_eq!((asked.status.code(), asked.stdout), (Some(0), unknown.stderr));
    for args in [
        &["exit", "256"][..],
        &["exit", "x"],
        &["sys", "nothing"],
        &["fault"],
        &["touch", "0"],
        &["crash", "65"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("an argument is missing or means nothing"));
    }
}

#[test]
fn measurement_is_one_json_line_with_time_that_passed() {
    let suites: [&[&str]; 13] = [
        &["alu", "1000"],
        &["clock", "1000"],
        &["sys", "null", "1000"],
        &["sys", "open", "10"],
        &["sys", "stat", "10"],
        &["sys", "readdir", "10"],
        &["sys", "neglookup", "10"],
        &["fault", "anon", "100"],
        &["fault", "anon-again", "100"],
        &["chase", "64", "1000"],
        &["pingpong", "pipe", "10"],
        &["proc", "exec", "3"],
        &["rand", "10"],
    ];
    for args in suites {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let line: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
        let name = line["name"].as_str().expect("name");
        assert!(name.starts_with(args[0]), "{name}");
        assert_eq!(line["n"].as_u64().map(|n| n.to_string()).as_deref(), args.last().copied());
        for key in ["ns", "tsc"] {
            assert!(
                line[key].as_array().is_some_and(|of| of.len() == 1 && of[0].as_u64() > Some(0)),
                "{line}"
            );
        }
    }
}

#[test]
fn name_of_the_link_chooses_the_workload() {
    let dir = TempDir::new().expect("temporary directory");
    let link = dir.path().join("echo");
    symlink(program(), &link).expect("link");
    let output = Command::new(link).args(["one", "two"]).output().expect("runs");
    assert_eq!(output.stdout, b"one two\n");
}

#[test]
fn marks_are_written_first_and_when_ready() {
    let path = program();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
    let shown = rustix::io::fcntl_dupfd_cloexec(&write, 20).expect("descriptor");
    rustix::io::fcntl_setfd(&shown, rustix::io::FdFlags::empty()).expect("inheritable");
    let output = Command::new(path)
        .arg("null")
        .env(isolab_wire::MARK_ENV, format!("fd:{}", shown.as_raw_fd()))
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(0));
    drop((write, shown));
    let mut records = [0; 2 * RECORD_LEN];
    fs::File::from(read).read_exact(&mut records).expect("two records");
    let marks: Vec<Mark> =
        records.chunks_exact(RECORD_LEN).filter_map(|r| Mark::decode(r.try_into().ok()?)).collect();
    assert_eq!(
        marks.iter().map(|m| (m.code, m.clock)).collect::<Vec<_>>(),
        [(Code::Work, Clock::Tsc), (Code::Ready, Clock::Tsc)]
    );
    assert!(marks[0].stamp < marks[1].stamp);
}

#[test]
fn cat_dies_of_a_closed_reader() {
    let path = program();
    let mut child =
        Command::new(path).arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    // More than a pipe holds: another test's child may keep the reading end open for a moment.
    let fed = child.stdin.take().expect("piped").write_all(&vec![0; 1 << 20]);
    assert_eq!(fed.map_err(|e| e.kind()), Err(std::io::ErrorKind::BrokenPipe));
    assert_eq!(child.wait().expect("ends").signal(), Some(13));
}

#[test]
fn environment_and_arguments_are_shown_as_they_are() {
    let path = program();
    let output =
        Command::new(path).arg("env").env_clear().env("A", "1").env("B", "x y").output().expect("runs");
    assert_eq!(output.stdout, b"A=1\nB=x y\n");
    let output = Command::new(path).args(["args", "", "a b"]).output().expect("runs");
    assert_eq!(output.stdout, format!("{}\nargs\n\na b\n", path.display()).into_bytes());
}

/// A server for two requests on a free port; nothing where the port was taken meanwhile.
fn server() -> Option<(Child, u16)> {
    // Another thread's child holds the port's socket from its fork until it executes.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("free port").port();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
    let shown = rustix::io::fcntl_dupfd_cloexec(&write, 40).expect("descriptor");
    rustix::io::fcntl_setfd(&shown, rustix::io::FdFlags::empty()).expect("inheritable");
    let mut child = Command::new(program())
        .args(["serve", &port.to_string(), "2"])
        .env(isolab_wire::MARK_ENV, format!("fd:{}", shown.as_raw_fd()))
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    drop((write, shown));
    // W and R: it listens.
    if fs::File::from(read).read_exact(&mut [0; 2 * RECORD_LEN]).is_ok() {
        return Some((child, port));
    }
    assert!(!child.wait().expect("ends").success());
    None
}

#[test]
fn server_answers_and_ends_after_its_requests() {
    let (mut child, port) = (0..20).find_map(|_| server()).expect("a port that stays free");
    for _ in 0..2 {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        connection.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("request");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn tree_reads_every_file() {
    let dir = TempDir::new().expect("temporary directory");
    let top = dir.path().join("top");
    fs::create_dir_all(top.join("a/b")).expect("directories");
    fs::write(top.join("one"), [1; 10]).expect("file");
    fs::write(top.join("a/b/two"), [2; 20_000]).expect("file");
    symlink("one", top.join("link")).expect("link");
    let output = Command::new(program()).arg("tree").arg(&top).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(r#""dirs":3,"files":2,"bytes":20010}"#), "{text}");
}
