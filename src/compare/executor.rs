//! Runs one arm once: a fresh `isolab run` process, its report on a pipe, its output digested.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use isolab_bench::measure::{ExecuteError, Executor};
use isolab_bench::run_report::{MAX_LINE, RunReport};
use isolab_bench::sample::Execution;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use sha2::{Digest, Sha256};

use crate::clock::now_ns;

/// Starts `isolab run` processes.
#[derive(Debug)]
pub(crate) struct RunExecutor {
    /// Arguments after `run --level L --report-fd N`.
    pub(crate) arguments: Vec<String>,
}

impl Executor for RunExecutor {
    fn execute(&mut self, arm: &str) -> Result<Execution, ExecuteError> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // The one descriptor that the fresh process inherits; ours is closed right after the start.
        fcntl_setfd(&write, FdFlags::empty())?;
        let number = write.as_raw_fd().to_string();
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["run", "--on", "host", "--level", arm, "--report-fd", &number])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let request_ns = now_ns();
        let mut child = command.spawn()?;
        drop(write);
        let stdout = digest(child.stdout.take());
        let stderr = digest(child.stderr.take());
        let mut line = Vec::new();
        File::from(read).take(MAX_LINE as u64 + 1).read_to_end(&mut line)?;
        let (stdout_sha256, _) = join(stdout)?;
        let (stderr_sha256, said) = join(stderr)?;
        let status = child.wait()?;
        if line.is_empty() {
            return Err(failure(status.code(), &said).into());
        }
        Ok(Execution { request_ns, report: RunReport::from_line(&line)?, stdout_sha256, stderr_sha256 })
    }
}

fn failure(status: Option<i32>, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let said = said.trim().trim_start_matches("isolab: ").escape_debug().to_string();
    match status {
        Some(status) => format!("isolab run ended with status {status} and no report: {said}"),
        None => format!("isolab run was killed before it reported: {said}"),
    }
}

type Digested = io::Result<(String, Vec<u8>)>;

/// Reads a stream to its end in a thread of its own; gives its digest and its first bytes.
fn digest(stream: Option<impl Read + Send + 'static>) -> Option<JoinHandle<Digested>> {
    let mut stream = stream?;
    Some(std::thread::spawn(move || {
        let (mut hash, mut head, mut buffer) = (Sha256::new(), Vec::new(), [0; 16 * 1024]);
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                let hex = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
                return Ok((hex, head));
            }
            hash.update(&buffer[..n]);
            head.extend_from_slice(&buffer[..n.min(2048_usize.saturating_sub(head.len()))]);
        }
    }))
}

fn join(thread: Option<JoinHandle<Digested>>) -> Digested {
    let thread = thread.ok_or_else(|| io::Error::other("no output pipe"))?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the output reader panicked")))
}
