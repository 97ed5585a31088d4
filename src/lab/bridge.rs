//! The host's side of a running lab: one poll loop over ports, standard streams, signals and the end of QEMU.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};

use super::console::Console;
use super::machine::{LabClock, RunningMachine};
use super::protocol::{CHUNK, FileSum, Frames, FromLab, ToLab, frame, message, port};
use super::streams::{Lines, Output, check_files, receive, send};
use super::terminal::{self, RawTerminal};
use super::watchdog::Watchdog;
use super::{LabOutcome, LabProgress, LabStdio};

/// The lab is up within this, or something is wrong. It takes 2 to 4 s on an idle machine and was seen to take 45 s on one
/// with ten times as much to do as it has CPUs.
const START_LIMIT: Duration = Duration::from_secs(120);
/// What a signalled isolab gets for its own cleaning before the lab is ended.
const SIGNAL_GRACE: Duration = Duration::from_secs(5);
/// Most bytes of returned files.
const MAX_FILES: usize = 256 << 20;

/// Where in its life the lab is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Up,
}

/// What a poll entry belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Control,
    ControlOut,
    Stdin,
    StdinPort,
    StdinReply,
    Output(usize),
    Sink(usize),
    Files,
    Console,
    Messages,
    Signals,
    Ended,
    /// An answer of QEMU's monitor.
    Monitor,
}

/// A lab being served.
#[derive(Debug)]
pub(super) struct Bridge {
    machine: RunningMachine,
    phase: Phase,
    started: Instant,
    deadline: Option<Instant>,
    /// Our terminal goes raw once isolab runs inside: until then Ctrl-C ends the lab.
    wants_raw: bool,
    raw: Option<RawTerminal>,
    signals: Vec<(i32, UnixStream)>,
    control: Frames,
    control_out: Vec<u8>,
    /// Standard input is still read.
    stdin_open: bool,
    stdin_out: Vec<u8>,
    outputs: [Output; 2],
    /// Of standard output, where it goes line by line to the progress.
    lines: Option<Lines>,
    files: Frames,
    file: Vec<u8>,
    received: Vec<Vec<u8>>,
    n_files: usize,
    ended: Option<(u8, Vec<Option<FileSum>>)>,
    console: Console,
    messages_open: bool,
    interrupted: Option<u8>,
    /// Why standard output is lost.
    lost: Option<Errno>,
    watchdog: Option<Watchdog>,
    /// Bytes moved in this round: QEMU's end counts only when nothing more comes.
    moved: usize,
}

