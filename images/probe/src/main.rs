//! `isolab-probe`: looks, from inside of a level, at what of the host can be seen, reached and used. The same program at every
//! level, executed by descriptor: it is part of no image.
//!
//! It reads what to look for from standard input and says what it found on standard output, one line of JSON for each thing
//! (`images/src/probe.rs`). Each probe runs in a child of its own with a time limit: that it crashes is a result. Nothing is
//! changed: calls have arguments that fail after the kernel's checks of rights, files are opened for writing and never written.
//! With the argument `decoy` it is what is planted on the host instead, with `gained` what P09 executes.

mod cache;
mod calls;
mod decoy;
mod devices;
mod files;
mod gain;
mod kernel;
mod load;
mod machine;
mod network;
mod out;
mod processes;
#[path = "../../src/probe.rs"]
#[allow(dead_code, reason = "isolab's half uses the rest")]
mod protocol;
mod roots;
mod secrets;
mod stress;
mod sys;
mod work;

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use out::Out;
use protocol::{Line, MAX_LINE, Spec, fnv};

/// Longest specification.
const MAX_SPEC: u64 = 256 << 10;
/// Most bytes that a probe may say.
const MAX_SAID: u64 = 512 << 10;

/// A probe.
type Probe = fn(&Spec, &Out<'_>);

/// All of them, by id.
static PROBES: &[(&str, Probe)] = &[
    ("P01", kernel::identity),
    ("P02", machine::hypervisor),
    ("P03", files::compared),
    ("P04", kernel::addresses),
    ("P05", kernel::log),
    ("P06", calls::sweep),
    ("P07", calls::other_tables),
    ("P08", kernel::privileges),
    ("P09", gain::rights),
    ("P10", calls::namespaces),
    ("P11", network::families),
    ("P12", calls::dangerous),
    ("P13", devices::nodes),
    ("P14", files::compared),
    ("P15", files::knobs),
    ("P16", devices::sensors),
    ("P17", files::disks),
    ("P18", processes::other_roots),
    ("P19", processes::inherited),
    ("P20", processes::shared_objects),
    ("P21", processes::visible),
    ("P22", roots::cgroups),
    ("P23", roots::image),
    ("P24", roots::writable),
    ("P25", roots::escape),
    ("P26", processes::host_program),
    ("P27", network::reach),
    ("P28", roots::sockets),
    ("P29", secrets::names),
    ("P30", devices::terminal),
    ("P31", machine::guest_devices),
    ("P32", machine::features),
    ("P33", machine::nested),
    ("P34", machine::image_disk),
    ("P35", files::scan),
    ("P36", files::compared),
    ("P37", machine::timers),
    ("P38", cache::shared),
    ("P39", load::visible),
    ("P40", calls::entry_points),
    ("P41", files::compared),
    ("D01", stress::processes),
    ("D02", stress::memory),
    ("D03", stress::descriptors),
    ("D04", stress::disk),
    ("D05", work::processors),
    ("D06", work::kernel),
    ("D07", work::output),
    ("D08", work::exits),
];

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some(gain::ARGUMENT) => return gain::tell(),
        Some("decoy") => spec().and_then(|spec| decoy::stay(&spec)),
        _ => spec().and_then(|spec| run(&spec)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "isolab-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The first line of standard input.
fn spec() -> io::Result<Spec> {
    let mut line = Vec::new();
    io::stdin().lock().take(MAX_SPEC).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

fn run(spec: &Spec) -> io::Result<()> {
    let own = std::fs::read("/proc/self/exe").unwrap_or_default();
    out::say(&Line::Program { fnv: format!("{:016x}", fnv(&own)) })?;
    drop(own);
    files::planted(spec.planted.pid);
    for id in &spec.probes {
        if let Some((name, probe)) = PROBES.iter().find(|(name, _)| name == id) {
            one(spec, name, *probe)?;
        }
    }
    out::say(&Line::Done)
}

/// Runs one probe in a child and passes on what it says.
fn one(spec: &Spec, id: &str, probe: Probe) -> io::Result<()> {
    let start = Instant::now();
    let limit = Duration::from_millis(spec.limit_ms.into());
    let (read, write) = sys::pipe()?;
    let pid = sys::fork().map_err(io::Error::from_raw_os_error)?;
    if pid == 0 {
        // A session of its own: killed as a group, and away from every terminal.
        let _ = sys::call(112, &[]);
        let _ = sys::call(33, &[write.as_raw_fd() as usize, 1]);
        limits(spec.limit_ms);
        drop((read, write));
        probe(spec, &Out::new(id));
        sys::exit(0);
    }
    drop(write);
    // It is read while the probe runs; the end of the pipe is the end of the probe and of its children.
    let late = !relay(&File::from(read), start + limit)?;
    if late {
        let _ = sys::kill(-pid, libc::SIGKILL);
        let _ = sys::kill(pid, libc::SIGKILL);
    }
    let status = sys::wait(pid, Duration::from_secs(1));
    let _ = sys::kill(-pid, libc::SIGKILL);
    let signal = status.map(|status| status & 0x7f).filter(|signal| *signal != 0 && !late);
    let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    out::say(&Line::End { probe: id.to_owned(), ns, signal, late })
}

/// Passes on lines until the pipe ends; false where that is not before the moment given.
fn relay(pipe: &File, end: Instant) -> io::Result<bool> {
    let (mut held, mut buffer, mut total) = (Vec::new(), vec![0; 16 << 10], 0_u64);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut polled = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let ms = usize::try_from(left.as_millis()).unwrap_or(0);
        if left.is_zero() || sys::call(7, &[sys::address_mut(&mut polled), 1, ms]) == Ok(0) {
            return Ok(false);
        }
        let n = match (&mut &*pipe).read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += n as u64;
        held.extend_from_slice(&buffer[..n]);
        let whole = held.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if total > MAX_SAID || held.len() - whole > MAX_LINE {
            return Ok(false);
        }
        let mut out = io::stdout().lock();
        out.write_all(&held[..whole])?;
        out.flush()?;
        held.drain(..whole);
    }
}

/// What a probe gone wrong can use up.
fn limits(limit_ms: u32) {
    let seconds = u64::from(limit_ms / 1000 + 1);
    // CPU time, size of a file, core dumps.
    for (resource, most) in [(0, seconds), (1, 4 << 20), (4, 0)] {
        let limit = [most, most];
        let _ = sys::call(160, &[resource, sys::address(&limit)]);
    }
}
