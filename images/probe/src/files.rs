//! Files of the kernel: what they say, and which could be written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::out::Out;
use crate::protocol::Spec;

/// Opens for reading, with more flags.
pub(crate) fn open(path: impl AsRef<Path>, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Opens for writing; nothing is made, cut or written.
pub(crate) fn open_to_write(path: impl AsRef<Path>) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// The first bytes of a file as text.
pub(crate) fn beginning(path: impl AsRef<Path>, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    open(path, libc::O_NONBLOCK)?.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The number that the planted process has on the host.
static PLANTED: AtomicI32 = AtomicI32::new(0);

/// Says which number the planted process has.
pub(crate) fn planted(pid: i32) {
    PLANTED.store(pid, Ordering::Relaxed);
}

/// A path as this level has it, and as process 1 and the planted process have it: those are the host's where the host's
/// processes can be seen.
pub(crate) fn ways(path: &str) -> [String; 3] {
    let planted = PLANTED.load(Ordering::Relaxed);
    [path.to_owned(), format!("/proc/1/root{path}"), format!("/proc/{planted}/root{path}")]
}

/// The files that isolab wants for this probe: what their line says is compared out there.
pub(crate) fn compared(spec: &Spec, out: &Out<'_>) {
    for wanted in spec.files.iter().filter(|wanted| out.is_of(&wanted.probe)) {
        // Files of sysfs are in no root of ours: process 1 may have them.
        let ways = ways(&wanted.path);
        let ways = if wanted.path.starts_with("/sys/") { &ways[..] } else { &ways[..1] };
        let mut result = Err(io::Error::from_raw_os_error(libc::ENOENT));
        for way in ways {
            result = beginning(way, 256 << 10);
            if result.is_ok() {
                break;
            }
        }
        match result {
            Ok(text) => {
                let line = text.lines().map(str::trim_start).find(|line| line.starts_with(&wanted.prefix));
                let line = line.unwrap_or_default();
                out.told(&wanted.item, line);
            }
            Err(error) => out.io(&wanted.item, &error, ""),
        }
    }
}

/// P15: settings of the kernel that this process could write.
pub(crate) fn knobs(_: &Spec, out: &Out<'_>) {
    const SINGLE: [&str; 5] = [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/mtrr",
        "/proc/irq/default_smp_affinity",
    ];
    const BY_WAYS: [&str; 3] =
        ["/sys/kernel/uevent_helper", "/sys/power/state", "/proc/sys/fs/binfmt_misc/register"];
    for path in SINGLE {
        match open_to_write(path) {
            Ok(_) => out.reached(path, "opens for writing"),
            Err(error) => out.io(path, &error, ""),
        }
    }
    for path in BY_WAYS {
        by_ways(out, path, path);
    }
    let (mut seen, mut writable) = (0_usize, Vec::new());
    walk(Path::new("/proc/sys"), 5, &mut 4000, &mut |path| {
        seen += 1;
        if open_to_write(path).is_ok() {
            writable.push(path.display().to_string());
        }
    });
    let count = writable.len();
    writable.truncate(4);
    let said = format!("{count} of {seen} settings open for writing {}", writable.join(" "));
    match (seen, count) {
        (0, _) => out.absent("/proc/sys", "no settings there"),
        (_, 0) => out.hidden("/proc/sys", &said),
        _ => out.reached("/proc/sys", &said),
    }
}

/// Opens for writing by either way; what says most is said.
pub(crate) fn by_ways(out: &Out<'_>, item: &str, path: &str) {
    let mut error = None;
    for way in ways(path) {
        match open_to_write(&way) {
            Ok(_) => return out.reached(item, &way),
            Err(e) if e.kind() == io::ErrorKind::NotFound => error = error.or(Some(e)),
            Err(e) => error = Some(e),
        }
    }
    if let Some(error) = error {
        out.io(item, &error, "");
    }
}

/// Regular files below a directory, links not followed, at most so many.
fn walk(dir: &Path, depth: u32, left: &mut usize, each: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if *left == 0 {
            return;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => walk(&entry.path(), depth - 1, left, each),
            Ok(kind) if kind.is_file() => {
                *left -= 1;
                each(&entry.path());
            }
            _ => {}
        }
    }
}

/// P17: where file systems come from.
pub(crate) fn disks(spec: &Spec, out: &Out<'_>) {
    for (item, path) in [("own mounts", "/proc/self/mountinfo"), ("mounts of process 1", "/proc/1/mountinfo")]
    {
        match beginning(path, 256 << 10) {
            Ok(text) => {
                let mut sources: Vec<&str> = text.lines().filter_map(host_source).collect();
                sources.sort_unstable();
                sources.dedup();
                if text.contains(&spec.planted.nonce) {
                    out.reached(item, &spec.planted.nonce);
                } else {
                    out.told(item, &sources.join(" "));
                }
            }
            Err(error) => out.io(item, &error, ""),
        }
    }
    for (item, path) in [("/sys/block", "/sys/block"), ("disk ids", "/dev/disk/by-uuid")] {
        let names = ways(path).iter().find_map(|way| fs::read_dir(way).ok());
        match names {
            Some(names) => {
                let mut names: Vec<String> =
                    names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
                names.sort_unstable();
                out.told(item, &names.join(" "));
            }
            None => out.absent(item, ""),
        }
    }
}

/// The block device of a mount that is not the image's.
fn host_source(line: &str) -> Option<&str> {
    let (_, kind) = line.split_once(" - ")?;
    let mut words = kind.split(' ');
    let (fs, source) = (words.next()?, words.next()?);
    (fs != "erofs" && source.starts_with("/dev/")).then_some(source)
}

/// P35: the run's random text, in whatever the kernel and its processes show.
pub(crate) fn scan(spec: &Spec, out: &Out<'_>) {
    let end = Instant::now() + Duration::from_millis(u64::from(spec.limit_ms) / 2);
    let nonce = spec.planted.nonce.as_bytes();
    let (mut read, mut found, mut cut) = (0_usize, Vec::new(), false);
    let mut look = |path: &Path| {
        if Instant::now() > end {
            cut = true;
            return;
        }
        let mut bytes = Vec::new();
        let opened = open(path, libc::O_NONBLOCK | libc::O_NOCTTY);
        let Ok(mut file) = opened.map(|file| file.take(64 << 10)) else { return };
        if file.read_to_end(&mut bytes).is_ok() {
            read += 1;
            if bytes.windows(nonce.len()).any(|window| window == nonce) {
                found.push(path.display().to_string());
            }
        }
    };
    const NOT_TO_BE_READ: [&str; 6] =
        ["kmsg", "kcore", "kpagecount", "kpageflags", "kpagecgroup", "sysrq-trigger"];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.bytes().all(|b| b.is_ascii_digit()) {
            for file in ["cmdline", "environ", "comm", "maps", "mountinfo"] {
                look(&path.join(file));
            }
        } else if entry.file_type().is_ok_and(|kind| kind.is_file()) && !NOT_TO_BE_READ.contains(&&*name) {
            look(&path);
        }
    }
    look(Path::new("/proc/self/net/unix"));
    let mut left = 3000;
    for (dir, depth) in [
        ("/proc/sysvipc", 1),
        ("/sys/firmware", 6),
        ("/sys/class/dmi/id", 1),
        ("/dev/shm", 2),
        ("/tmp", 3),
        ("/run", 3),
    ] {
        walk(Path::new(dir), depth, &mut left, &mut look);
    }
    let said = format!("{read} files read");
    found.truncate(6);
    match found.len() {
        _ if read == 0 => out.absent("random text", "nothing can be read"),
        0 if cut => out.say(
            "random text",
            crate::protocol::Found::Unknown,
            &format!("{said}, then the time was over"),
        ),
        0 => out.hidden("random text", &format!("{said}, in none of them")),
        _ => out.reached("random text", &found.join(" ")),
    }
}
