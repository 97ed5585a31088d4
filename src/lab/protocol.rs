//! What host and lab say to each other over virtio-serial ports.
//!
//! Every port carries frames: length (u32, little endian), then that many bytes; an empty frame ends a stream. So the end
//! of a stream travels as data and never depends on how a port is closed. On the control port each frame is one JSON
//! message. On the files port the frames of one file follow those of another, each ended by an empty frame.

use serde::{Deserialize, Serialize};

/// Longest frame that either side accepts.
const MAX_FRAME: usize = 1 << 20;
/// Payload of the frames that streams are cut into; with its length it fills the 32 KiB that Linux hands to a
/// virtio-serial port at once.
pub(crate) const CHUNK: usize = 32 * 1024 - 4;

/// Port numbers; number 0 is reserved for a console.
pub(crate) mod port {
    /// Messages, both ways.
    pub(crate) const CONTROL: u32 = 1;
    /// Standard input, into the lab.
    pub(crate) const STDIN: u32 = 2;
    /// Standard output, out of the lab.
    pub(crate) const STDOUT: u32 = 3;
    /// Standard error, out of the lab.
    pub(crate) const STDERR: u32 = 4;
    /// Files that come back.
    pub(crate) const FILES: u32 = 5;
    /// All ports.
    pub(crate) const ALL: [u32; 5] = [CONTROL, STDIN, STDOUT, STDERR, FILES];
}

/// Where the initramfs holds what the lab is to do; its presence tells process 1 that it is the lab's.
pub(crate) const JOB_FILE: &str = "/lab/job.json";

/// `$ISOLAB_HOME` inside the lab.
pub(crate) const HOME: &str = "/lab/home";

/// Where files from the host are.
pub(crate) const WITH: &str = "/lab/with";

/// What the lab is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabJob {
    /// Arguments for isolab, without its own name.
    pub(crate) args: Vec<String>,
    /// The first argument is a program to run in place of isolab.
    pub(crate) exec: bool,
    /// Environment for it.
    pub(crate) env: Vec<(String, String)>,
    /// Rows and columns of its terminal, if it gets one.
    pub(crate) terminal: Option<(u16, u16)>,
    /// Files to send back afterwards.
    pub(crate) returns: Vec<String>,
    /// Images, in the order of the drives.
    pub(crate) images: Vec<JobImage>,
    /// The host's clock at start, seconds since 1970: the lab has no clock chip.
    pub(crate) now_s: u64,
}

/// One image of the lab's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobImage {
    /// Files below `names/` of the store, with their content.
    pub(crate) names: Vec<(String, String)>,
    /// `sha256:` and 64 hex digits.
    pub(crate) digest: String,
    /// The host store's record of it, as JSON.
    pub(crate) record: String,
    /// Serial number of its drive.
    pub(crate) drive: String,
    /// Bytes to copy from there into a disk in memory, which is used in its place.
    pub(crate) to_memory: Option<u64>,
}

/// From the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum FromLab {
    /// Its kernel is up, devices and store are there.
    Up {
        /// Release of the kernel.
        kernel: String,
        /// Seconds since start on the lab's clock.
        uptime: String,
        /// Modules that did not load, with the reason.
        warnings: Vec<String>,
    },
    /// isolab's process runs.
    Started,
    /// It reads no more standard input.
    StdinClosed,
    /// It has ended; all output and files have been sent.
    Ended {
        /// Its exit status, 128+n for signal n.
        status: u8,
        /// The files asked for.
        files: Vec<Option<FileSum>>,
    },
    /// The program to run can't be started.
    NotStarted(NotStarted),
    /// The lab can't do its job.
    Failed {
        /// Why.
        message: String,
    },
}

/// A program that can't be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[error("start {program} in the lab: {}", std::io::Error::from_raw_os_error(*.errno))]
pub(crate) struct NotStarted {
    /// Its name.
    pub(crate) program: String,
    /// Why.
    pub(crate) errno: i32,
}

impl NotStarted {
    /// Of that program, which was executed with this result.
    pub(crate) fn new(program: &str, error: &std::io::Error) -> Self {
        Self { program: program.to_owned(), errno: error.raw_os_error().unwrap_or_default() }
    }

    /// The exit status, as that of a command that can't be executed or is not there.
    pub(crate) fn status(&self) -> u8 {
        if self.errno == rustix::io::Errno::NOENT.raw_os_error() { 127 } else { 126 }
    }
}

/// Length and digest of a file that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSum {
    /// Bytes.
    pub(crate) len: u64,
    /// SHA-256 as 64 hex digits.
    pub(crate) sha256: String,
}

/// To the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ToLab {
    /// Send this signal to isolab.
    Signal(u8),
    /// The terminal's new size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Nobody reads this output any more (a port number).
    CloseOutput(u32),
    /// Nothing: the interrupt with which it comes is what it is for (`watchdog.rs`).
    Nudge,
}

/// Bytes that are not a frame.
#[derive(Debug, thiserror::Error)]
#[error("a frame of {0} bytes from the other side is over the limit of 1 MiB")]
pub(crate) struct FrameError(usize);

/// Frames out of a byte stream.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    at: usize,
}

impl Frames {
    /// Adds received bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 && self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let Some((head, body)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let len = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if len > MAX_FRAME {
            return Err(FrameError(len));
        }
        let Some(frame) = body.get(..len).map(<[u8]>::to_vec) else {
            // Keep only what is still needed before more arrives.
            self.buffer.drain(..self.at);
            self.at = 0;
            return Ok(None);
        };
        self.at += 4 + len;
        Ok(Some(frame))
    }
}

/// A frame's bytes; `payload` is at most [`MAX_FRAME`] long.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(4 + payload.len());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// A message as a frame.
pub(crate) fn message<T: Serialize>(message: &T) -> serde_json::Result<Vec<u8>> {
    Ok(frame(&serde_json::to_vec(message)?))
}

/// SHA-256 as 64 hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut stream = frame(b"hello");
        stream.extend(frame(b""));
        stream.extend(frame(b"x"));
        for cut in 1..=stream.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for part in stream.chunks(cut) {
                frames.push(part);
                while let Some(frame) = frames.next().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, [b"hello".to_vec(), Vec::new(), b"x".to_vec()]);
        }
    }

    #[test]
    fn refuses_an_endless_frame() {
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_le_bytes());
        frames.next().unwrap_err();
    }

    #[test]
    fn messages_read_back() {
        let sent = FromLab::Ended { status: 3, files: vec![None] };
        let mut frames = Frames::default();
        frames.push(&message(&sent).unwrap());
        let frame = frames.next().unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<FromLab>(&frame).unwrap(), sent);
    }
}
