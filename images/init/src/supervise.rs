//! While the workload runs: reap, pump, pass signals on; at its end: end everything, drain, say how it ended.

use isolab_bare::sys::io::{self, IN, Poll};
use isolab_bare::sys::{Errno, Fd, process};
use isolab_wire::control::Message;
use isolab_wire::mark::Exit;

use crate::channels::{Messages, Received};
use crate::stdio::Stdio;

const CHLD: u64 = 1 << 16;
const KILL: u8 = 9;
const STOP: u8 = 19;

/// Blocks all signals and forgets what the parent ignored; they are read from a descriptor instead.
pub(crate) fn take_signals() -> Result<(), Errno> {
    process::block_signals(u64::MAX)?;
    for signal in (1..=64).filter(|s| ![KILL, STOP].contains(s)) {
        process::default_signal(signal)?;
    }
    // A session of our own where we are not its leader already (the kernel's first process is none).
    let _ = process::new_session();
    Ok(())
}

/// Runs until the workload has ended and all its output is delivered.
pub(crate) fn until_end(workload: i32, control: Fd, stdio: &mut Stdio) -> Exit {
    let exit = match process::signal_fd(CHLD) {
        Ok(children) => watch(workload, control, children, stdio),
        // Out of descriptors: without a wake-up the workload can't be watched.
        Err(_) => Exit::Signal(KILL),
    };
    let _ = process::kill(-1, KILL);
    if stdio.flows().next().is_some() || stdio.terminal.is_some() {
        // Once every process is gone, every writing end is closed, so each flow comes to its end.
        while process::wait(true).is_ok() {}
        stdio.finish_input();
        while pump_once(stdio, &mut [], |_| {}) {}
    }
    exit
}

fn watch(workload: i32, control: Fd, children: Fd, stdio: &mut Stdio) -> Exit {
    let mut messages = Messages::new();
    let mut watched = [control, children].map(|fd| Poll { fd: fd.0, events: IN, found: 0 });
    loop {
        let (mut heard, mut ended) = (false, false);
        pump_once(stdio, &mut watched, |found| {
            heard = found.first().is_some_and(|p| p.found != 0);
            ended = found.get(1).is_some_and(|p| p.found != 0);
        });
        if ended {
            let mut information = [0_u8; 128];
            let _ = io::read(children, &mut information);
            if let Some(exit) = reap(workload) {
                return exit;
            }
        }
        if heard {
            match messages.receive(control) {
                Received::Message(Message::Signal(signal)) => {
                    let target = if stdio.terminal.is_some() { -workload } else { workload };
                    let _ = process::kill(target, signal);
                }
                Received::Message(Message::Resize { rows, cols }) => stdio.resize(rows, cols),
                Received::Nothing => {}
                // Nobody waits for the workload any more.
                Received::End => return Exit::Signal(KILL),
            }
        }
    }
}

/// Takes every ended child; how the workload ended, if it is among them.
fn reap(workload: i32) -> Option<Exit> {
    let mut exit = None;
    while let Ok(Some((pid, status))) = process::wait(false) {
        if pid == workload {
            let [low, code, ..] = status.to_le_bytes();
            exit = Some(if low & 0x7f == 0 { Exit::Code(code) } else { Exit::Signal(low & 0x7f) });
        }
    }
    exit
}

/// Waits for the watched descriptors and all flows, and moves bytes; false when there was nothing to wait for.
fn pump_once(stdio: &mut Stdio, watched: &mut [Poll], mut report: impl FnMut(&[Poll])) -> bool {
    const FLOWS: usize = 3;
    let mut polls = [Poll { fd: -1, events: 0, found: 0 }; 2 + 2 * FLOWS];
    let (ours, theirs) = polls.split_at_mut(2);
    for (slot, poll) in ours.iter_mut().zip(watched.iter()) {
        *slot = *poll;
    }
    for (slots, flow) in theirs.chunks_exact_mut(2).zip(stdio.flows()) {
        slots.copy_from_slice(&flow.interest());
    }
    if polls.iter().all(|p| p.fd < 0) || io::poll(&mut polls).is_err() {
        return false;
    }
    let (ours, theirs) = polls.split_at(2);
    for (found, flow) in theirs.chunks_exact(2).zip(stdio.flows()) {
        if let [source, target] = found {
            flow.advance([source.found, target.found]);
        }
    }
    report(ours);
    true
}
