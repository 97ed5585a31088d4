//! Other processes, and what this one started with.

use std::fs;
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use crate::files::{beginning, open, open_to_write};
use crate::out::Out;
use crate::protocol::{HASHED, Spec, fnv};
use crate::sys;

/// Numbers of all processes that can be seen.
pub(crate) fn numbers() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// P18: other processes' roots, programs, environments and files.
pub(crate) fn other_roots(spec: &Spec, out: &Out<'_>) {
    for name in ["root", "cwd", "exe", "fd/0"] {
        match fs::read_link(format!("/proc/1/{name}")) {
            Ok(target) => out.reached(&format!("/proc/1/{name}"), &target.to_string_lossy()),
            Err(error) => out.io(&format!("/proc/1/{name}"), &error, ""),
        }
    }
    for name in ["environ", "maps", "mem"] {
        match open(format!("/proc/1/{name}"), 0) {
            Ok(_) => out.reached(&format!("/proc/1/{name}"), "opens"),
            Err(error) => out.io(&format!("/proc/1/{name}"), &error, ""),
        }
    }
    let wanted = format!("{}={}", spec.planted.variable, spec.planted.nonce);
    let environments: Vec<(i32, String)> = numbers()
        .into_iter()
        .filter_map(|pid| Some((pid, beginning(format!("/proc/{pid}/environ"), 256 << 10).ok()?)))
        .collect();
    match environments.iter().find(|(_, text)| text.contains(&wanted)) {
        Some((pid, _)) => out.reached("planted variable", &format!("in the environment of process {pid}")),
        None => out.hidden("planted variable", &format!("in none of {} environments", environments.len())),
    }
}

/// P19: what it started with.
pub(crate) fn inherited(spec: &Spec, out: &Out<'_>) {
    let mut standard = Vec::new();
    let mut others = Vec::new();
    let own = format!("/proc/{}/fd", std::process::id());
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let target =
            fs::read_link(entry.path()).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
        match name.as_str() {
            "0" | "1" | "2" => {
                standard.push(format!("{name}={}", target.split(':').next().unwrap_or_default()))
            }
            // The directory that is being read.
            _ if target == own => {}
            _ => others.push(format!("{name}={target}")),
        }
    }
    if others.is_empty() {
        out.hidden("descriptors", &standard.join(" "));
    } else {
        out.reached("descriptors", &others.join(" "));
    }
    let names: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    let more: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !spec.env_names.iter().any(|n| n == name)).collect();
    if more.is_empty() {
        out.hidden("environment", &format!("only the job's {}", names.len()));
    } else {
        out.reached("environment", &more.join(" "));
    }
    let ignored = beginning("/proc/self/status", 16 << 10).unwrap_or_default();
    let ignored =
        ignored.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default().trim().to_owned();
    // Rust's runtime ignores SIGPIPE itself.
    const OWN: u64 = 1 << 12;
    match u64::from_str_radix(&ignored, 16) {
        Ok(set) if set & !OWN == 0 => out.hidden("ignored signals", "none"),
        Ok(_) => out.reached("ignored signals", &ignored),
        Err(_) => out.absent("ignored signals", ""),
    }
}

