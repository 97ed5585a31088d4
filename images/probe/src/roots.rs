//! The root directory, what can be written in it, and ways out of it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::files::{beginning, by_ways, open, ways};
use crate::out::Out;
use crate::protocol::{Found, Spec};
use crate::sys::{self, Ended, in_child};

/// Where isolab shows the image itself, below the overlay.
pub(crate) const IMAGE: &str = "/dev/.image";
const LIMIT: Duration = Duration::from_secs(3);

/// P22: the cgroup, and ways to change it.
pub(crate) fn cgroups(_: &Spec, out: &Out<'_>) {
    match beginning("/proc/self/cgroup", 16 << 10) {
        Ok(text) => {
            let paths: Vec<&str> = text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
            match paths.iter().find(|path| **path != "/") {
                Some(path) => out.reached("path", path),
                None if paths.is_empty() => out.absent("path", "no cgroups"),
                None => out.hidden("path", "/"),
            }
        }
        Err(error) => out.io("path", &error, ""),
    }
    let mounts = beginning("/proc/self/mountinfo", 256 << 10).unwrap_or_default();
    match mounts.lines().find(|line| line.contains(" - cgroup")) {
        Some(line) => out.reached("mounted", line.split(' ').nth(4).unwrap_or_default()),
        None => out.hidden("mounted", "no cgroup file system"),
    }
    const FILES: [(&str, &[&str]); 2] = [
        (
            "processes",
            &[
                "/sys/fs/cgroup/cgroup.procs",
                "/sys/fs/cgroup/unified/cgroup.procs",
                "/sys/fs/cgroup/memory/cgroup.procs",
            ],
        ),
        ("release agent", &["/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/pids/release_agent"]),
    ];
    for (item, files) in FILES {
        let there = |file: &&&str| ways(file).iter().any(|way| Path::new(way).exists());
        match files.iter().find(there) {
            Some(file) => by_ways(out, item, file),
            None => out.absent(item, ""),
        }
    }
}

/// P23: whether the image can be changed.
pub(crate) fn image(spec: &Spec, out: &Out<'_>) {
    by_ways(out, "image file on the host", &spec.image_file);
    if !Path::new(IMAGE).is_dir() {
        return out.absent("image below the root", "not shown at this level");
    }
    let file = format!("{IMAGE}/.isolab-probe");
    let make = |item: &str| match fs::File::create_new(&file) {
        Ok(_) => {
            let _ = fs::remove_file(&file);
            out.reached(item, "a file was made in it");
        }
        Err(error) => out.io(item, &error, ""),
    };
    make("image below the root");
    const REMOUNT: usize = 32;
    let at = sys::path(IMAGE);
    let args = [0, at.as_ptr().expose_provenance(), 0, REMOUNT, 0];
    match sys::call(165, &args) {
        // The kernel can say yes and keep it read-only.
        Ok(_) => make("after a remount"),
        Err(errno) if errno == libc::EROFS => out.error("after a remount", errno, ""),
        Err(errno) => out.call("after a remount", 165, &args, Ended::Value(-i64::from(errno))),
    }
}

/// P24: what can be written, and how much.
pub(crate) fn writable(spec: &Spec, out: &Out<'_>) {
    let mounts = match beginning("/proc/self/mountinfo", 256 << 10) {
        Ok(mounts) => mounts,
        Err(error) => return out.io("mounts", &error, ""),
    };
    let mut seen = Vec::new();
    for line in mounts.lines() {
        let Some((head, tail)) = line.split_once(" - ") else { continue };
        let (Some(at), Some(options)) = (head.split(' ').nth(4), head.split(' ').nth(5)) else { continue };
        let fs = tail.split(' ').next().unwrap_or_default();
        let kernels = ["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs", "binfmt_misc"];
        let path = sys::path(at);
        let may = sys::call(21, &[path.as_ptr().expose_provenance(), 2]).is_ok();
        if seen.contains(&at)
            || kernels.contains(&fs)
            || !options.split(',').any(|o| o == "rw")
            || !may
            || !Path::new(at).is_dir()
        {
            continue;
        }
        seen.push(at);
        let flags: Vec<&str> =
            options.split(',').filter(|o| o.starts_with("no") && !o.ends_with("time")).collect();
        match sys::statfs(at) {
            Ok(words) => {
                // Block size and blocks, `struct statfs` of 64 bits.
                let bytes = words[1].saturating_mul(words[2]);
                let said = format!("{fs}, {} KiB, {}", bytes >> 10, flags.join(","));
                if bytes > 0 && bytes <= spec.tmpfs_bytes {
                    out.hidden(at, &said)
                } else {
                    out.reached(at, &said)
                }
            }
            Err(errno) => out.error(at, errno, ""),
        }
    }
    if seen.is_empty() {
        out.hidden("mounts", "nothing can be written");
    }
}

