//! Device nodes, sensors, terminals.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use crate::files::{open, ways};
use crate::out::Out;
use crate::protocol::Spec;
use crate::sys::{self, Ended, in_child};

const LIMIT: Duration = Duration::from_secs(3);
/// Nodes that reach no hardware.
const HARMLESS: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx"];
/// Nodes behind which there is more than a device; opening them does nothing yet.
const FAR: [&str; 9] = [
    "/dev/mem",
    "/dev/port",
    "/dev/fuse",
    "/dev/net/tun",
    "/dev/vhost-net",
    "/dev/vhost-vsock",
    "/dev/loop-control",
    "/dev/mapper/control",
    "/dev/uinput",
];

/// P13: which nodes there are, and whether more can be made.
pub(crate) fn nodes(_: &Spec, out: &Out<'_>) {
    let (mut harmless, mut others) = (Vec::new(), Vec::new());
    list(Path::new("/dev"), "", 3, &mut harmless, &mut others);
    harmless.sort_unstable();
    others.sort_unstable();
    let count = others.len();
    others.truncate(30);
    match (harmless.len(), count) {
        (0, 0) => out.absent("nodes", "no device node"),
        (_, 0) => out.hidden("nodes", &format!("only {}", harmless.join(" "))),
        _ => out.reached("nodes", &format!("{count} besides the harmless: {}", others.join(" "))),
    }
    for path in FAR {
        match open(path, libc::O_NONBLOCK) {
            Ok(_) => out.reached(path, "opens"),
            Err(error) => out.io(path, &error, ""),
        }
    }
    make(out, "mknod null", 0o020_600, 0x103);
    make(out, "mknod disk", 0o060_600, 0x800);
}

fn list(dir: &Path, below: &str, depth: u32, harmless: &mut Vec<String>, others: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 && !name.starts_with(".image") => {
                list(&entry.path(), &format!("{name}/"), depth - 1, harmless, others);
            }
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => {
                let own = HARMLESS.contains(&name.as_str()) || name.starts_with("pts/");
                if own { harmless.push(name) } else { others.push(name) }
            }
            _ => {}
        }
    }
}

/// Makes a node where there is room for one, and removes it.
fn make(out: &Out<'_>, item: &str, mode: usize, device: usize) {
    const MKNOD: u32 = 133;
    let name = format!(".isolab-probe-{}", std::process::id());
    let mut last = None;
    for dir in ["/tmp", "", "/dev/shm"] {
        let path = sys::path(&format!("{dir}/{name}"));
        let args = [path.as_ptr().expose_provenance(), mode, device];
        let result = sys::call(MKNOD, &args);
        if result.is_ok() {
            let _ = sys::call(87, &args[..1]);
        }
        let value = result.map_or_else(|errno| -i64::from(errno), |_| 0);
        // A read-only or missing directory says nothing about the right.
        if ![-i64::from(libc::EROFS), -i64::from(libc::ENOENT)].contains(&value) {
            return out.call(item, MKNOD, &args, Ended::Value(value));
        }
        last = Some(value);
    }
    match last {
        Some(value) => out.error(item, i32::try_from(-value).unwrap_or(0), "no directory can be written"),
        None => out.absent(item, ""),
    }
}

/// P16: sensors from which other tenants' work can be read.
pub(crate) fn sensors(_: &Spec, out: &Out<'_>) {
    const SENSORS: [(&str, &str, &str); 5] = [
        ("energy", "/sys/class/powercap", "intel-rapl:0"),
        ("temperature", "/sys/class/thermal", "thermal_zone0"),
        ("hardware monitor", "/sys/class/hwmon", "hwmon0"),
        ("frequency", "/sys/devices/system/cpu/cpu0", "cpufreq"),
        ("model-specific registers", "/dev/cpu/0", "msr"),
    ];
    for (item, dir, name) in SENSORS {
        let found =
            ways(dir).into_iter().map(|way| format!("{way}/{name}")).find(|way| fs::metadata(way).is_ok());
        match found {
            Some(way) => out.reached(item, &way),
            None => out.absent(item, ""),
        }
    }
}

/// P30: input faked for a terminal.
pub(crate) fn terminal(_: &Spec, out: &Out<'_>) {
    const IOCTL: u32 = 16;
    const TIOCSTI: usize = 0x5412;
    const UNLOCK: usize = 0x4004_5431;
    const PEER: usize = 0x5441;
    const MAKE_CONTROLLING: usize = 0x540e;
    const GET_SETTINGS: usize = 0x5401;
    let mut settings = [0_u64; 16];
    match sys::call(IOCTL, &[0, GET_SETTINGS, sys::address_mut(&mut settings)]) {
        Ok(_) => out.reached("standard input", "a terminal"),
        Err(_) => out.hidden("standard input", "no terminal"),
    }
    let master = match open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY) {
        Ok(master) => master,
        Err(error) => return out.io("TIOCSTI", &error, "no terminal can be made"),
    };
    let (master, unlocked, byte) = (master.as_raw_fd() as usize, 0_i32, b'x');
    let ended = in_child(LIMIT, || {
        let peer = sys::call(IOCTL, &[master, UNLOCK, sys::address(&unlocked)])
            .and_then(|_| sys::call(IOCTL, &[master, PEER, (libc::O_RDWR | libc::O_NOCTTY) as usize]))
            .and_then(|peer| sys::call(IOCTL, &[peer, MAKE_CONTROLLING, 0]).map(|_| peer));
        let peer = match peer {
            Ok(peer) => peer,
            Err(errno) => return -i64::from(errno) - 10_000,
        };
        let faked = sys::call(IOCTL, &[peer, TIOCSTI, sys::address(&byte)]);
        faked.map_or_else(|errno| -i64::from(errno), |_| 0)
    });
    match ended {
        Ended::Value(value) if value == -i64::from(libc::EIO) => {
            out.hidden("TIOCSTI", "the kernel refuses it to who is not root (dev.tty.legacy_tiocsti)");
        }
        Ended::Value(value) if value <= -10_000 => {
            out.error("TIOCSTI", i32::try_from(-value - 10_000).unwrap_or(0), "no terminal can be made");
        }
        ended => out.call("TIOCSTI", IOCTL, &[master, TIOCSTI, 0], ended),
    }
}
