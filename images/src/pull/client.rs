//! Running the registry client and listening to it.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::PullError;
use super::protocol::{Failure, LINE, Line, Request};
use crate::digest::Digest;
use crate::escape::Escaped;
use crate::programs::Sealed;
use crate::source::Progress;

/// Of isolab's environment, what says how to reach registries and whom to trust. All else stays here: there may be secrets.
const ENVIRONMENT: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    // With it, HTTP_PROXY means nothing.
    "REQUEST_METHOD",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The client, in the directory that it fills.
pub(super) fn command(program: &Sealed, into: &Path) -> Command {
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_fd().as_raw_fd()));
    let kept = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    // A relative path means isolab's directory.
    let absolute = |name: &str, value: OsString| match name {
        "SSL_CERT_FILE" | "SSL_CERT_DIR" => std::path::absolute(&value).map_or(value, Into::into),
        _ => value,
    };
    command.env_clear().envs(kept.map(|(name, value)| (name, absolute(name, value)))).current_dir(into);
    command
}

/// A process that ends with the value.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Has the client pull; gives the digest that it tells, or what it failed at.
///
/// # Errors
/// It can't be started, or does not end with one of those two.
pub(super) fn run(
    mut command: Command,
    request: &Request,
    progress: &mut dyn FnMut(Progress),
) -> Result<Result<Digest, Failure>, PullError> {
    let (reader, writer) = io::pipe().map_err(PullError::Start)?;
    let errors = writer.try_clone().map_err(PullError::Start)?;
    // Its last words, if it panics, come as a line that is none of ours.
    command.stdin(Stdio::piped()).stdout(writer).stderr(errors);
    let mut client = Ending(command.spawn().map_err(PullError::Start)?);
    // Our copies of its ends of the pipe go away with it.
    drop(command);
    // Stays open: the client ends when this end is closed.
    let mut stdin = client.0.stdin.take();
    let mut line = serde_json::to_vec(request).map_err(|error| PullError::Start(error.into()))?;
    line.push(b'\n');
    if let Some(stdin) = &mut stdin {
        // A client that is gone has said why, or its end says it.
        let _ = stdin.write_all(&line);
    }
    let said = listen(BufReader::new(reader), progress)?;
    let ended = || client.0.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    said.ok_or_else(ended).map_err(|status| PullError::Client(format!("ended early: {status}")))
}

/// Reads until the last line; nothing where there is none.
fn listen(
    mut from: impl BufRead,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Result<Digest, Failure>>, PullError> {
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = from.by_ref().take(LINE).read_until(b'\n', &mut text).map_err(PullError::Start)?;
        if read == 0 {
            return Ok(None);
        }
        let line = text.trim_ascii();
        // A panic begins with an empty line.
        if line.is_empty() {
            continue;
        }
        let garbage = || PullError::Client(format!("said what makes no sense: {}", Escaped::new(line)));
        match serde_json::from_slice(line).map_err(|_| garbage())? {
            Line::Progress { done_bytes, total_bytes } => {
                progress(Progress {
                    done_bytes: done_bytes.min(total_bytes),
                    total_bytes: Some(total_bytes),
                });
            }
            Line::Done { digest } => {
                return digest.parse().map(|digest| Some(Ok(digest))).map_err(|_| garbage());
            }
            Line::Failed(failure) => return Ok(Some(Err(failure))),
        }
    }
}
