//! System calls of a command under test that fail as if the kernel had failed them.
//!
//! A thread of the test takes a seccomp filter that asks us about each call of some kinds (`SECCOMP_RET_USER_NOTIF`), and starts the
//! command, which inherits it with all that it starts. We let a call be made, or answer it with an error: exactly one call of all
//! those processes, which a tracer that counts for each process could not choose.
#![allow(unsafe_code, reason = "the filter and its two requests have no safe form")]

use std::fs;
use std::io::Error;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Output};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use libc::{SYS_seccomp, c_int, c_long};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::leaks::Oracle;

/// The program that runs inside, whose calls are none of isolab's.
const WORKLOAD: &str = "isolab-work";

/// What isolab calls first: nothing before is its own. A library that finds no memory there ends the process.
const MAIN: c_long = libc::SYS_getuid;

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, whose constant has another type than its field.
const MAKE_IT: u32 = 1;

/// A call that one of isolab's processes is about to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Its number.
    pub(crate) number: c_long,
    /// Its second and third argument.
    pub(crate) second: u64,
    pub(crate) third: u64,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) output: Output,
    /// Whether it had to be killed when its time was up.
    pub(crate) hung: bool,
}

/// Runs a command to its end and answers those of its calls that have these numbers: with an error, or by letting them be made.
pub(crate) fn run_with(
    mut command: Command,
    numbers: &[c_long],
    most: Duration,
    oracle: &Oracle,
    mut answer: impl FnMut(Call) -> Option<c_int>,
) -> Ended {
    let filter = filter(&[&[MAIN], numbers].concat());
    let mut begun = false;
    let mut answer = |call: Call| {
        begun |= call.number == MAIN;
        begun.then(|| answer(call)).flatten()
    };
    let (give, listener) = channel();
    let running = std::thread::spawn(move || {
        give.send(listen(&filter)).expect("somebody listens");
        command.output().expect("the command starts")
    });
    let listener = listener.recv().expect("a thread that listens");
    let deadline = Instant::now() + most;
    let mut hung = false;
    loop {
        let mut ready = [PollFd::new(&listener, PollFlags::IN)];
        // That the thread has ended has no event of its own where a process that it started stays.
        poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).expect("poll");
        let events = ready[0].revents();
        if events.contains(PollFlags::IN) {
            answer_one(&listener, &mut answer);
        } else if events.contains(PollFlags::HUP) || running.is_finished() {
            break;
        }
        if !hung && Instant::now() > deadline {
            hung = true;
            for pid in
                oracle.processes().into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    drop(listener);
    Ended { output: running.join().expect("the command ends"), hung }
}

/// Asks about these calls, allows all others.
fn filter(numbers: &[c_long]) -> Vec<libc::sock_filter> {
    // From linux/bpf_common.h: load a word at an offset, jump if equal, return a constant.
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut filter = vec![step(LOAD, 0)];
    for number in numbers {
        let number = u32::try_from(*number).expect("a number");
        filter.push(libc::sock_filter { code: IF_EQUAL, jt: 0, jf: 1, k: number });
        filter.push(step(RETURN, libc::SECCOMP_RET_USER_NOTIF));
    }
    filter.push(step(RETURN, libc::SECCOMP_RET_ALLOW));
    filter
}

/// Gives this thread, and what it starts, the filter; gives the descriptor of its questions.
fn listen(filter: &[libc::sock_filter]) -> OwnedFd {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("a short filter"),
        filter: filter.as_ptr().cast_mut(),
    };
    let (operation, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the kernel copies the program, whose length is that of the slice, before it returns.
    let fd = unsafe { libc::syscall(SYS_seccomp, operation, flags, &raw const program) };
    assert!(fd >= 0, "take a filter: {}", Error::last_os_error());
    // SAFETY: it is new, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(c_int::try_from(fd).expect("a descriptor")) }
}

/// Takes one question and answers it.
fn answer_one(listener: &OwnedFd, answer: &mut impl FnMut(Call) -> Option<c_int>) {
    // SAFETY: plain integers; the kernel wants them to be zero.
    let mut asked: libc::seccomp_notif = unsafe { zeroed() };
    // SAFETY: the kernel writes one such structure.
    if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) } != 0 {
        // Its process was killed meanwhile.
        return;
    }
    let call = Call { number: asked.data.nr.into(), second: asked.data.args[1], third: asked.data.args[2] };
    let error = is_isolabs(asked.pid).then(|| answer(call)).flatten();
    let reply = libc::seccomp_notif_resp {
        id: asked.id,
        val: 0,
        error: error.map_or(0, |error| -error),
        flags: if error.is_none() { MAKE_IT } else { 0 },
    };
    // It fails where the process was killed meanwhile.
    // SAFETY: the kernel reads one such structure.
    let _sent =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const reply) };
}

/// Whether a thread runs a program of isolab's: not the test that is still to start it, not the workload.
fn is_isolabs(thread: u32) -> bool {
    let Ok(program) = fs::read_link(format!("/proc/{thread}/exe")) else { return false };
    let ours = fs::read_link("/proc/self/exe").expect("/proc");
    program != ours && program.file_name().is_some_and(|name| name != WORKLOAD)
}
