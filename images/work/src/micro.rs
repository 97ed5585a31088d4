//! Small measurements, each of one kind of cost.

use core::hint::black_box;

use isolab_bare::sys::{Errno, clock as time, out8, process};

use crate::measure::{Line, MOST_BATCHES, Operation, list};
use crate::{End, Run};

/// Dependent integer arithmetic (the shifts and xors of Marsaglia's xorshift64).
pub(crate) fn alu(run: &Run) -> End {
    run.measure("alu", 0, 10_000_000, |n| {
        let mut x = 88_172_645_463_325_252_u64;
        for _ in 0..n {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        black_box(x);
        Ok(())
    })
}

/// Reading the clock, by the function that the kernel maps into the program where it has one.
pub(crate) fn clock(run: &Run) -> End {
    let read = isolab_bare::vdso::Clock::find(&run.start);
    run.measure("clock", 0, 100_000, |n| {
        for _ in 0..n {
            black_box(read.monotonic_ns());
        }
        Ok(())
    })
}

/// Making and ending processes and threads: a copy of this process, this program anew, a thread.
pub(crate) fn proc(run: &Run) -> End {
    match run.arg(0).ok_or(Errno::INVAL)?.to_bytes() {
        b"fork" => run.measure("proc fork", 1, 500, |n| children(n, false)),
        b"exec" => run.measure("proc exec", 1, 500, |n| children(n, true)),
        b"thread" => run.measure("proc thread", 1, 500, |n| (0..n).try_for_each(|_| process::thread())),
        _ => Err(Errno::INVAL),
    }
}

fn children(n: u64, exec: bool) -> Result<(), Errno> {
    let argv = [c"true".as_ptr() as usize, 0];
    for _ in 0..n {
        if process::fork()? == 0 {
            if exec {
                // The child would write marks as its parent did: it gets an environment without them.
                process::execve(c"/proc/self/exe", &argv, &[0]);
                process::exit(127);
            }
            process::exit(0);
        }
        match process::wait(true)? {
            Some((_, 0)) => {}
            _ => return Err(Errno::NOENT),
        }
    }
    Ok(())
}

/// How late a sleep of one millisecond ends. Its times are those of the batch as a whole; how late the sleeps of each
/// batch were in sum, and the latest of all, stand beside them.
pub(crate) fn timer(run: &Run) -> End {
    run.measure("timer", 0, 20, Timer { late: [0; MOST_BATCHES], batches: 0, latest: 0 })
}

struct Timer {
    late: [u64; MOST_BATCHES],
    batches: usize,
    latest: u64,
}

impl Operation for Timer {
    fn batch(&mut self, n: u64) -> Result<(), Errno> {
        let mut sum = 0_u64;
        for _ in 0..n {
            let at = time::monotonic_ns() + 1_000_000;
            time::sleep_until_ns(at)?;
            let late = time::monotonic_ns().saturating_sub(at);
            sum = sum.saturating_add(late);
            self.latest = self.latest.max(late);
        }
        if let Some(slot) = self.late.get_mut(self.batches) {
            *slot = sum;
            self.batches += 1;
        }
        Ok(())
    }

    fn restart(&mut self) {
        (self.batches, self.latest) = (0, 0);
    }

    fn tell(&self, line: &mut Line) {
        list(line, "late_ns", self.late.iter().take(self.batches).copied());
        line.push(b",\"latest_ns\":").number(self.latest);
    }

    fn most(&self) -> u64 {
        1
    }
}

/// Random bytes, 32 at a time.
pub(crate) fn rand(run: &Run) -> End {
    let mut bytes = [0; 32];
    run.measure("rand", 0, 1000, |n| (0..n).try_for_each(|_| time::random(&mut bytes).map(drop)))
}

/// Exits to the VMM: writes of 0, which is no mark, to the mark port. Only in a guest with marks.
pub(crate) fn pio(run: &Run) -> End {
    let (port, count) = isolab_wire::mark::PORTS;
    process::ioperm(port, count)?;
    run.measure("pio", 0, 1000, |n| {
        for _ in 0..n {
            out8(port, 0);
        }
        Ok(())
    })
}
