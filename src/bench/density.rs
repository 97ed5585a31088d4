//! The ramp of idle instances: one launcher starts them one after the other, holds them, and ends them all.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use isolab_bench::density::{
    Density, IDLE_SECONDS, Idle, LOOKS, MOST_ON_HOST, MOST_VMS_IN_LAB, Point, SINGLES, StopRule,
    SystemMemory, steps,
};
use isolab_bench::port::{End, HostStdio, Level, Running};
use isolab_bench::run_report::Detail;
use isolab_bench::suite::PROGRAM;
use isolab_images::job::Job;
use isolab_wire::mark::{Code, Step};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::clock::now_ns;
use crate::signals::{ENDING, Signals};
use crate::{hint, stdio};

/// The workload: ready at once, then idle.
pub(super) const IDLE: [&str; 2] = [PROGRAM, "pause"];
/// How long one start may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two readings of the machine's memory.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// How many instances of a level are started at most.
pub(super) fn most(asked: Option<u32>, level: &str) -> u32 {
    let default = if hint::in_lab() && level == "vm" { MOST_VMS_IN_LAB } else { MOST_ON_HOST };
    asked.unwrap_or(default)
}

/// What a ramp works with.
pub(super) struct Ramp<'a> {
    /// The level.
    pub(super) level: &'a dyn Level,
    /// The idle job.
    pub(super) job: &'a Job,
    /// What asks us to end.
    pub(super) signals: &'a mut Signals,
    /// The signal that did.
    pub(super) interrupted: Rc<Cell<Option<u8>>>,
}

/// Why a ramp does not go on.
enum Halt {
    Rule(StopRule),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The instances that run; dropped, they are killed and freed.
type Herd = Vec<Box<dyn Running>>;

impl Ramp<'_> {
    /// The curve up to so many instances, and what is known of them besides. All of them are ended and freed afterwards, however it went.
    ///
    /// # Errors
    /// Not even one instance starts, or something of them stays.
    pub(super) fn run(mut self, most: u32) -> anyhow::Result<(Density, Detail)> {
        let (mut herd, mut points) = (Herd::new(), Vec::new());
        let mut halt = self.climb(most, &mut herd, &mut points);
        let idle = if halt.is_ok() { self.idle(&herd) } else { Ok(None) };
        let idle = idle.unwrap_or_else(|stopped| {
            halt = Err(stopped);
            None
        });
        let ended = end_all(herd);
        let (rule, reason) = match halt {
            Ok(()) => (StopRule::MaxInstances, None),
            Err(Halt::Rule(rule)) => (rule, None),
            Err(Halt::Failed(error)) if points.is_empty() => {
                return Err(error.context(format!("start an idle instance at level {}", self.level.name())));
            }
            Err(Halt::Failed(error)) => (StopRule::StartFailed, Some(format!("{error:#}"))),
        };
        Ok((Density::new(self.level.name(), points, rule, reason).with_idle(idle), ended?))
    }

    fn climb(&mut self, most: u32, herd: &mut Herd, points: &mut Vec<Point>) -> Result<(), Halt> {
        for step in steps(most) {
            let mut start_ns = Vec::new();
            // The first one of all fills caches.
            let more = if step == 1 { 1 + SINGLES } else { step as usize - herd.len() };
            let mut halt = Ok(());
            for i in 0..more {
                if step == 1 {
                    end_all(std::mem::take(herd))?;
                }
                halt = self.start(herd, &mut start_ns);
                if step == 1 && i == 0 {
                    start_ns.clear();
                }
                if halt.is_err() {
                    break;
                }
            }
            let full = matches!(halt, Err(Halt::Rule(StopRule::LittleMemory)));
            if (halt.is_ok() || full) && !start_ns.is_empty() {
                points.push(self.read(herd, start_ns)?);
            }
            halt?;
            if let [single, .., last] = &points[..]
                && last.is_slow(single)
            {
                return Err(Halt::Rule(StopRule::SlowStarts));
            }
        }
        Ok(())
    }

