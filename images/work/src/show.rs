//! What the workload sees of its surroundings.

use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::{CWD, Errno, Fd, clock, fs, process, tty};
use isolab_bare::text::Text;

use crate::{End, Run, STDIN, STDOUT};

fn line(bytes: &[u8]) -> Result<(), Errno> {
    io::write_all(STDOUT, bytes)?;
    io::write_all(STDOUT, b"\n")
}

/// Arguments, one a line.
pub(crate) fn args(run: &Run) -> End {
    run.ready();
    for i in 0..run.start.count() {
        line(run.start.arg(i).map(core::ffi::CStr::to_bytes).unwrap_or_default())?;
    }
    Ok(0)
}

/// Environment, one entry a line.
pub(crate) fn env(run: &Run) -> End {
    run.ready();
    for entry in run.start.env() {
        line(entry.to_bytes())?;
    }
    Ok(0)
}

/// User, group and supplementary groups as numbers.
pub(crate) fn id(run: &Run) -> End {
    run.ready();
    let [uid, euid, gid, egid] = process::ids();
    let mut groups = [0; 128];
    let count = process::groups(&mut groups)?;
    let mut text = Text::<2048>::new();
    for (name, n) in [("uid=", uid), (" euid=", euid), (" gid=", gid), (" egid=", egid)] {
        text.push(name.as_bytes()).number(u64::from(n));
    }
    text.push(b" groups=");
    for (i, group) in groups.iter().take(count).enumerate() {
        text.push(if i > 0 { b"," } else { b"" }).number(u64::from(*group));
    }
    line(text.bytes())?;
    Ok(0)
}

/// System, host name, release, version, machine.
pub(crate) fn uname(run: &Run) -> End {
    run.ready();
    let mut text = Text::<512>::new();
    for (i, name) in process::uname()?.iter().take(5).enumerate() {
        let end = name.iter().position(|&c| c == 0).unwrap_or(name.len());
        text.push(if i > 0 { b" " } else { b"" }).push(name.get(..end).unwrap_or_default());
    }
    line(text.bytes())?;
    Ok(0)
}

/// What no two instances may have in common, and what all must: random numbers by call and by device, where the kernel has put
/// the stack, and the time of day.
pub(crate) fn fresh(run: &Run) -> End {
    run.ready();
    let mut bytes = [0; 16];
    clock::random(&mut bytes)?;
    hexadecimal(b"getrandom ", &bytes)?;
    let device = io::open(CWD, c"/dev/urandom", open::RDONLY, 0)?;
    io::read(device, &mut bytes)?;
    hexadecimal(b"urandom ", &bytes)?;
    let here = core::ptr::from_ref(&bytes) as usize;
    hexadecimal(b"stack ", &here.to_be_bytes())?;
    let mut text = Text::<64>::new();
    line(text.push(b"realtime_ns ").number(clock::realtime_ns()).bytes())?;
    Ok(0)
}

fn hexadecimal(name: &[u8], bytes: &[u8]) -> Result<(), Errno> {
    let digit = |n: u8| b"0123456789abcdef".get(usize::from(n)).copied().unwrap_or(b'?');
    let mut text = Text::<64>::new();
    text.push(name);
    for byte in bytes {
        text.push(&[digit(byte >> 4), digit(byte & 15)]);
    }
    line(text.bytes())
}

/// /proc/mounts.
pub(crate) fn mounts(run: &Run) -> End {
    run.ready();
    let file = io::open(CWD, c"/proc/mounts", open::RDONLY, 0)?;
    copy(file, STDOUT)?;
    Ok(0)
}

fn copy(from: Fd, to: Fd) -> Result<(), Errno> {
    let mut buffer = [0; 4096];
    loop {
        match io::read(from, &mut buffer)? {
            0 => return Ok(()),
            n => io::write_all(to, buffer.get(..n).unwrap_or_default())?,
        }
    }
}

/// The working directory.
pub(crate) fn cwd(run: &Run) -> End {
    run.ready();
    let mut name = [0; 4096];
    let len = fs::getcwd(&mut name)?;
    line(name.get(..len.saturating_sub(1)).unwrap_or_default())?;
    Ok(0)
}

/// Rows and columns of the terminal on standard input.
pub(crate) fn ttysize(run: &Run) -> End {
    run.ready();
    let window = tty::window(STDIN)?;
    let mut text = Text::<32>::new();
    text.number(u64::from(window.rows)).push(b" ").number(u64::from(window.cols));
    line(text.bytes())?;
    Ok(0)
}

/// What a program finds without having asked for it: blocked and ignored signals, its session, open descriptors.
pub(crate) fn inherited(run: &Run) -> End {
    run.ready();
    let blocked = process::blocked_signals()?;
    numbers(b"blocked", 1..65, |n| blocked >> (n - 1) & 1 == 1)?;
    numbers(b"ignored", 1..65, |n| u8::try_from(n).is_ok_and(|n| process::ignores_signal(n) == Ok(true)))?;
    line(if process::leads_session() { b"session own" } else { b"session another's" })?;
    numbers(b"descriptors", 0..1024, |n| i32::try_from(n).is_ok_and(|n| io::is_open(Fd(n))))?;
    Ok(0)
}

/// A name and the numbers for which something holds.
fn numbers(name: &[u8], all: core::ops::Range<u32>, holds: impl Fn(u32) -> bool) -> Result<(), Errno> {
    let mut text = Text::<8192>::new();
    text.push(name);
    for n in all.filter(|n| holds(*n)) {
        text.push(b" ").number(u64::from(n));
    }
    line(text.bytes())
}
