//! Runs one arm once: a fresh `isolab run` process, its report on a pipe, its output digested.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use isolab_bench::conditions::Conditions;
use isolab_bench::measure::{ExecuteError, Executor};
use isolab_bench::run_report::{MAX_LINE, RunReport};
use isolab_bench::sample::Execution;
use isolab_wire::trace::Subphase;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

use super::page_cache::PageCache;
use super::settle::Settle;
use crate::clock::now_ns;
use crate::escaped;
use crate::fault::StageFault;
use crate::signals::{ENDING, Signals};

/// How long an interrupted run may take before it is told again.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };

/// First bytes of each stream that are kept.
const HEAD: usize = 16 * 1024;

/// Starts `isolab run` processes.
#[derive(Debug)]
pub(crate) struct RunExecutor {
    /// The files of a run, and their state before it.
    pub(crate) page_cache: PageCache,
    /// Level of each arm, and its arguments after `run --level L --report-fd N`.
    pub(crate) arms: BTreeMap<String, (String, Vec<String>)>,
    /// Where the clock counts instructions.
    pub(crate) settle: Option<Settle>,
    /// Phases that are made longer, where that is tested.
    pub(crate) faults: Vec<StageFault>,
    /// What asks us to end.
    pub(crate) signals: Signals,
    /// The signal that did.
    pub(crate) interrupted: Rc<Cell<Option<u8>>>,
}

impl RunExecutor {
    /// Reads the report to its end; a signal that asks for the end is passed on to the run, and once more where that takes its
    /// time: the second one ends a workload that ignores the first.
    fn report(&mut self, read: OwnedFd, child: &Child) -> io::Result<Vec<u8>> {
        let mut pipe = File::from(read).take(MAX_LINE as u64 + 1);
        let (mut line, mut buffer) = (Vec::new(), [0; 4096]);
        let pass_on = |number: u8| {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number.into())) {
                // Not waited for yet, so the number is still its own; it may have ended already.
                let _ = kill_process(pid, signal);
            }
        };
        let mut patience: Option<Timespec> = None;
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(pipe.get_ref().as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.event(), PollFlags::IN),
            ];
            match (poll(&mut fds, patience.as_ref()), self.interrupted.get()) {
                (Ok(0), Some(number)) => {
                    pass_on(number);
                    patience = None;
                }
                (Ok(_) | Err(Errno::INTR), _) => {}
                (Err(error), _) => return Err(error.into()),
            }
            let told = !fds[0].revents().is_empty();
            for number in self.signals.pending().into_iter().filter(|number| ENDING.contains(number)) {
                self.interrupted.set(Some(number));
                pass_on(number);
                patience = Some(PATIENCE);
            }
            if told {
                match pipe.read(&mut buffer) {
                    Ok(0) => return Ok(line),
                    Ok(n) => line.extend_from_slice(&buffer[..n]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

impl Executor for RunExecutor {
    fn execute(&mut self, arm: &str) -> Result<Execution, ExecuteError> {
        let (level, arguments) = self.arms.get(arm).cloned().ok_or_else(|| format!("no arm {arm:?}"))?;
        self.run(&level, &arguments).map(|(execution, _)| execution)
    }
}

impl RunExecutor {
    /// Runs these arguments (after those of the level and the report) once; the first bytes of standard output come besides.
    ///
    /// # Errors
    /// No report came back.
    pub(crate) fn run(
        &mut self,
        level: &str,
        arguments: &[String],
    ) -> Result<(Execution, Vec<u8>), ExecuteError> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // The one descriptor that the fresh process inherits; ours is closed right after the start.
        fcntl_setfd(&write, FdFlags::empty())?;
        let number = write.as_raw_fd().to_string();
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["run", "--on", "host", "--level", level, "--report-fd", &number])
            .args(StageFault::options(&self.faults))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.settle.is_some() {
            Settle::rinse()?;
        }
        let conditions = Conditions { page_cache: self.page_cache.prepare(), ..Conditions::default() };
        if let Some(settle) = &mut self.settle {
            settle.wait();
        }
        let request_ns = now_ns();
        let own = self.faults.iter().find(|fault| fault.stage == Subphase::ExecSelf);
        if let Some(ms) = own.and_then(|fault| fault.delay_ms()) {
            std::thread::sleep(Duration::from_millis(ms.into()));
        }
        let mut child = command.spawn()?;
        drop(write);
        let stdout = digest(child.stdout.take());
        let stderr = digest(child.stderr.take());
        let line = self.report(read, &child)?;
        let (stdout_sha256, printed) = join(stdout)?;
        let (stderr_sha256, said) = join(stderr)?;
        let status = child.wait()?;
        if line.is_empty() {
            return Err(failure(status.code(), &said).into());
        }
        let report = RunReport::from_line(&line)?;
        let complaint = complaint(&said);
        Ok((Execution { request_ns, report, stdout_sha256, stderr_sha256, complaint, conditions }, printed))
    }
}

/// The last line, where it is isolab's own.
pub(crate) fn complaint(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said);
    Some(said.lines().last()?.strip_prefix("isolab: ")?.to_owned())
}

fn failure(status: Option<i32>, said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let said = escaped(said.trim().trim_start_matches("isolab: "));
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
            head.extend_from_slice(&buffer[..n.min(HEAD.saturating_sub(head.len()))]);
        }
    }))
}

fn join(thread: Option<JoinHandle<Digested>>) -> Digested {
    let thread = thread.ok_or_else(|| io::Error::other("no output pipe"))?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the output reader panicked")))
}
