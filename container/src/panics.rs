//! What a panic, always a bug of ours, does to a process: one line, then the end, at once.

use std::fs::File;
use std::io::Write;
use std::panic::{PanicHookInfo, set_hook};

use rustix::process::getpid;

use crate::child::PANIC_STATUS;
use crate::sys::exit_now;

/// From here on a panic of this process is told in one line on standard error and ends it with this status. A child of it that
/// panics says nothing and ends with [`PANIC_STATUS`], of which this process tells: it may share our memory, where only
/// system calls are safe.
pub fn end_with(status: i32) {
    let own = getpid();
    set_hook(Box::new(move |info| {
        if getpid() != own {
            exit_now(PANIC_STATUS);
        }
        // Not `eprintln`, which would panic where nobody reads.
        let _ = writeln!(std::io::stderr(), "isolab: {}", text(info));
        exit_now(status)
    }));
}

/// In a child with a copy of our memory that says elsewhere why it fails: from here on a panic is told there, and ends it with
/// [`PANIC_STATUS`].
pub fn tell(to: File) {
    set_hook(Box::new(move |info| {
        let _ = (&to).write_all(text(info).as_bytes());
        exit_now(PANIC_STATUS)
    }));
}

/// What happened and where, in one line.
fn text(info: &PanicHookInfo<'_>) -> String {
    let why = info.payload_as_str().unwrap_or("no reason given").replace('\n', "; ");
    let at = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
    format!("a bug of isolab ended it: {why}{at}; please report it with this line")
}
