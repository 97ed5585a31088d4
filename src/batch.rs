//! Several isolab commands in one process: one JSON line in, one out. What the tests use to share one lab start.

use std::io::{BufRead, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// One command.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// isolab's arguments.
    args: Vec<String>,
    /// What it reads from standard input.
    #[serde(default)]
    stdin: String,
    /// Kills isolab with signal 9 this long after its start.
    #[serde(default)]
    kill_after_us: Option<u64>,
}

/// What it did.
#[derive(Debug, Serialize)]
pub(crate) struct Response {
    status: Option<i32>,
    stdout: String,
    stderr: String,
    ms: u128,
}

/// Runs each request of `input` in turn and writes its response to `output`.
///
/// # Errors
/// A line that is not a request, or input or output that fails.
pub(crate) fn run(input: impl BufRead, mut output: impl Write) -> anyhow::Result<()> {
    for line in input.lines() {
        let line = line.context("read a request")?;
        let request: Request =
            serde_json::from_str(&line).with_context(|| format!("parse request {line:?}"))?;
        let response = execute(&request)?;
        serde_json::to_writer(&mut output, &response).context("write a response")?;
        output.write_all(b"\n").and_then(|()| output.flush()).context("write a response")?;
    }
    Ok(())
}

fn execute(request: &Request) -> anyhow::Result<Response> {
    let start = std::time::Instant::now();
    let mut child = Command::new("/proc/self/exe")
        .args(&request.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start isolab")?;
    let mut stdin = child.stdin.take().context("take its standard input")?;
    let text = request.stdin.clone();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    if let Some(after) = request.kill_after_us {
        kill_after(&mut child, Duration::from_micros(after).saturating_sub(start.elapsed()))?;
    }
    let done = child.wait_with_output().context("wait for isolab")?;
    // A command that does not read its input closes it: not an error of ours.
    let _ = writer.join();
    Ok(Response {
        status: done.status.code(),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        ms: start.elapsed().as_millis(),
    })
}

/// Kills a process that has not ended within this time.
fn kill_after(child: &mut Child, time: Duration) -> anyhow::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("read isolab's number")?;
    let ended = pidfd_open(pid, PidfdFlags::empty()).context("watch isolab")?;
    let time = Timespec::try_from(time).context("convert the time")?;
    let n = poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&time)).context("wait for isolab")?;
    if n == 0 {
        child.kill().context("kill isolab")?;
    }
    Ok(())
}
