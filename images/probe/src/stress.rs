//! Using things up, with `--stress` only and never at level process: that each ends at a limit of the level's own. isolab has made
//! sure of the limits before, and looks at the host meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use crate::out::Out;
use crate::protocol::{Found, Spec};
use crate::sys::{self, Ended};

/// Many more processes than any limit of isolab's default.
const MOST_PROCESSES: usize = 8192;
/// More descriptors than a process may have anywhere.
const MOST_DESCRIPTORS: usize = 1 << 21;
const MIB: usize = 1 << 20;

/// The end of the time for one of these: before that of the probe.
fn end(spec: &Spec) -> Instant {
    Instant::now() + Duration::from_millis(u64::from(spec.limit_ms) * 3 / 4)
}

/// Has the kernel's killer for memory take this process and its children before the rest of the program.
fn volunteer() {
    // Where it can't be said, the kernel chooses by size.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
}

/// D01: processes.
pub(crate) fn processes(spec: &Spec, out: &Out<'_>) {
    const DIE_WITH_PARENT: usize = 1;
    let limit = Duration::from_millis(u64::from(spec.limit_ms) * 3 / 4);
    let (ended, count) = sys::in_child_counting(limit, |count| {
        volunteer();
        let mut children = Vec::new();
        let refused = loop {
            if children.len() >= MOST_PROCESSES {
                break 0;
            }
            match sys::fork() {
                Ok(0) => {
                    let _ = sys::call(157, &[DIE_WITH_PARENT, libc::SIGKILL as usize, 0, 0, 0]);
                    loop {
                        let _ = sys::call(34, &[]);
                    }
                }
                Ok(child) => children.push(child),
                Err(errno) => break errno,
            }
            count(i64::try_from(children.len()).unwrap_or(i64::MAX));
        };
        for child in &children {
            let _ = sys::kill(*child, libc::SIGKILL);
        }
        for child in &children {
            let _ = sys::wait(*child, Duration::from_secs(1));
        }
        -i64::from(refused)
    });
    ended_by(out, "processes", ended, count, "processes");
}

/// What using something up came to: refused at a limit, as much as was wanted, or out of time before either.
fn told(out: &Out<'_>, item: &str, count: usize, unit: &str, refused: Option<i32>, all: bool) {
    match refused {
        Some(errno) => {
            let name = match errno {
                libc::EAGAIN => "EAGAIN".to_owned(),
                libc::ENOMEM => "ENOMEM".to_owned(),
                libc::EMFILE => "EMFILE".to_owned(),
                libc::ENFILE => "ENFILE".to_owned(),
                libc::ENOSPC => "ENOSPC".to_owned(),
                other => format!("error {other}"),
            };
            out.hidden(item, &format!("{count} {unit}, then {name}"));
        }
        None if all => out.reached(item, &format!("{count} {unit} without a limit")),
        None => out.say(item, Found::Unknown, &format!("{count} {unit}, then the time was over")),
    }
}

/// D02: memory, written by a child until it is ended.
pub(crate) fn memory(spec: &Spec, out: &Out<'_>) {
    // Twice of what the level is given.
    let most = usize::try_from(spec.tmpfs_bytes).unwrap_or(usize::MAX / 8).saturating_mul(4) / MIB;
    let limit = Duration::from_millis(u64::from(spec.limit_ms) * 3 / 4);
    let (ended, count) = sys::in_child_counting(limit, |count| {
        volunteer();
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for n in 0..most {
            let mut block = Vec::new();
            if block.try_reserve_exact(MIB).is_err() {
                return -i64::from(libc::ENOMEM);
            }
            block.resize(MIB, 1);
            kept.push(block);
            count(i64::try_from(n + 1).unwrap_or(i64::MAX));
        }
        0
    });
    ended_by(out, "memory", ended, count, "MiB written");
}

/// D03: descriptors, as many as the hard limit lets one process have.
pub(crate) fn descriptors(spec: &Spec, out: &Out<'_>) {
    const NOFILE: usize = 7;
    let limit = Duration::from_millis(u64::from(spec.limit_ms) * 3 / 4);
    let null = sys::path("/dev/null");
    let (ended, count) = sys::in_child_counting(limit, |count| {
        volunteer();
        let mut limit = [0_u64; 2];
        let _ = sys::call(97, &[NOFILE, sys::address_mut(&mut limit)]);
        limit[0] = limit[1];
        let _ = sys::call(160, &[NOFILE, sys::address(&limit)]);
        for n in 0..MOST_DESCRIPTORS {
            if let Err(errno) = sys::call(2, &[null.as_ptr().expose_provenance(), 0]) {
                return -i64::from(errno);
            }
            count(i64::try_from(n + 1).unwrap_or(i64::MAX));
        }
        0
    });
    ended_by(out, "descriptors", ended, count, "open files");
}

/// What a child that used something up came to.
fn ended_by(out: &Out<'_>, item: &str, ended: Ended, count: i64, unit: &str) {
    match ended {
        // The memory that it takes has a limit as well.
        Ended::Signal(libc::SIGKILL) => {
            out.hidden(item, &format!("{count} {unit}, then ended by the kernel"));
        }
        Ended::Value(value) if value < 0 => {
            told(out, item, usize::try_from(count).unwrap_or(0), unit, i32::try_from(-value).ok(), false);
        }
        Ended::Value(_) => out.reached(item, &format!("{count} {unit} without a limit")),
        ended => out.say(item, Found::Unknown, &format!("{count} {unit}, then {ended:?}")),
    }
}

/// D04: room on what can be written, filled with files of 1 MiB that are removed again.
pub(crate) fn disk(spec: &Spec, out: &Out<'_>) {
    let most = usize::try_from(spec.tmpfs_bytes).unwrap_or(usize::MAX / 8).saturating_mul(2) / MIB;
    let block = vec![0; MIB];
    for dir in ["/tmp", "/dev/shm"] {
        let own = format!("{dir}/.isolab-probe-{}", std::process::id());
        if let Err(error) = fs::create_dir_all(&own) {
            out.io(dir, &error, "no room to fill");
            continue;
        }
        let end = end(spec) - Duration::from_millis(u64::from(spec.limit_ms) / 3);
        let mut count = 0;
        let refused = loop {
            if count >= most || Instant::now() > end {
                break None;
            }
            let written = OpenOptions::new()
                .create_new(true)
                .write(true)
                .open(format!("{own}/{count}"))
                .and_then(|mut file: File| file.write_all(&block));
            match written {
                Ok(()) => count += 1,
                Err(error) => break Some(error.raw_os_error().unwrap_or(libc::EIO)),
            }
        };
        let _ = fs::remove_dir_all(&own);
        told(out, dir, count, "MiB", refused, count >= most);
    }
}