/// P25: ways out of the root directory.
pub(crate) fn escape(spec: &Spec, out: &Out<'_>) {
    let id = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    match (id("/"), id("/../..")) {
        (Ok(root), Ok(above)) if root == above => out.hidden("..", "the root is its own parent"),
        (Ok(_), Ok(_)) => out.reached("..", "above the root is another directory"),
        (Err(error), _) | (_, Err(error)) => out.io("..", &error, ""),
    }
    let dir = format!("/tmp/.isolab-probe-{}", std::process::id());
    let made = fs::create_dir_all(&dir);
    let below = sys::path(if made.is_ok() { &dir } else { "/proc" });
    let (dot, up, root) = (sys::path("."), sys::path(".."), id("/").ok());
    let ended = in_child(LIMIT, || {
        let Ok(here) = open("/", libc::O_DIRECTORY) else { return -i64::from(libc::EIO) };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&here) as usize;
        if let Err(errno) = sys::call(161, &[below.as_ptr().expose_provenance()]) {
            return -i64::from(errno);
        }
        let _ = sys::call(81, &[fd]);
        for _ in 0..64 {
            let _ = sys::call(80, &[up.as_ptr().expose_provenance()]);
        }
        let mut status = [0_u64; 18];
        match sys::call(4, &[dot.as_ptr().expose_provenance(), sys::address_mut(&mut status)]) {
            Ok(_) => i64::from(root != Some((status[0], status[1]))),
            Err(errno) => -i64::from(errno),
        }
    });
    let _ = fs::remove_dir(&dir);
    match ended {
        Ended::Value(0) => out.hidden("chroot", "it ends at the same root"),
        Ended::Value(1) => out.reached("chroot", "it ends above the root"),
        ended => out.call("chroot", 161, &[0], ended),
    }
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for way in ways(&spec.planted.file) {
        match beginning(&way, 256) {
            Ok(text) if text == spec.planted.nonce => return out.reached("planted file", &way),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => error = e,
        }
    }
    match error.raw_os_error() {
        Some(libc::ENOENT) => out.hidden("planted file", "no file of that name"),
        Some(errno) => out.error("planted file", errno, ""),
        None => out.say("planted file", Found::Unknown, &error.to_string()),
    }
}

/// P28: sockets of daemons in the file system.
pub(crate) fn sockets(spec: &Spec, out: &Out<'_>) {
    let mut refused = None;
    let mut connected = None;
    for way in ways(&spec.planted.socket_file) {
        match UnixStream::connect(&way) {
            Ok(_) => connected = Some(way),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => refused = Some(error),
        }
    }
    match (connected, refused) {
        (Some(way), _) => out.reached("planted socket", &way),
        (None, Some(error)) => out.io("planted socket", &error, ""),
        (None, None) => out.hidden("planted socket", "no file of that name"),
    }
    let mut found = Vec::new();
    let mut left = 60_000;
    let end = Instant::now() + Duration::from_millis(u64::from(spec.limit_ms) / 4);
    walk(Path::new("/"), 10, end, &mut left, &mut found);
    match found.len() {
        0 if Instant::now() > end => {
            let said = format!("none among {} names, then the time was over", 60_000 - left);
            out.say("sockets below the root", Found::Unknown, &said);
        }
        0 => out.hidden("sockets below the root", &format!("none among {} names", 60_000 - left)),
        _ => out.reached("sockets below the root", &found.join(" ")),
    }
}

fn walk(dir: &Path, depth: u32, end: Instant, left: &mut usize, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if *left == 0 || found.len() > 20 || Instant::now() > end {
            return;
        }
        *left -= 1;
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_socket() {
            found.push(path.display().to_string());
        } else if kind.is_dir() && depth > 0 && path != Path::new("/proc") && path != Path::new("/sys") {
            walk(&path, depth - 1, end, left, found);
        }
    }
}
