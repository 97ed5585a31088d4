//! `-t`: a real terminal inside, and ours given back.

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use support::{GUESTS, binary, busybox, ends_within, run, send};

/// Says its terminal's size at the start and whenever it changes.
const SIZES: &str = "trap 'stty size' WINCH; stty size; while :; do sleep 0.1; done";

/// isolab on a terminal of its own, as a user's shell starts it.
struct Terminal {
    ours: OwnedFd,
    /// Kept open: the terminal outlives isolab, as the user's does.
    users: OwnedFd,
    before: String,
    child: Child,
    said: String,
}

impl Terminal {
    fn start(args: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("unlock");
        let users = ioctl_tiocgptpeer(&ours, flags).expect("the other end");
        let end = || users.try_clone().expect("a descriptor");
        let before = settings(&users);
        resize(&ours, 33, 77);
        // It becomes isolab in a session of its own, whose terminal this is.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(binary())
            .args(args)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("setsid starts");
        Self { ours, users, before, child, said: String::new() }
    }

    /// Reads until this has been said, and forgets what came up to it.
    fn hear(&mut self, word: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.said.find(word) {
                self.said.drain(..at + word.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).expect("a time");
            let n = poll(&mut [PollFd::new(&self.ours, PollFlags::IN)], Some(&left)).expect("poll");
            assert!(n > 0, "{word:?} was not said, but {:?}", self.said);
            let mut buffer = [0; 4096];
            let n = rustix::io::read(&self.ours, &mut buffer).expect("read");
            self.said.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    fn press(&self, keys: &[u8]) {
        assert_eq!(rustix::io::write(&self.ours, keys), Ok(keys.len()));
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.users).expect("a terminal").local_modes.contains(LocalModes::ICANON)
    }

    /// Waits for the end; the terminal is as before.
    fn status(mut self) -> Option<i32> {
        assert!(ends_within(&self.child, Duration::from_secs(20)), "{:?}", self.said);
        let status = self.child.wait().expect("wait").code();
        assert_eq!(settings(&self.users), self.before, "the terminal is given back");
        status
    }
}

fn settings(terminal: &OwnedFd) -> String {
    format!("{:?}", tcgetattr(terminal).expect("a terminal"))
}

fn resize(terminal: impl AsFd, rows: u16, cols: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("resize");
}

fn shell<'a>(level: &'a str, more: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let mut args = vec!["run", "-it", "--level", level];
    if level == "vm" {
        args.extend(["--on", "lab", "--lab-clock", "wall"]);
    }
    args.extend(more);
    args.extend(["busybox", "--", "sh", "-c", script]);
    args
}

/// Size, resize, Ctrl-C, and the terminal given back.
fn check(level: &str, more: &[&str]) {
    let mut terminal = Terminal::start(&shell(level, more, SIZES));
    terminal.hear("33 77\r\n");
    assert!(terminal.is_raw(), "{level}: isolab leaves the keys to the terminal inside");
    resize(&terminal.ours, 40, 100);
    terminal.hear("40 100\r\n");
    terminal.press(b"\x03");
    assert_eq!(terminal.status(), Some(130), "{level}");
}

#[test]
fn size_resize_and_ctrl_c_travel_to_process_and_container() {
    busybox();
    for level in ["process", "container"] {
        check(level, &[]);
    }
}

#[test]
fn size_resize_and_ctrl_c_travel_to_the_vm_in_the_lab() {
    busybox();
    for (_, options) in GUESTS {
        check("vm", options);
    }
}

#[test]
fn what_is_typed_reaches_the_workload_and_its_echo_comes_back() {
    busybox();
    for level in ["process", "container"] {
        let mut terminal =
            Terminal::start(&shell(level, &[], "echo ready; read line; echo got $line; exit 7"));
        terminal.hear("ready\r\n");
        terminal.press(b"abc\r");
        terminal.hear("abc\r\n");
        terminal.hear("got abc\r\n");
        assert_eq!(terminal.status(), Some(7), "{level}");
    }
}

#[test]
fn the_terminal_is_given_back_after_a_signal() {
    busybox();
    for level in ["process", "container"] {
        for (signal, expected) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
            let mut terminal = Terminal::start(&shell(level, &[], "echo ready; exec sleep 1000"));
            terminal.hear("ready\r\n");
            send(&terminal.child, signal);
            assert_eq!(terminal.status(), Some(expected), "{level} {signal:?}");
        }
    }
}

#[test]
fn a_comparison_shows_how_far_it_is_and_what_it_knows_of_each_level() {
    let levels = ["--on", "host", "--levels", "process,container", "--pairs", "40", "--seed", "1", "demo"];
    // A machine that others slow down may refuse, which is not what this is about.
    let mut terminal = Terminal::start(&[&["compare", "--allow-incomparable"][..], &levels].concat());
    terminal.hear(" runs");
    for word in ["n = ", "ms", "MiB", "\u{b1}", "verdict", "\r\ncontainer "] {
        terminal.hear(word);
    }
    assert_eq!(terminal.status(), Some(0));
}

#[test]
fn a_comparison_in_the_lab_shows_it_too() {
    let levels = ["--on", "lab", "--levels", "process", "--pairs", "3", "--seed", "1", "demo"];
    let mut terminal = Terminal::start(&[&["compare"][..], &levels].concat());
    for word in ["isolab: lab: kernel ", " runs", "n = ", "Mi", "verdict"] {
        terminal.hear(word);
    }
    assert_eq!(terminal.status(), Some(0));
}

#[test]
fn ctrl_c_ends_a_comparison_and_its_progress() {
    busybox();
    let pairs = ["--on", "host", "--levels", "process", "--pairs", "1000", "busybox", "--", "sleep", "0.05"];
    let mut terminal = Terminal::start(&[&["compare"][..], &pairs].concat());
    terminal.hear("n = ");
    terminal.press(b"\x03");
    terminal.hear("isolab: interrupted after ");
    assert_eq!(terminal.status(), Some(130));
}

#[test]
fn a_terminal_is_refused_where_standard_input_is_none() {
    for level in ["process", "container", "vm"] {
        let result = run(&["run", "-t", "--level", level, "demo"]);
        assert_eq!(result.status, Some(125), "{level}");
        assert_eq!(
            result.stderr,
            "isolab: -t needs a terminal on standard input; leave -t out, or use -i alone for a pipe\n"
        );
    }
}
