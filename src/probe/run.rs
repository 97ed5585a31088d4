//! Runs the probe program at one level.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use isolab_bench::port::{End, HostStdio};
use isolab_images::job::Job;
use isolab_images::probe::{MAX_LINE, Spec};
use isolab_wire::mark::Failure;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::levels::{self, Setup};
use crate::signals::Signals;
use crate::supervise::{Cause, Deadlines, START, status, supervise};

/// Most bytes that the program may say.
const MOST: u64 = 8 << 20;
/// Most bytes of its complaints that are told.
const COMPLAINT: u64 = 4096;
/// Time of a level, without what the user asks for.
const LIMIT: Duration = Duration::from_secs(180);

/// What the program said at a level, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) said: Vec<u8>,
    pub(crate) status: u8,
    /// The kernel ended the level at its limit of memory.
    pub(crate) out_of_memory: bool,
    /// A signal asked us to end.
    pub(crate) interrupted: Option<u8>,
    /// From before its start to its end.
    pub(crate) time: Duration,
    /// Bytes that it wrote, those that were thrown away too.
    pub(crate) output_bytes: u64,
}

/// The beginning of what came from an instance, and how much it was altogether.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) bytes: Vec<u8>,
    pub(crate) all: u64,
}

/// What is to be done when the program has begun.
pub(super) type Begin = Box<dyn FnOnce() + Send>;

/// Runs it.
///
/// # Errors
/// The level can't be started, or breaks.
pub(super) fn at_level(
    name: &str,
    setup: Setup,
    job: &Job,
    spec: &Spec,
    begin: Option<Begin>,
    signals: &mut Signals,
) -> anyhow::Result<Ran> {
    let level = levels::level(name, setup)?;
    if let Err(why) = level.check() {
        bail!("{name} can't run here: {}; {}", why.reason, why.remedy);
    }
    let mut text = serde_json::to_vec(spec)?;
    text.push(b'\n');
    // It goes into the pipe before anybody reads.
    if text.len() > MAX_LINE {
        bail!("the list of probes is too long: {} bytes", text.len());
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context("make a pipe");
    let (stdin, tell) = pipe()?;
    let mut tell = File::from(tell);
    tell.write_all(&text).context("tell the probe program what to look for")?;
    drop(tell);
    let (said, stdout) = pipe()?;
    let (complained, stderr) = pipe()?;
    let start = Instant::now();
    let running = level
        .start(job, HostStdio { stdin: Some(stdin), stdout, stderr })
        .map_err(anyhow::Error::from_boxed)
        .with_context(|| format!("start level {name}"))?;
    // Not before the start: the launcher is single-threaded while it makes the instance.
    let (said, complained) = (reader(begun(said, begin), MOST), reader(File::from(complained), COMPLAINT));
    let deadlines = Deadlines { start: START, whole: job.timeout.or(Some(LIMIT)) };
    let (outcome, cause) = supervise(running, signals, deadlines, None)?;
    let (said, complained) = (said.join(), complained.join());
    let said = said.map_err(|_| anyhow::anyhow!("the reader of level {name} panicked"))??;
    let complained = complained.map_err(|_| anyhow::anyhow!("the reader of level {name} panicked"))??;
    let time = start.elapsed();
    if let End::Failed(Failure { step, errno }) = outcome.end {
        let error = std::io::Error::from_raw_os_error(i32::from(errno));
        bail!(
            "level {name}: process 1 failed at step {step:?}: {error}; `isolab doctor` says what this host lacks"
        );
    }
    let interrupted = match cause {
        Cause::Signal(signal) => Some(signal),
        Cause::Itself | Cause::Deadline | Cause::Start | Cause::Output => None,
    };
    let out_of_memory = outcome.end == End::OutOfMemory;
    let status = status(&outcome, cause);
    if status != 0 && !out_of_memory && interrupted.is_none() {
        let complained = String::from_utf8_lossy(&complained.bytes);
        eprintln!(
            "isolab: level {name}: the probe program ended with status {status}{}",
            crate::escaped(
                complained
                    .trim_end()
                    .lines()
                    .last()
                    .map_or("", |line| line)
                    .trim_start_matches("isolab-probe")
            )
        );
    }
    Ok(Ran {
        output_bytes: said.all.saturating_add(complained.all),
        said: said.bytes,
        status,
        out_of_memory,
        interrupted,
        time,
    })
}

/// What the program says first is that it has begun.
#[derive(Debug)]
struct Begun<F> {
    from: File,
    begin: Option<F>,
}

fn begun(from: OwnedFd, begin: Option<Begin>) -> Begun<Begin> {
    Begun { from: File::from(from), begin }
}

impl<F: FnOnce()> Read for Begun<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buffer)?;
        if let Some(begin) = self.begin.take_if(|_| n > 0) {
            begin();
        }
        Ok(n)
    }
}

/// Reads to the end, keeps so much, and throws away the rest: the writer must not wait.
pub(crate) fn reader(mut from: impl Read + Send + 'static, most: u64) -> JoinHandle<std::io::Result<Kept>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        Read::by_ref(&mut from).take(most).read_to_end(&mut bytes)?;
        let more = std::io::copy(&mut from, &mut std::io::sink())?;
        let all = more.saturating_add(bytes.len() as u64);
        Ok(Kept { bytes, all })
    })
}
