//! Work without an end, with `--stress` only and never at level process: of processors, of the kernel, of who takes the output, and of
//! the monitor. What it costs out there, isolab sees; here it is only counted.

use std::fs;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::out::Out;
use crate::protocol::{FLOOD_BYTES, Found, Spec};
use crate::sys::{self, Ended};

/// Time of each kind of work.
const TIME: Duration = Duration::from_secs(1);
/// More than any machine has.
const MOST_PROCESSES: usize = 256;

/// A child does something again and again until the time is over, and the count is told.
fn repeat(out: &Out<'_>, item: &str, what: &str, mut each: impl FnMut() -> bool) {
    let (ended, count) = sys::in_child_counting(TIME * 5, |count| {
        let end = Instant::now() + TIME;
        let mut done = 0;
        while Instant::now() < end {
            if !each() {
                return -1;
            }
            done += 1;
            count(done);
        }
        0
    });
    match ended {
        Ended::Value(0) => out.told(item, &format!("{count} {what} in {} ms", TIME.as_millis())),
        // What refuses it refuses the first as well.
        Ended::Value(_) if count == 0 => out.hidden(item, &format!("no {what}")),
        ended => out.say(item, Found::Unknown, &format!("{count} {what}, then {ended:?}")),
    }
}

/// D05: twice as many processes as there are processors, and all of them busy.
pub(crate) fn processors(_: &Spec, out: &Out<'_>) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let end = Instant::now() + TIME * 3;
    let mut children = Vec::new();
    for _ in 0..(2 * processors).min(MOST_PROCESSES) {
        match sys::fork() {
            Ok(0) => {
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
                sys::exit(0);
            }
            Ok(child) => children.push(child),
            Err(_) => break,
        }
    }
    for child in &children {
        let _ = sys::wait(*child, TIME * 10);
    }
    // `struct rusage`: user and system time, each in seconds and microseconds.
    const OF_CHILDREN: usize = usize::MAX;
    let mut usage = [0_u64; 18];
    let used = sys::call(98, &[OF_CHILDREN, sys::address_mut(&mut usage)]);
    let [user, more_user, system, more_system] = [0, 1, 2, 3].map(|n| usage[n]);
    let ms = (user + system) * 1000 + (more_user + more_system) / 1000;
    match used {
        Ok(_) if !children.is_empty() => {
            let said = format!(
                "{ms} ms of processor time in {} ms by {} processes",
                TIME.as_millis() * 3,
                children.len()
            );
            out.told("busy processes", &said);
        }
        _ => out.say("busy processes", Found::Unknown, "none could be started"),
    }
}

/// D06: crashes, mappings and names that do not exist.
pub(crate) fn kernel(_: &Spec, out: &Out<'_>) {
    repeat(out, "crashes", "processes crashed", || match sys::fork() {
        Ok(0) => {
            let _ = sys::kill(i32::try_from(std::process::id()).unwrap_or(0), libc::SIGABRT);
            sys::exit(1);
        }
        Ok(child) => sys::wait(child, TIME).is_some_and(|status| status & 0x7f == libc::SIGABRT),
        Err(_) => false,
    });
    repeat(out, "mappings", "mappings of 1 MiB made, filled and removed", || {
        sys::map_and_unmap(1 << 20).is_ok()
    });
    let mut n = 0_u64;
    repeat(out, "missing names", "names looked up that do not exist", || {
        n += 1;
        fs::symlink_metadata(format!("/tmp/.isolab-probe-no-such-name-{n:064}")).is_err()
    });
}

/// D07: output that nobody asked for, to the stream where complaints go.
pub(crate) fn output(spec: &Spec, out: &Out<'_>) {
    let end = Instant::now() + Duration::from_millis(u64::from(spec.limit_ms) / 2);
    let mut block = vec![b'x'; 64 << 10];
    // It holds what would steer a terminal, and lines.
    block[..8].copy_from_slice(b"\x1b[2J\x07\r\n\n");
    let mut written = 0_u64;
    let mut stream = io::stderr().lock();
    while written < FLOOD_BYTES && Instant::now() < end {
        match stream.write_all(&block) {
            Ok(()) => written += block.len() as u64,
            Err(error) => return out.io("output", &error, "it is not taken any more"),
        }
    }
    out.told("output", &format!("{} MiB written", written >> 20));
}

/// D08: what makes a guest leave its processor: ports, `cpuid`, and sleeps that end at once. In a guest only.
pub(crate) fn exits(_: &Spec, out: &Out<'_>) {
    repeat(out, "port", "writes to a port that belongs to nobody", || sys::write_port().is_ok());
    repeat(out, "processor's name", "times asked for the processor's name", || {
        std::hint::black_box(sys::cpuid(0, 0));
        true
    });
    repeat(out, "timers", "sleeps of 20 us", || {
        std::thread::sleep(Duration::from_micros(20));
        true
    });
}
