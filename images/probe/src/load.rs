//! P39: the load of the host as it looks from here; and that load, which the planted process makes.

use std::fmt::Write;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::files::beginning;
use crate::out::Out;
use crate::protocol::{LOAD_OFF, LOAD_ON, LOAD_SHAPE, LOAD_THREADS, Spec};

/// How often each step of the load is looked at.
const LOOKS: u32 = 4;
/// Twice its shape.
const SAMPLES: u32 = 2 * LOAD_SHAPE.len() as u32 * LOOKS;

/// How long a step of the load is.
fn step(spec: &Spec) -> Duration {
    Duration::from_millis(spec.planted.load_step_ms.into())
}

/// P39: tasks that run, as two files tell it, over the time of two shapes; and the time that was stolen meanwhile.
pub(crate) fn visible(spec: &Spec, out: &Out<'_>) {
    let stat = |key: &str| {
        let text = beginning("/proc/stat", 64 << 10).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
    };
    let stolen = || stat("cpu ")?.split_whitespace().nth(7)?.parse::<u64>().ok();
    let running = || stat("procs_running ")?.parse::<u64>().ok();
    let average = || {
        let text = beginning("/proc/loadavg", 256).ok()?;
        text.split(' ').nth(3)?.split_once('/')?.0.parse::<u64>().ok()
    };
    let (start, before) = (Instant::now(), stolen());
    let mut series = [String::new(), String::new()];
    for n in 0..SAMPLES {
        let next = start + step(spec) / LOOKS * n;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let ms = start.elapsed().as_millis();
        for (text, value) in series.iter_mut().zip([running(), average()]) {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(text, "{ms}:{value} ");
            }
        }
    }
    for (item, text) in ["running in /proc/stat", "running in /proc/loadavg"].iter().zip(&series) {
        out.told(item, text.trim_end());
    }
    match (before, stolen()) {
        (Some(before), Some(after)) => {
            out.told("stolen time", &format!("{} ticks", after.saturating_sub(before)));
        }
        _ => out.absent("stolen time", ""),
    }
}

/// What the workers and who leads them have in common.
#[derive(Debug, Default)]
struct State {
    on: AtomicBool,
    over: AtomicBool,
}

/// The load, until this is dropped.
#[derive(Debug)]
struct Load {
    state: Arc<State>,
    leader: Option<JoinHandle<()>>,
}

impl Load {
    fn start(step: Duration) -> io::Result<Self> {
        let state = Arc::new(State::default());
        let small = || thread::Builder::new().stack_size(64 << 10);
        let worker = |_| {
            let state = Arc::clone(&state);
            small().spawn(move || work(&state))
        };
        let workers: Vec<JoinHandle<()>> = (0..LOAD_THREADS).map(worker).collect::<io::Result<_>>()?;
        let shared = Arc::clone(&state);
        let leader = small().spawn(move || lead(&shared, workers, step))?;
        Ok(Self { state, leader: Some(leader) })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        if let Some(leader) = self.leader.take() {
            leader.thread().unpark();
            let _ = leader.join();
        }
    }
}

fn work(state: &State) {
    while !state.over.load(Ordering::Relaxed) {
        if state.on.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        } else {
            thread::park();
        }
    }
}

fn lead(state: &State, workers: Vec<JoinHandle<()>>, length: Duration) {
    let start = Instant::now();
    for step in 0_u32.. {
        state.on.store(LOAD_SHAPE[step as usize % LOAD_SHAPE.len()], Ordering::Relaxed);
        workers.iter().for_each(|worker| worker.thread().unpark());
        let next = start + length * (step + 1);
        while Instant::now() < next && !state.over.load(Ordering::Relaxed) {
            thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
        if state.over.load(Ordering::Relaxed) {
            break;
        }
    }
    state.on.store(false, Ordering::Relaxed);
    for worker in workers {
        worker.thread().unpark();
        let _ = worker.join();
    }
}

/// Makes load or none, as standard input says, until that ends.
pub(crate) fn obey(spec: &Spec) -> io::Result<()> {
    let mut load = None;
    for word in io::stdin().lock().bytes() {
        match word? {
            LOAD_ON if load.is_none() => load = Some(Load::start(step(spec))?),
            LOAD_OFF => drop(load.take()),
            _ => {}
        }
    }
    Ok(())
}
