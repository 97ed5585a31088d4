//! Moving bytes between isolab inside and the ports.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::super::protocol::{CHUNK, Frames, FromLab, ToLab, frame, message, port};
use crate::terminal::resize;

/// Frames into a port.
#[derive(Debug)]
pub(super) struct Sender {
    port: File,
}

impl Sender {
    pub(super) const fn new(port: File) -> Self {
        Self { port }
    }

    /// Sends bytes; blocks while the host does not take them.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(CHUNK).try_for_each(|chunk| self.port.write_all(&frame(chunk)))
    }

    /// Ends the stream.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.port.write_all(&frame(&[]))
    }
}

/// One of isolab's outputs to its port, until it ends or nobody reads it any more.
pub(super) fn output(source: Option<OwnedFd>, mut sender: Sender, closed: &AtomicBool) -> Result<()> {
    if let Some(source) = source {
        let mut source = File::from(source);
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = match source.read(&mut buffer) {
                // A terminal's end is EIO: its last user has gone.
                Ok(0) => break,
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.context("read isolab's output")?,
            };
            if closed.load(Ordering::Relaxed) {
                break;
            }
            sender.send(buffer.get(..n).unwrap_or_default()).context("write to the port")?;
        }
        // Dropping the pipe here is what tells isolab that nobody reads.
    }
    sender.end().context("write to the port")
}

/// The host's standard input to isolab's, until either ends.
pub(super) fn input(mut source: File, sink: OwnedFd, control: &Control) {
    let mut sink = File::from(sink);
    let mut frames = Frames::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let Ok(n) = source.read(&mut buffer) else { return };
        if n == 0 {
            return;
        }
        frames.push(buffer.get(..n).unwrap_or_default());
        while let Ok(Some(frame)) = frames.next() {
            if frame.is_empty() {
                return;
            }
            if sink.write_all(&frame).is_err() {
                // isolab closed it: the host stops reading. If that can't be told, the host is gone.
                let _ = control.send(&FromLab::StdinClosed);
                return;
            }
        }
    }
}

/// The control port.
#[derive(Debug)]
pub(super) struct Control {
    reader: Mutex<Option<File>>,
    writer: Mutex<File>,
    stdout_closed: Arc<AtomicBool>,
    stderr_closed: Arc<AtomicBool>,
    ended: Mutex<bool>,
    ended_changed: Condvar,
}

impl Control {
    pub(super) fn new(port: File) -> Self {
        // Both directions of one descriptor: a port can be opened only once.
        let reader = port.try_clone().ok();
        Self {
            reader: Mutex::new(reader),
            writer: Mutex::new(port),
            stdout_closed: Arc::default(),
            stderr_closed: Arc::default(),
            ended: Mutex::new(false),
            ended_changed: Condvar::new(),
        }
    }

    /// Sends a message.
    pub(super) fn send(&self, what: &FromLab) -> Result<()> {
        let bytes = message(what).context("write a message")?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(&bytes).context("write to the control port")
    }

    /// Set when nobody reads this output any more.
    pub(super) fn closed(&self, number: u32) -> Arc<AtomicBool> {
        Arc::clone(if number == port::STDOUT { &self.stdout_closed } else { &self.stderr_closed })
    }

    /// Starts following the host's messages, for isolab with this process id and terminal.
    pub(super) fn listen(self: &Arc<Self>, isolab: Pid, terminal: Option<Arc<OwnedFd>>) {
        let control = Arc::clone(self);
        thread::spawn(move || {
            control.follow(isolab, terminal.as_deref());
            *control.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
            control.ended_changed.notify_all();
        });
    }

    /// Returns when the host has closed the port, or at once if nobody listens.
    pub(super) fn wait_for_end(&self) {
        let listening = self.reader.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if listening {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.ended_changed.wait_while(ended, |ended| !*ended));
        }
    }

    fn follow(&self, isolab: Pid, terminal: Option<&OwnedFd>) {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut reader) = reader else { return };
        let mut frames = Frames::default();
        let mut buffer = [0; 4096];
        loop {
            let Ok(n) = reader.read(&mut buffer) else { return };
            if n == 0 {
                return;
            }
            frames.push(buffer.get(..n).unwrap_or_default());
            while let Ok(Some(frame)) = frames.next() {
                if let Ok(message) = serde_json::from_slice(&frame) {
                    self.obey(&message, isolab, terminal);
                }
            }
        }
    }

    fn obey(&self, message: &ToLab, isolab: Pid, terminal: Option<&OwnedFd>) {
        match message {
            ToLab::Signal(number) => {
                // isolab may have ended a moment ago.
                if let Some(signal) = Signal::from_named_raw(i32::from(*number)) {
                    let _ = kill_process(isolab, signal);
                }
            }
            ToLab::Resize { rows, cols } => {
                if let Some(terminal) = terminal {
                    let _ = resize(terminal, *rows, *cols);
                }
            }
            ToLab::Nudge => {}
            ToLab::CloseOutput(number) => self.closed(*number).store(true, Ordering::Relaxed),
        }
    }
}
