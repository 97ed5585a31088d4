//! Timing: batches whose size does not depend on the level, repeated, with what the timing itself costs beside them.
//!
//! A measuring workload takes `N [REPS]` as its last arguments: operations in a batch, and how often the batch is
//! repeated (once, if not said). `N` may be `auto`: batches grow until one takes as long as a thousand readings of the
//! clock and at least a millisecond. The one line that it prints holds the raw times of each batch, those of as many
//! rounds of an empty loop, and those of reading the clock; nothing is subtracted here.

use core::hint::black_box;

use isolab_bare::sys::{Errno, io, tsc};
use isolab_bare::text::Text;
use isolab_bare::vdso::Clock;

use crate::{End, Run, STDOUT};

/// Most repetitions.
pub(crate) const MOST_BATCHES: usize = 31;
/// Clock readings that are timed together; a batch is to take as long.
const CLOCK_READS: u64 = 1000;
/// Shortest batch of `auto`, in nanoseconds.
const SHORTEST_NS: u64 = 1_000_000;

/// Batches of a size that must all take long enough: the first ones are slower than the rest.
const TRIES: u32 = 3;

/// The line that is printed.
pub(crate) type Line = Text<4096>;

/// What is measured.
pub(crate) trait Operation {
    /// Sets up what the next batch needs. Not timed.
    fn prepare(&mut self, _n: u64) -> Result<(), Errno> {
        Ok(())
    }
    /// The batch: `n` operations. Timed; allocates nothing.
    fn batch(&mut self, n: u64) -> Result<(), Errno>;
    /// After the batch. Not timed.
    fn settle(&mut self) {}
    /// Forgets what the batches so far said: they were there to find the size.
    fn restart(&mut self) {}
    /// Adds fields to the line.
    fn tell(&self, _line: &mut Line) {}
    /// Most operations of a batch that `auto` chooses.
    fn most(&self) -> u64 {
        u64::MAX
    }
}

impl<F: FnMut(u64) -> Result<(), Errno>> Operation for F {
    fn batch(&mut self, n: u64) -> Result<(), Errno> {
        self(n)
    }
}

/// The times of one batch.
#[derive(Clone, Copy, Default)]
struct Times {
    ns: u64,
    tsc: u64,
}

/// A stopwatch on the clock that the kernel maps into the program.
struct Watch(Clock);

impl Watch {
    fn time(&self, work: impl FnOnce() -> Result<(), Errno>) -> Result<Times, Errno> {
        let (ns, cycles) = (self.0.monotonic_ns(), tsc());
        work()?;
        let (cycles, ns) = (tsc().wrapping_sub(cycles), self.0.monotonic_ns().wrapping_sub(ns));
        Ok(Times { ns, tsc: cycles })
    }

    /// What [`CLOCK_READS`] readings of the clock take.
    fn reading(&self) -> Result<Times, Errno> {
        self.time(|| {
            for _ in 0..CLOCK_READS {
                black_box(self.0.monotonic_ns());
            }
            Ok(())
        })
    }

    /// What a loop around nothing takes.
    fn empty_loop(&self, n: u64) -> Result<Times, Errno> {
        self.time(|| {
            for i in 0..n {
                black_box(i);
            }
            Ok(())
        })
    }
}

fn middle(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Run {
    /// Measures batches of the size that argument `at` names (`default`, if it is not there) and prints the line.
    pub(crate) fn measure(&self, name: &str, at: usize, default: u64, mut work: impl Operation) -> End {
        self.measure_any(name, at, default, &mut work)
    }

    fn measure_any(&self, name: &str, at: usize, default: u64, work: &mut dyn Operation) -> End {
        let reps =
            usize::try_from(self.number(at + 1, 1)?).ok().filter(|reps| (1..=MOST_BATCHES).contains(reps));
        let reps = reps.ok_or(Errno::INVAL)?;
        let watch = Watch(Clock::find(&self.start));
        let n =
            if self.arg(at) == Some(c"auto") { calibrate(&watch, work)? } else { self.number(at, default)? };
        if n == 0 {
            return Err(Errno::INVAL);
        }
        self.ready();
        let mut of_work = [Times::default(); MOST_BATCHES];
        for times in of_work.iter_mut().take(reps) {
            work.prepare(n)?;
            *times = watch.time(|| work.batch(n))?;
            work.settle();
        }
        let (mut of_clock, mut of_loop) = ([0; MOST_BATCHES], [0; MOST_BATCHES]);
        for (clock, empty) in of_clock.iter_mut().zip(&mut of_loop).take(reps) {
            *clock = watch.reading()?.ns;
            *empty = watch.empty_loop(n)?.ns;
        }
        let of_work = of_work.get(..reps).unwrap_or_default();
        let mut line = Line::new();
        line.push(b"{\"name\":\"").push(name.as_bytes()).push(b"\",\"n\":").number(n);
        list(&mut line, "ns", of_work.iter().map(|t| t.ns));
        list(&mut line, "tsc", of_work.iter().map(|t| t.tsc));
        let cost = |values: &mut [u64; MOST_BATCHES]| middle(values.get_mut(..reps).unwrap_or_default());
        line.push(b",\"loop_ns\":").number(cost(&mut of_loop));
        line.push(b",\"clock_ns\":").number(cost(&mut of_clock));
        line.push(b",\"clock_reads\":").number(CLOCK_READS);
        let mapped = watch.0.is_mapped();
        line.push(b",\"clock\":\"").push(if mapped { b"vdso" } else { b"syscall" }).push(b"\"");
        work.tell(&mut line);
        line.push(b"}\n");
        io::write_all(STDOUT, line.bytes())?;
        Ok(0)
    }
}

/// `,"NAME":[1,2]`
pub(crate) fn list(line: &mut Line, name: &str, values: impl Iterator<Item = u64>) {
    line.push(b",\"").push(name.as_bytes()).push(b"\":[");
    for (i, value) in values.enumerate() {
        line.push(if i > 0 { b"," } else { b"" }).number(value);
    }
    line.push(b"]");
}

/// Operations in a batch that takes long enough here.
fn calibrate(watch: &Watch, work: &mut dyn Operation) -> Result<u64, Errno> {
    let wanted = watch.reading()?.ns.max(SHORTEST_NS);
    let mut n = 1;
    loop {
        let mut took = u64::MAX;
        for _ in 0..TRIES {
            work.prepare(n)?;
            took = took.min(watch.time(|| work.batch(n))?.ns);
            work.settle();
            if took < wanted {
                break;
            }
        }
        if took >= wanted || n >= work.most() {
            work.restart();
            return Ok(n);
        }
        // A tenth more than what this rate would need, and never more than ten times this batch.
        let factor = (wanted.saturating_mul(11) / took.saturating_mul(10).max(1)).clamp(2, 10);
        n = n.saturating_mul(factor).min(work.most());
    }
}
