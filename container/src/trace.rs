//! The trace of a measured start: where it is kept, and its clock.

use isolab_wire::fault::Fault;
use isolab_wire::trace::{Subphase, Trace, Tracer};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::clock::now_ns;
use crate::sys;

/// A tracer for this process and a child that is a copy of it and goes on stamping for as long as it lives, a VMM.
///
/// # Errors
/// No memory for a page.
pub fn shared() -> Result<Tracer, Errno> {
    Ok(Tracer::new(sys::shared_trace()?, now_ns, make))
}

/// A tracer for this process, a child that has the same memory (a container's), and one with a copy that tells what it has stamped (a
/// bare process): no page has to be mapped for it.
#[must_use]
pub const fn own() -> Tracer {
    static TRACE: Trace = Trace::new();
    Tracer::new(&TRACE, now_ns, make)
}

/// The test's fault that process 1 has to make, one at most: number of the subphase and fault.
#[must_use]
pub fn fault_inside(tracer: &Tracer) -> (u8, u16) {
    let asked = |s: &Subphase| Some((*s as u8, tracer.trace()?.fault_of(*s)?.encode()));
    Subphase::OF_INIT.iter().find_map(asked).unwrap_or_default()
}

/// Status as that of a process that was killed.
const KILLED: i32 = 128 + 9;

/// Makes a test's fault. But for a panic it makes system calls only, so that a child may call it before it executes another
/// program.
#[cold]
fn make(fault: Fault) {
    match fault {
        Fault::Delay(ms) => pause_ms(ms.into()),
        // The stage that fails says so itself.
        Fault::Error => {}
        Fault::Panic => panic!("a test asked for this panic"),
        Fault::Kill => {
            let _ = kill_process(getpid(), Signal::KILL);
            // Process 1 of a namespace is deaf to its own signals.
            sys::exit_now(KILLED);
        }
    }
}

fn pause_ms(ms: u64) {
    const NS: i64 = 1_000_000_000;
    let now = clock_gettime(ClockId::Monotonic);
    let ns = now.tv_nsec + i64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000);
    let until = Timespec { tv_sec: now.tv_sec + ns / NS, tv_nsec: ns % NS };
    while clock_nanosleep_absolute(ClockId::Monotonic, &until) == Err(Errno::INTR) {}
}