/// P20: objects of the kernel that lie in no file system.
pub(crate) fn shared_objects(spec: &Spec, out: &Out<'_>) {
    match sys::shared_memory(spec.planted.shm_id) {
        Ok(text) if text == spec.planted.nonce => out.reached("System V memory", "the planted text"),
        Ok(_) => out.hidden("System V memory", "another segment has the number"),
        Err(libc::EINVAL | libc::EIDRM) => out.hidden("System V memory", "no segment of that number"),
        Err(errno) => out.error("System V memory", errno, ""),
    }
    match beginning(&spec.planted.shm_file, 256) {
        _ if spec.planted.shm_file.is_empty() => out.absent("POSIX memory", "the host has none"),
        Ok(text) if text == spec.planted.nonce => out.reached("POSIX memory", &spec.planted.shm_file),
        Ok(_) => out.hidden("POSIX memory", "another file has the name"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            out.hidden("POSIX memory", "no file of that name")
        }
        Err(error) => out.io("POSIX memory", &error, ""),
    }
    let connected = SocketAddr::from_abstract_name(&spec.planted.abstract_name)
        .and_then(|address| UnixStream::connect_addr(&address));
    match connected {
        Ok(_) => out.reached("abstract socket", &spec.planted.abstract_name),
        Err(error) => out.io("abstract socket", &error, ""),
    }
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let item = format!("{kind} namespace");
        match fs::read_link(format!("/proc/self/ns/{kind}")) {
            Ok(id) => out.told(&item, &id.to_string_lossy()),
            Err(error) => out.io(&item, &error, ""),
        }
    }
}

/// Whether a process is only waited for, or gone.
fn has_ended(pid: i32) -> bool {
    let stat = beginning(format!("/proc/{pid}/stat"), 512).unwrap_or_default();
    // The name before it is in parentheses and may hold anything.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X', 'x']))
}

/// P21: processes that are not this program's.
pub(crate) fn visible(spec: &Spec, out: &Out<'_>) {
    let numbers = numbers();
    if numbers.is_empty() {
        return out.absent("planted process", "no /proc");
    }
    let named = |pid: i32| {
        beginning(format!("/proc/{pid}/comm"), 64).is_ok_and(|name| name.trim_end() == spec.planted.process)
    };
    match numbers.iter().find(|pid| named(**pid)) {
        Some(pid) => out.reached("planted process", &format!("process {pid}")),
        None => out.hidden("planted process", &format!("not among {} processes", numbers.len())),
    }
    match sys::kill(spec.planted.pid, 0) {
        Ok(()) if named(spec.planted.pid) => out.reached("signal", "it can be signalled"),
        Ok(()) => out.hidden("signal", "another process has the number"),
        Err(errno) => out.error("signal", errno, ""),
    }
    let own = fs::metadata("/proc/self/exe").map(|meta| (meta.dev(), meta.ino())).ok();
    let foreign = |pid: &i32| {
        let exe = fs::metadata(format!("/proc/{pid}/exe")).map(|m| (m.dev(), m.ino())).ok();
        // One that has ended has no program any more; of whom it was is not known.
        *pid != 1 && exe != own && !(exe.is_none() && has_ended(*pid))
    };
    let foreign: Vec<i32> = numbers.iter().copied().filter(foreign).collect();
    if foreign.is_empty() {
        out.hidden("other processes", &format!("{} processes, all of this run", numbers.len()));
    } else {
        out.reached("other processes", &format!("{} of {}", foreign.len(), numbers.len()));
    }
}

/// P26: isolab's own program on the host.
pub(crate) fn host_program(spec: &Spec, out: &Out<'_>) {
    let is_isolab = |pid: &&i32| {
        let path = format!("/proc/{pid}/exe");
        let mut beginning = Vec::new();
        let as_long = fs::metadata(&path).is_ok_and(|meta| meta.len() == spec.isolab.0);
        as_long
            && open(&path, 0).and_then(|file| file.take(HASHED).read_to_end(&mut beginning)).is_ok()
            && format!("{:016x}", fnv(&beginning)) == spec.isolab.1
    };
    let numbers = numbers();
    match numbers.iter().find(is_isolab) {
        Some(pid) => out.reached("isolab's program", &format!("/proc/{pid}/exe")),
        None => {
            out.hidden("isolab's program", &format!("the program of none of {} processes", numbers.len()))
        }
    }
    match open_to_write("/proc/1/exe") {
        // Past the check of rights: it is only in use.
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {
            out.reached("program of process 1", "may be written, but runs");
        }
        Ok(_) => out.reached("program of process 1", "opens for writing"),
        Err(error) => out.io("program of process 1", &error, ""),
    }
}