impl Bridge {
    pub(super) fn new(mut machine: RunningMachine, stdio: LabStdio, n_files: usize) -> Result<Self> {
        let mut signals = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH] {
            let (ours, handler) = UnixStream::pair().context("create a signal pipe")?;
            ours.set_nonblocking(true).context("prepare a signal pipe")?;
            signal_hook::low_level::pipe::register(signal, handler).context("catch signals")?;
            signals.push((signal, ours));
        }
        let stdin_open = !matches!(stdio, LabStdio::Output | LabStdio::Lines);
        let watchdog = machine.monitor.take().map(Watchdog::new);
        Ok(Self {
            machine,
            phase: Phase::Starting,
            started: Instant::now(),
            deadline: Some(Instant::now() + START_LIMIT),
            wants_raw: stdio == LabStdio::Terminal,
            raw: None,
            signals,
            control: Frames::default(),
            control_out: Vec::new(),
            stdin_open,
            stdin_out: if stdin_open { Vec::new() } else { frame(&[]) },
            outputs: [Output::new(port::STDOUT), Output::new(port::STDERR)],
            lines: (stdio == LabStdio::Lines).then(Lines::default),
            files: Frames::default(),
            file: Vec::new(),
            received: Vec::new(),
            n_files,
            ended: None,
            console: Console::default(),
            messages_open: true,
            interrupted: None,
            lost: None,
            watchdog,
            moved: 0,
        })
    }

    /// Serves the lab until isolab inside has ended and all its output is written.
    pub(super) fn run(mut self, progress: &mut dyn FnMut(LabProgress)) -> Result<LabOutcome> {
        loop {
            let ready = self.wait()?;
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.look();
            }
            self.moved = 0;
            for &(source, flags) in &ready {
                self.handle(source, flags, progress)?;
            }
            if self.complete() {
                break;
            }
            if let Some(signal) = self.interrupted
                && self.deadline.is_some_and(|at| Instant::now() >= at)
            {
                return Ok(LabOutcome { status: 128 + signal, files: vec![None; self.n_files] });
            }
            if self.phase == Phase::Starting && self.deadline.is_some_and(|at| Instant::now() >= at) {
                let why = format!("the lab did not come up within {START_LIMIT:?}");
                return Err(self.console.broken(why).into());
            }
            if self.moved == 0 && ready.iter().any(|(source, _)| *source == Source::Ended) {
                return Err(self.console.broken("the lab machine ended before isolab did".into()).into());
            }
        }
        self.raw = None;
        progress(LabProgress::Done);
        self.lost.map_or(Ok(()), Err).context("write what comes from the lab (the rest of it is lost)")?;
        let (status, sums) = self.ended.take().unwrap_or_default();
        Ok(LabOutcome { status, files: check_files(self.received, &sums, self.n_files)? })
    }

    fn complete(&self) -> bool {
        let sent = self.ended.as_ref().map(|(_, sums)| sums.iter().flatten().count());
        sent.is_some_and(|sent| self.received.len() >= sent) && self.outputs.iter().all(Output::complete)
    }

    fn wait(&self) -> Result<Vec<(Source, PollFlags)>> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let ports = &self.machine.ports;
        let mut list: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::new();
        let mut watch = |source, fd, flags| list.push((source, fd, flags));
        watch(Source::Control, ports[0].as_fd(), PollFlags::IN);
        if !self.control_out.is_empty() {
            watch(Source::ControlOut, ports[0].as_fd(), PollFlags::OUT);
        }
        if !self.stdin_out.is_empty() {
            watch(Source::StdinPort, ports[1].as_fd(), PollFlags::OUT);
        } else if self.stdin_open && self.phase == Phase::Up {
            watch(Source::Stdin, stdin.as_fd(), PollFlags::IN);
        }
        watch(Source::StdinReply, ports[1].as_fd(), PollFlags::IN);
        for (index, output) in self.outputs.iter().enumerate() {
            if output.waits() {
                let sink = if index == 0 { stdout.as_fd() } else { stderr.as_fd() };
                watch(Source::Sink(index), sink, PollFlags::OUT);
            } else {
                watch(Source::Output(index), ports[2 + index].as_fd(), PollFlags::IN);
            }
        }
        watch(Source::Files, ports[4].as_fd(), PollFlags::IN);
        watch(Source::Console, self.machine.console.as_fd(), PollFlags::IN);
        if let Some(messages) = self.machine.messages.as_ref().filter(|_| self.messages_open) {
            watch(Source::Messages, messages.as_fd(), PollFlags::IN);
        }
        for (_, pipe) in &self.signals {
            watch(Source::Signals, pipe.as_fd(), PollFlags::IN);
        }
        watch(Source::Ended, self.machine.ended(), PollFlags::IN);
        if let Some(watchdog) = &self.watchdog {
            watch(Source::Monitor, watchdog.event(), PollFlags::IN);
        }
        let mut fds: Vec<PollFd<'_>> =
            list.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let look = self.watchdog.as_ref().map(Watchdog::next);
        let soonest = self.deadline.into_iter().chain(look).min();
        let timeout = soonest.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for the lab"),
        }
        let ready = list.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, _, _), fd)| (*source, fd.revents())).collect())
    }

    fn handle(
        &mut self,
        source: Source,
        flags: PollFlags,
        progress: &mut dyn FnMut(LabProgress),
    ) -> Result<()> {
        match source {
            Source::Control => {
                let bytes = receive(&mut self.machine.ports[0])?;
                self.moved += bytes.len();
                self.control.push(&bytes);
                while let Some(frame) = self.control.next()? {
                    let message = serde_json::from_slice(&frame).context("read a message from the lab")?;
                    self.message(message, progress)?;
                }
            }
            Source::ControlOut => send(&mut self.machine.ports[0], &mut self.control_out)?,
            Source::StdinPort => send(&mut self.machine.ports[1], &mut self.stdin_out)?,
            // Only its greeting.
            Source::StdinReply => drop(receive(&mut self.machine.ports[1])?),
            Source::Stdin => self.read_stdin()?,
            Source::Output(index) => self.read_output(index, progress)?,
            Source::Sink(index) => self.write_sink(index, flags)?,
            Source::Files => self.read_files()?,
            Source::Console => {
                let bytes = receive(&mut self.machine.console)?;
                self.log(&bytes);
            }
            Source::Messages => self.read_messages(),
            Source::Signals => self.read_signals()?,
            Source::Monitor => {
                let is_idle = self.watchdog.as_mut().map_or(Ok(false), Watchdog::read)?;
                // Where instructions are counted, it would be one more event for those that are measured.
                if is_idle && self.phase == Phase::Up && self.machine.clock == LabClock::Wall {
                    self.tell(&ToLab::Nudge)?;
                }
            }
            Source::Ended => {}
        }
        Ok(())
    }

    fn message(&mut self, message: FromLab, progress: &mut dyn FnMut(LabProgress)) -> Result<()> {
        match message {
            FromLab::Up { kernel, warnings, .. } => {
                self.phase = Phase::Up;
                self.deadline = None;
                let after = self.started.elapsed();
                progress(LabProgress::Up { kernel, after, warnings });
            }
            FromLab::Started => {
                progress(LabProgress::Running);
                if self.wants_raw {
                    self.raw = RawTerminal::enter()?;
                }
            }
            FromLab::StdinClosed => {
                self.stdin_open = false;
                self.stdin_out.clear();
            }
            FromLab::Ended { status, files } => {
                self.stdin_open = false;
                self.ended = Some((status, files));
            }
            FromLab::Failed { message } => {
                return Err(self.console.broken(format!("the lab can't run isolab: {message}")).into());
            }
            FromLab::NotStarted(program) => return Err(program.into()),
        }
        Ok(())
    }

    fn read_stdin(&mut self) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        match rustix::io::read(io::stdin(), &mut buffer) {
            Ok(0) | Err(Errno::IO) => {
                self.stdin_open = false;
                self.stdin_out = frame(&[]);
            }
            Ok(n) => self.stdin_out = frame(&buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno).context("read standard input"),
        }
        send(&mut self.machine.ports[1], &mut self.stdin_out)
    }

    fn read_output(&mut self, index: usize, progress: &mut dyn FnMut(LabProgress)) -> Result<()> {
        let bytes = receive(&mut self.machine.ports[2 + index])?;
        self.moved += bytes.len();
        self.outputs[index].take(&bytes)?;
        if let Some(lines) = self.lines.as_mut().filter(|_| index == 0) {
            for line in lines.take(&self.outputs[index].divert()) {
                progress(LabProgress::Line(line));
            }
        }
        Ok(())
    }

    fn write_sink(&mut self, index: usize, flags: PollFlags) -> Result<()> {
        let output = &mut self.outputs[index];
        let failed = flags.contains(PollFlags::ERR);
        let written =
            if index == 0 { output.write(io::stdout(), failed) } else { output.write(io::stderr(), failed) };
        match written {
            Ok(n) => self.moved += n,
            // The isolab inside shall see it, too.
            Err(errno) => {
                // What nobody reads is no loss.
                self.lost = self.lost.or_else(|| (index == 0 && errno != Errno::PIPE).then_some(errno));
                self.tell(&ToLab::CloseOutput(self.outputs[index].port))?;
            }
        }
        Ok(())
    }

    fn read_files(&mut self) -> Result<()> {
        let bytes = receive(&mut self.machine.ports[4])?;
        self.moved += bytes.len();
        self.files.push(&bytes);
        while let Some(frame) = self.files.next()? {
            if frame.is_empty() {
                self.received.push(std::mem::take(&mut self.file));
            } else {
                self.file.extend_from_slice(&frame);
            }
            if self.file.len() > MAX_FILES || self.received.len() > self.n_files {
                bail!("the lab sends more files than asked for");
            }
        }
        Ok(())
    }

    fn read_messages(&mut self) {
        let mut buffer = [0; 4096];
        let read = self.machine.messages.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut buffer));
        match read {
            Ok(n) if n > 0 => {
                // What a software CPU can't do is no news.
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                let news = text.lines().filter(|line| !line.contains("TCG doesn't support"));
                for line in news {
                    self.log(format!("{line}\n").as_bytes());
                }
            }
            _ => self.messages_open = false,
        }
    }

    fn read_signals(&mut self) -> Result<()> {
        let mut arrived = Vec::new();
        for (signal, pipe) in &mut self.signals {
            if !receive(pipe)?.is_empty() {
                arrived.push(*signal);
            }
        }
        for signal in arrived {
            if signal == SIGWINCH {
                let (rows, cols) = terminal::size();
                self.tell(&ToLab::Resize { rows, cols })?;
                continue;
            }
            let number = u8::try_from(signal).unwrap_or(15);
            // The first one is passed on; before the lab is up, or the second time, the lab just ends.
            let grace = if self.phase == Phase::Up && self.interrupted.is_none() {
                self.tell(&ToLab::Signal(number))?;
                SIGNAL_GRACE
            } else {
                Duration::ZERO
            };
            self.interrupted = Some(number);
            self.deadline = Some(Instant::now() + grace);
        }
        Ok(())
    }

    fn tell(&mut self, what: &ToLab) -> Result<()> {
        self.control_out.extend(message(what)?);
        send(&mut self.machine.ports[0], &mut self.control_out)
    }

    fn log(&mut self, bytes: &[u8]) {
        self.moved += bytes.len();
        self.console.log(bytes);
    }
}
