//! `isolab-pull`: the part of isolab that talks with registries, a process of its own with the rights that takes and no others.
//!
//! isolab carries it and starts it from a sealed memory file in an empty directory. It reads one request from standard
//! input, gives up its rights before it opens a socket, fills the directory with an OCI layout, and says how far it is
//! and how it ended on standard output (`images/src/pull/protocol.rs`).

mod confine;
mod loopback;
#[path = "../../src/pull/protocol.rs"]
mod protocol;
mod registry;

use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

use protocol::{Failure, LINE, Line, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, set_parent_process_death_signal};

fn main() -> ExitCode {
    confine::close_inherited();
    let line = match request().and_then(|request| pull(&request)) {
        Ok(digest) => Line::Done { digest },
        Err(failure) => Line::Failed(failure),
    };
    match say(&line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The request: one line, or isolab is gone.
fn request() -> Result<Request, Failure> {
    let mut line = Vec::new();
    let read = io::stdin().lock().take(LINE).read_until(b'\n', &mut line);
    read.map_err(|error| prepare(&error))?;
    serde_json::from_slice(&line).map_err(|error| prepare(&error))
}

/// Prepares what needs the rights that isolab has (certificates may be readable to it only), gives those up, pulls.
fn pull(request: &Request) -> Result<String, Failure> {
    let pulling = registry::Pulling::new(request)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| prepare(&error))?;
    let file_bytes = request.download_bytes.max(request.document_bytes);
    confine::confine(file_bytes).map_err(|error| prepare(&error))?;
    die_with_parent().map_err(|error| prepare(&error))?;
    runtime.block_on(pulling.run(&mut |done_bytes, total_bytes| {
        // Where isolab is gone, this process is about to be.
        let _ = say(&Line::Progress { done_bytes, total_bytes });
    }))
}

/// Ends this process when isolab ends, after the last change of ids, which takes the signal back. isolab holds the other
/// end of standard input as long as it is there.
fn die_with_parent() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let stdin = rustix::stdio::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if fds[0].revents().contains(PollFlags::HUP) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

fn say(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

fn prepare(error: &(dyn Error + 'static)) -> Failure {
    Failure::Prepare { because: because(error) }
}

/// An error and its causes.
fn because(error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect()
}
