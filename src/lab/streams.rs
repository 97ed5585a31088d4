//! The pieces of the host's loop: what has arrived for standard output and error, sockets, returned files.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use rustix::io::Errno;

use super::protocol::{FileSum, FrameError, Frames, sha256};

/// A write of this size does not block on a pipe that polls writable.
const PIPE_WRITE: usize = 4096;

/// One of standard output and error.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) port: u32,
    frames: Frames,
    pending: Vec<u8>,
    written: usize,
    /// The end of the stream has come.
    ended: bool,
    /// Our side can't be written any more.
    broken: bool,
}

impl Output {
    pub(super) fn new(port: u32) -> Self {
        Self { port, frames: Frames::default(), pending: Vec::new(), written: 0, ended: false, broken: false }
    }

    /// Something waits to be written; nothing more is read from the port before it is.
    pub(super) fn waits(&self) -> bool {
        self.written < self.pending.len()
    }

    /// All has come and gone.
    pub(super) fn complete(&self) -> bool {
        self.ended && !self.waits()
    }

    /// Takes what came from the port.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.pending.clear();
        self.written = 0;
        self.frames.push(bytes);
        while let Some(frame) = self.frames.next()? {
            self.ended |= frame.is_empty();
            if !self.broken {
                self.pending.extend_from_slice(&frame);
            }
        }
        Ok(())
    }

    /// Takes what waits to be written away.
    pub(super) fn divert(&mut self) -> Vec<u8> {
        self.written = 0;
        std::mem::take(&mut self.pending)
    }

    /// Writes a part to a descriptor that polled writable (or, with `failed`, in error); how much.
    ///
    /// # Errors
    /// Nothing can be written there any more.
    pub(super) fn write(&mut self, sink: impl AsFd, failed: bool) -> Result<usize, Errno> {
        let rest = self.pending.get(self.written..).unwrap_or_default();
        let part = rest.get(..PIPE_WRITE).unwrap_or(rest);
        match rustix::io::write(sink, part) {
            Ok(n) => {
                self.written += n;
                Ok(n)
            }
            Err(Errno::AGAIN | Errno::INTR) if !failed => Ok(0),
            Err(errno) => {
                self.broken = true;
                self.pending.clear();
                self.written = 0;
                Err(errno)
            }
        }
    }
}

/// Longest line that is kept.
const MAX_LINE: usize = 64 * 1024;

/// A stream cut into lines.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// The lines that these bytes complete, without their ends; what is longer than [`MAX_LINE`] is dropped.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        if self.0.len() > MAX_LINE {
            self.0.clear();
        }
        lines
    }
}

/// All that is there now; the end of a port is told by QEMU's end.
pub(super) fn receive(socket: &mut UnixStream) -> anyhow::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 * 1024];
    match socket.read(&mut buffer) {
        Ok(n) => {
            buffer.truncate(n);
            Ok(buffer)
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(Vec::new()),
        Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(Vec::new()),
        Err(e) => Err(e).context("read from the lab"),
    }
}

/// Writes what goes without waiting and leaves the rest.
pub(super) fn send(socket: &mut UnixStream, pending: &mut Vec<u8>) -> anyhow::Result<()> {
    match socket.write(pending) {
        Ok(n) => drop(pending.drain(..n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        // QEMU has ended: the loop sees that itself.
        Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            pending.clear();
        }
        Err(e) => return Err(e).context("write to the lab"),
    }
    Ok(())
}

/// Pairs what came with what was announced.
pub(super) fn check_files(
    received: Vec<Vec<u8>>,
    sums: &[Option<FileSum>],
    asked: usize,
) -> anyhow::Result<Vec<Option<Vec<u8>>>> {
    if sums.len() != asked || received.len() != sums.iter().flatten().count() {
        bail!("the lab announced {} files, {} were asked for", sums.len(), asked);
    }
    let mut received = received.into_iter();
    let mut files = Vec::new();
    for sum in sums {
        let file = if sum.is_some() { received.next() } else { None };
        if let (Some(sum), Some(file)) = (sum, &file)
            && (u64::try_from(file.len()).ok() != Some(sum.len) || sha256(file) != sum.sha256)
        {
            bail!("a file from the lab arrived damaged: {} bytes of {}", file.len(), sum.len);
        }
        files.push(file);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::protocol::frame;
    use super::*;

    fn sum(content: &[u8]) -> Option<FileSum> {
        let len = u64::try_from(content.len()).unwrap();
        Some(FileSum { len, sha256: sha256(content) })
    }

    #[test]
    fn files_pair_with_what_was_announced() {
        let files = check_files(vec![b"b".to_vec()], &[None, sum(b"b")], 2).unwrap();
        assert_eq!(files, [None, Some(b"b".to_vec())]);
    }

    #[test]
    fn a_changed_file_is_refused() {
        let error = check_files(vec![b"c".to_vec()], &[sum(b"b")], 1).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn a_missing_file_is_refused() {
        check_files(Vec::new(), &[sum(b"b")], 1).unwrap_err();
    }

    #[test]
    fn an_output_is_complete_when_its_end_has_come_and_all_is_written() {
        let mut output = Output::new(3);
        output.take(&[frame(b"hello"), frame(b"")].concat()).unwrap();
        assert!(output.waits() && !output.complete());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(output.write(&ours, false), Ok(5));
        assert!(output.complete());
        drop(ours);
        let mut got = String::new();
        theirs.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello");
    }

    #[test]
    fn a_diverted_output_comes_in_lines_and_waits_for_nobody() {
        let (mut output, mut lines) = (Output::new(3), Lines::default());
        output.take(&frame(b"one\ntw")).unwrap();
        assert_eq!(lines.take(&output.divert()), ["one"]);
        assert!(!output.waits());
        output.take(&[frame(b"o\n\nthree"), frame(b"")].concat()).unwrap();
        assert_eq!(lines.take(&output.divert()), ["two", ""]);
        assert!(output.complete());
        lines.take(&vec![b'x'; MAX_LINE + 1]);
        assert_eq!(lines.take(b"y\n"), ["y"]);
    }

    #[test]
    fn a_closed_output_is_told_once_and_swallows_the_rest() {
        let mut output = Output::new(3);
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        output.take(&frame(b"hello")).unwrap();
        assert_eq!(output.write(&ours, true), Err(Errno::PIPE));
        output.take(&[frame(b"more"), frame(b"")].concat()).unwrap();
        assert!(output.complete());
    }
}
