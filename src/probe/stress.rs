//! What isolab sees of the host while a probe of a level works without an end, and what it makes of that.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use isolab_bench::probe::{ItemRecord, Outcome};
use isolab_images::probe::FLOOD_BYTES;

use super::judge::{plain, reason};
use super::run::{Begin, Ran};
use crate::config::JobConfig;

/// Probes that are watched.
const WATCHED: [&str; 4] = ["D05", "D06", "D07", "D08"];
/// How long a sleep of the neighbour lasts.
const NAP: Duration = Duration::from_millis(1);
/// Its sleeps before the level starts.
const NAPS: usize = 250;
/// Processor time that a limit lets pass once: a period at the beginning, one at the end.
const ONCE: Duration = Duration::from_millis(200);
/// Memory of the kernel that grows on a busy machine in these seconds, in KiB.
const KERNEL_KIB: u64 = 64 << 10;
/// Memory of isolab's own that a flood may take, in KiB: a part of the flood.
const OWN_KIB: u64 = 4 << 10;

/// The host while a level works.
#[derive(Debug)]
pub(super) struct Watch {
    before: Host,
    neighbour: Neighbour,
}

/// What the host's files say at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Host {
    /// Memory of its kernel's own objects.
    kernel_kib: Option<u64>,
    /// Processor time of all that is not idle.
    busy: Option<Duration>,
    /// Processor time of isolab's children that have ended, and of theirs.
    children: Option<Duration>,
}

impl Host {
    fn now() -> Self {
        Self {
            kernel_kib: field("/proc/meminfo", "Slab:"),
            busy: fs::read_to_string("/proc/stat").ok().as_deref().and_then(busy),
            children: fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(children),
        }
    }
}

/// The first number behind a key.
fn field(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Of `/proc/stat`: user, nice and system time, interrupts, and what guests had of them; in ticks of 10 ms.
fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _wait, hard, soft, ..] = ticks[..] else { return None };
    let ticks = [user, nice, system, hard, soft].into_iter().fold(0, u64::saturating_add);
    Some(Duration::from_millis(ticks.saturating_mul(10)))
}

/// Of `/proc/self/stat`: fields 16 and 17, in ticks of 10 ms. The name before them is in parentheses.
fn children(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(13);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((next()?.saturating_add(next()?)).saturating_mul(10)))
}

impl Watch {
    /// Of a run of one of these probes alone.
    pub(super) fn of(probes: &[String]) -> Option<Self> {
        let [probe] = probes else { return None };
        if !WATCHED.contains(&probe.as_str()) {
            return None;
        }
        let neighbour = Neighbour::new();
        Some(Self { before: Host::now(), neighbour })
    }

    /// From the moment on when the program has begun a neighbour sleeps beside it.
    pub(super) fn begin(&self) -> Option<Begin> {
        Some(self.neighbour.begin())
    }