    /// Starts one more and waits until it is ready.
    fn start(&mut self, herd: &mut Herd, start_ns: &mut Vec<u64>) -> Result<(), Halt> {
        let null = stdio::null()?;
        let ends = HostStdio { stdin: None, stdout: null.try_clone()?, stderr: null };
        let deadline = Instant::now() + PATIENCE;
        let request = now_ns();
        let mut running = self.level.start(self.job, ends).map_err(anyhow::Error::from_boxed)?;
        let ready = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(anyhow!("it is not ready after {} s", PATIENCE.as_secs()).into());
            }
            self.wait(running.as_ref(), left)?;
            if running.advance().map_err(anyhow::Error::from_boxed)? {
                return Err(Halt::Failed(why_ended(running)));
            }
            if let Some(at) = running.at(Code::Ready) {
                break at;
            }
        };
        herd.push(running);
        start_ns.push(ready.saturating_sub(request));
        if SystemMemory::now(Path::new("/")).context("read the machine's memory")?.is_little() {
            return Err(Halt::Rule(StopRule::LittleMemory));
        }
        Ok(())
    }

    /// Waits for something of the instance.
    fn wait(&mut self, running: &dyn Running, time: Duration) -> Result<(), Halt> {
        let mut fds: Vec<PollFd<'_>> =
            running.events().into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        fds.push(PollFd::from_borrowed_fd(self.signals.event(), PollFlags::IN));
        poll_for(&mut fds, time)?;
        self.check_signals()
    }

    fn check_signals(&mut self) -> Result<(), Halt> {
        match self.signals.pending().into_iter().find(|signal| ENDING.contains(signal)) {
            Some(signal) => {
                self.interrupted.set(Some(signal));
                Err(Halt::Rule(StopRule::Interrupted))
            }
            None => Ok(()),
        }
    }

    /// What these instances cost while they do nothing; nothing where that is not known.
    fn idle(&mut self, herd: &Herd) -> Result<Option<Idle>, Halt> {
        let cpu = || herd.iter().map(|running| running.cpu_ns()).sum::<Option<u64>>();
        let (from, before) = (now_ns(), cpu());
        let end = Instant::now() + Duration::from_secs(IDLE_SECONDS);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let mut fds = [PollFd::from_borrowed_fd(self.signals.event(), PollFlags::IN)];
            poll_for(&mut fds, left)?;
            self.check_signals()?;
        }
        let (window_ns, after) = (now_ns().saturating_sub(from), cpu());
        let instances = u32::try_from(herd.len())?;
        let took = before.zip(after).and_then(|(before, after)| after.checked_sub(before));
        Ok(took.map(|cpu_ns| Idle { instances, window_ns, cpu_ns }))
    }

    /// The reading with these instances.
    fn read(&mut self, herd: &mut Herd, start_ns: Vec<u64>) -> Result<Point, Halt> {
        let mut system = Vec::new();
        let mut available = 0;
        for _ in 0..LOOKS {
            let mut fds = [PollFd::from_borrowed_fd(self.signals.event(), PollFlags::IN)];
            poll_for(&mut fds, BETWEEN_LOOKS)?;
            self.check_signals()?;
            let memory = SystemMemory::now(Path::new("/")).context("read the machine's memory")?;
            system.push(memory.unreclaimable);
            available = memory.available;
        }
        for (i, running) in herd.iter_mut().enumerate() {
            if running.advance().map_err(anyhow::Error::from_boxed)? {
                return Err(Halt::Failed(why_ended(herd.swap_remove(i))));
            }
        }
        let mut charge = Some(0_u64);
        for running in herd.iter() {
            let read = running.charge().map_err(anyhow::Error::from_boxed)?;
            charge = charge.zip(read).map(|(sum, one)| sum.saturating_add(one.current_bytes));
        }
        system.sort_unstable();
        Ok(Point {
            instances: u32::try_from(herd.len())?,
            start_ns,
            charge_bytes: charge,
            system_bytes: system[LOOKS / 2],
            available_bytes: available,
        })
    }
}

fn poll_for(fds: &mut [PollFd<'_>], time: Duration) -> anyhow::Result<()> {
    let time = Timespec::try_from(time).context("convert a time")?;
    match poll(fds, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("wait for the instance"),
    }
}

/// Why an instance is not there any more that should be idle.
fn why_ended(running: Box<dyn Running>) -> anyhow::Error {
    let outcome = match running.wait() {
        Ok(outcome) => outcome,
        Err(error) => return anyhow::Error::from_boxed(error),
    };
    match outcome.end {
        End::Failed(failure) if (failure.step, failure.errno) == (Step::Exec, 2) => {
            anyhow!("the image holds no {PROGRAM}; the image demo does")
        }
        End::Failed(failure) => {
            let error = std::io::Error::from_raw_os_error(i32::from(failure.errno));
            anyhow!("it failed at step {:?}: {error}", failure.step)
        }
        End::OutOfMemory => anyhow!("it was killed for memory; raise --memory"),
        End::Killed => anyhow!("it was killed"),
        End::Workload(exit) => anyhow!("it ended with status {}", exit.status()),
    }
}

/// Ends all, the last one first; what is known of the first that was started.
///
/// # Errors
/// One that could not be freed; the others are ended all the same.
fn end_all(mut herd: Herd) -> anyhow::Result<Detail> {
    for running in &mut herd {
        running.kill();
    }
    let mut result = Ok(Detail::default());
    while let Some(running) = herd.pop() {
        // A process without a cgroup of its own takes every child of ours with it, so that there is nothing to wait for in
        // the others: then dropping is the end.
        if running.charge().is_ok_and(|charge| charge.is_some()) {
            let ended = running.wait().map_err(anyhow::Error::from_boxed).context("end an idle instance");
            let detail = ended.map(|outcome| outcome.detail);
            result = result.and(detail);
        }
    }
    result
}
