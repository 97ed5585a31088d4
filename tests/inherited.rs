//! The workload begins with nothing that isolab's own parent left to it: no ignored or blocked signal, no session, no
//! descriptor beyond its three.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use support::lab::WALL;
use support::{binary, in_lab, run};

const CLEAN: &str = "blocked\nignored\nsession own\ndescriptors 0 1 2\n";
const SHOW: [&str; 4] = ["demo", "--", "/isolab-work", "inherited"];

/// `isolab` from a parent that ignores and blocks signals and has the password file open as 7 and 42.
fn from_a_bad_parent(args: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--ignore-signal=HUP,INT,QUIT,USR1,PIPE,CHLD,WINCH", "--block-signal=TERM,ALRM,USR2,CHLD"]);
    command.args(["bash", "-c", "exec \"$0\" \"$@\" 7</etc/passwd 42</etc/passwd"]).arg(binary()).args(args);
    command.stdin(Stdio::null());
    command
}

#[test]
fn nothing_is_inherited_at_any_level() {
    for level in ["process", "container"] {
        let result = run(&[&["run", "--level", level][..], &SHOW].concat());
        assert_eq!((result.status, result.stdout.as_str()), (Some(0), CLEAN), "{level}: {}", result.stderr);
        let output = from_a_bad_parent(&[&["run", "--level", level][..], &SHOW].concat()).output();
        let output = output.expect("env and bash start");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), CLEAN, "{level} from a bad parent: {stderr}");
    }
    let results = in_lab(&WALL, &[], &[[&["run", "--level", "vm"][..], &SHOW].concat()]);
    assert_eq!(results[0].stdout, CLEAN, "vm: {}", results[0].stderr);
}

/// Starts a command that says a word and then waits for its standard input, which never ends.
fn waiting(mut command: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("env and bash start");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    (child, out)
}

#[test]
fn what_nohup_ignores_does_not_end_the_run() {
    for level in ["process", "container"] {
        let (mut child, mut out) =
            waiting(from_a_bad_parent(&["run", "-i", "--level", level, "demo", "--", "/isolab-work", "cat"]));
        let mut stdin = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, b"started\n").expect("isolab reads");
        let mut line = String::new();
        out.read_line(&mut line).expect("isolab writes");
        assert_eq!(line, "started\n", "{level}");
        for signal in ["-HUP", "-INT"] {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args([signal, &pid]).status().expect("kill starts").success());
        }
        std::io::Write::write_all(&mut stdin, b"still here\n").expect("isolab reads");
        drop(stdin);
        line.clear();
        out.read_line(&mut line).expect("isolab writes");
        assert_eq!(line, "still here\n", "{level}");
        assert_eq!(child.wait().expect("isolab ends").code(), Some(0), "{level}");
    }
}