    /// The run is over.
    pub(super) fn end(self, ran: &Ran) -> Look {
        let after = Host::now();
        let (own_kib, late) = self.neighbour.end();
        let grown = |after: Option<u64>, before: Option<u64>| Some(after?.saturating_sub(before?));
        let spent = |after: Option<Duration>, before: Option<Duration>| Some(after?.saturating_sub(before?));
        Look {
            time: ran.time,
            // Process 1 of a container waits for all that end in there; a monitor is one process.
            used: spent(after.children, self.before.children),
            host_used: spent(after.busy, self.before.busy),
            kernel_kib: grown(after.kernel_kib, self.before.kernel_kib),
            own_kib: grown(field("/proc/self/status", "VmHWM:"), own_kib),
            output_bytes: ran.output_bytes,
            late,
            processors: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// isolab's own memory at the beginning, in KiB, and how late a sleeper woke from then on.
type Meanwhile = (Option<u64>, Vec<Duration>);

/// A thread that sleeps again and again, and how late it woke.
#[derive(Debug)]
struct Neighbour {
    before: Vec<Duration>,
    over: Arc<AtomicBool>,
    slept: (Sender<Meanwhile>, Receiver<Meanwhile>),
}

impl Neighbour {
    fn new() -> Self {
        let mut count = 0;
        let before = sleep(|| {
            count += 1;
            count <= NAPS
        });
        Self { before, over: Arc::default(), slept: channel() }
    }

    fn begin(&self) -> Begin {
        let (over, slept) = (Arc::clone(&self.over), self.slept.0.clone());
        Box::new(move || {
            // The most memory so far begins anew; where the kernel does not allow it, what the start took counts as well.
            let _ = fs::write("/proc/self/clear_refs", "5");
            let own_kib = field("/proc/self/status", "VmRSS:");
            thread::spawn(move || {
                // Nobody waits for it where the run broke.
                let _ = slept.send((own_kib, sleep(|| !over.load(Ordering::Relaxed))));
            });
        })
    }

    /// isolab's memory when the program had begun, and how late this woke before and meanwhile.
    fn end(self) -> (Option<u64>, [Late; 2]) {
        self.over.store(true, Ordering::Relaxed);
        let (own, slept) = self.slept;
        // So that there is an end where it never began.
        drop(own);
        let (own_kib, meanwhile) = slept.recv().unwrap_or_default();
        (own_kib, [Late::of(self.before), Late::of(meanwhile)])
    }
}

fn sleep(mut again: impl FnMut() -> bool) -> Vec<Duration> {
    let mut late = Vec::new();
    while again() {
        let start = Instant::now();
        thread::sleep(NAP);
        late.push(start.elapsed().saturating_sub(NAP));
    }
    late
}

/// How late a sleeper wakes.
#[derive(Clone, Copy, Debug, Default)]
struct Late {
    median: Duration,
    p99: Duration,
}

impl Late {
    fn of(mut late: Vec<Duration>) -> Self {
        late.sort_unstable();
        let at = |percent: usize| late.get(late.len() * percent / 100).copied().unwrap_or_default();
        Self { median: at(50), p99: at(99) }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    time: Duration,
    /// Processor time of the instance.
    used: Option<Duration>,
    /// Processor time of the whole host.
    host_used: Option<Duration>,
    kernel_kib: Option<u64>,
    /// Memory of isolab's own.
    own_kib: Option<u64>,
    output_bytes: u64,
    late: [Late; 2],
    processors: usize,
}

impl Look {
    /// What it says about a probe.
    pub(super) fn items(&self, probe: &str, config: &JobConfig) -> Vec<ItemRecord> {
        match probe {
            "D05" => vec![self.processor_time(config.cpus), self.neighbour()],
            "D06" => vec![
                self.processor_time(config.cpus),
                self.kernel_memory(config.memory_bytes >> 10),
                self.besides(),
                self.neighbour(),
            ],
            "D07" => vec![self.own_memory()],
            "D08" => vec![self.processor_time(config.cpus), self.neighbour()],
            _ => vec![],
        }
    }

    /// Within what the limit allows in that time, or beyond.
    fn processor_time(&self, cpus: u32) -> ItemRecord {
        let Some(used) = self.used else { return told("processor time", "it is not known here") };
        let said = format!("{} ms in {} ms, of {cpus} CPU", used.as_millis(), self.time.as_millis());
        if usize::try_from(cpus).is_ok_and(|cpus| cpus >= self.processors) {
            return told("processor time", &format!("{said}; the machine has no more"));
        }
        // A tenth for clocks that do not tick together.
        let allowed = self.time.mul_f64(f64::from(cpus) * 1.1) + ONCE;
        limited("processor time", used <= allowed, said)
    }

    fn kernel_memory(&self, job_kib: u64) -> ItemRecord {
        let Some(grown) = self.kernel_kib else { return told("kernel memory", "it is not known here") };
        let said = format!("it grew by {} MiB, the job has {} MiB", grown >> 10, job_kib >> 10);
        limited("kernel memory", grown <= job_kib + KERNEL_KIB, said)
    }

    fn own_memory(&self) -> ItemRecord {
        let Some(grown) = self.own_kib else { return told("isolab's memory", "it is not known here") };
        let said = format!("it grew by {grown} KiB, while {} MiB came", self.output_bytes >> 20);
        // Less of it would show nothing.
        if grown <= OWN_KIB && self.output_bytes < FLOOD_BYTES / 2 {
            return plain("isolab's memory", Outcome::Unknown, Some(said), None);
        }
        limited("isolab's memory", grown <= OWN_KIB, said)
    }

    /// What the host's processors did beside the instance: its own work for it, and that of everybody else.
    fn besides(&self) -> ItemRecord {
        let said = match (self.host_used, self.used) {
            (Some(all), Some(used)) => {
                let besides = all.saturating_sub(used).as_millis();
                format!("{besides} ms of processor time on the host, that of everybody else among them")
            }
            _ => "it is not known here".to_owned(),
        };
        told("outside of the limit", &said)
    }

    fn neighbour(&self) -> ItemRecord {
        let [before, meanwhile] = self.late.map(|late| {
            format!("{} us (median) and {} us (p99)", late.median.as_micros(), late.p99.as_micros())
        });
        let said = format!("a sleep of 1 ms ended late by {before} before, and by {meanwhile} meanwhile");
        told("a neighbour", &said)
    }
}

/// Something that is reported and not judged.
fn told(item: &str, said: &str) -> ItemRecord {
    plain(item, Outcome::NotApplicable, Some(said.to_owned()), None)
}

fn limited(item: &str, within: bool, said: String) -> ItemRecord {
    let outcome = if within { Outcome::Blocked } else { Outcome::Reached };
    let mut record = plain(item, outcome, Some(said), Some("read by isolab".to_owned()));
    record.reason = within.then(|| reason("limit", None, None));
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look() -> Look {
        Look {
            time: Duration::from_secs(3),
            used: Some(Duration::from_secs(3)),
            host_used: Some(Duration::from_secs(5)),
            kernel_kib: Some(10 << 10),
            own_kib: Some(300),
            output_bytes: FLOOD_BYTES,
            processors: 2,
            ..Look::default()
        }
    }

    #[test]
    fn processor_time_has_its_limit_where_the_machine_has_more() {
        assert_eq!(look().processor_time(1).outcome, Outcome::Blocked);
        let more = Look { used: Some(Duration::from_secs(4)), ..look() };
        assert_eq!(more.processor_time(1).outcome, Outcome::Reached);
        assert_eq!(more.processor_time(2).outcome, Outcome::NotApplicable);
        assert_eq!(Look { used: None, ..look() }.processor_time(1).outcome, Outcome::NotApplicable);
    }

    #[test]
    fn memory_of_the_kernel_and_of_isolab_have_theirs() {
        assert_eq!(look().kernel_memory(128 << 10).outcome, Outcome::Blocked);
        let more = Look { kernel_kib: Some(200 << 10), own_kib: Some(OWN_KIB + 1), ..look() };
        assert_eq!(more.kernel_memory(128 << 10).outcome, Outcome::Reached);
        assert_eq!(look().own_memory().outcome, Outcome::Blocked);
        assert_eq!(more.own_memory().outcome, Outcome::Reached);
        // A flood that did not arrive shows nothing.
        assert_eq!(Look { output_bytes: 1 << 20, ..look() }.own_memory().outcome, Outcome::Unknown);
    }

    #[test]
    fn a_neighbour_that_never_slept_is_no_reason_to_wait() {
        let neighbour = Neighbour::new();
        assert_eq!(neighbour.before.len(), NAPS);
        let (own_kib, [before, meanwhile]) = neighbour.end();
        assert_eq!(own_kib, None);
        assert!(before.p99 >= before.median && meanwhile.p99.is_zero());
    }

    #[test]
    fn busy_time_is_all_but_idle_and_waiting() {
        assert_eq!(busy("cpu  1 2 3 400 500 6 7 8 0 0\ncpu0 1"), Some(Duration::from_millis(190)));
        assert_eq!(busy("cpu  1 2"), None);
        let stat = "77 (a ) b) S 1 77 77 0 -1 4 10 20 0 0 5 6 30 12 20 0 9 0 77";
        assert_eq!(children(stat), Some(Duration::from_millis(420)));
        assert_eq!(children("77 (x) S 1"), None);
    }
}
