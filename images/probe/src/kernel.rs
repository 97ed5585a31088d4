//! Whose kernel it is, what it tells, and what this process may ask of it.

use std::fs::{self, File};
use std::io::Read;

use crate::files::{self, beginning};
use crate::out::Out;
use crate::protocol::Spec;
use crate::sys;

/// P01: who answers.
pub(crate) fn identity(spec: &Spec, out: &Out<'_>) {
    let mut names = [[0_u8; 65]; 6];
    match sys::call(63, &[sys::address_mut(&mut names)]) {
        Ok(_) => {
            let text = |name: &[u8; 65]| {
                let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                String::from_utf8_lossy(&name[..end]).into_owned()
            };
            out.told("release", &text(&names[2]));
        }
        Err(errno) => out.error("release", errno, ""),
    }
    files::compared(spec, out);
}

/// P04: where the kernel's code and data lie.
pub(crate) fn addresses(_: &Spec, out: &Out<'_>) {
    // A file with lines in which an address is the field given; zero where the kernel hides it.
    let shown = |item: &str, path: &str, field: usize, is: fn(&str) -> bool| match beginning(path, 4096) {
        Err(error) => out.io(item, &error, ""),
        Ok(text) if text.is_empty() => out.hidden(item, "empty"),
        Ok(text) => {
            let addresses: Vec<&str> = text.lines().filter_map(|l| l.split_whitespace().nth(field)).collect();
            match addresses.iter().find(|address| is(address)) {
                Some(address) => out.reached(item, address),
                None => out.hidden(item, "all addresses are 0"),
            }
        }
    };
    let is_address = |text: &str| {
        // The kernel's half; below are offsets.
        u64::from_str_radix(text.trim_start_matches("0x"), 16).is_ok_and(|address| address >> 63 == 1)
    };
    shown("kallsyms", "/proc/kallsyms", 0, is_address);
    shown("modules", "/proc/modules", 5, is_address);
    shown("iomem", "/proc/iomem", 0, |range| {
        let (from, to) = range.split_once('-').unwrap_or_default();
        [from, to].iter().any(|n| u64::from_str_radix(n, 16).is_ok_and(|n| n > 0))
    });
    let mut head = [0; 4];
    match File::open("/proc/kcore").and_then(|mut file| file.read(&mut head)) {
        Ok(4) if head == *b"\x7fELF" => out.reached("kcore", "the kernel's memory as a core file"),
        Ok(_) => out.hidden("kcore", "empty"),
        Err(error) => out.io("kcore", &error, ""),
    }
}

/// P05: the kernel's messages.
pub(crate) fn log(_: &Spec, out: &Out<'_>) {
    const SIZE_BUFFER: usize = 10;
    out.call("syslog", 103, &[SIZE_BUFFER, 0, 0], sys::attempt(LIMIT, 103, &[SIZE_BUFFER, 0, 0]));
    match files::open("/dev/kmsg", libc::O_NONBLOCK) {
        Ok(_) => out.reached("/dev/kmsg", "can be read"),
        Err(error) => out.io("/dev/kmsg", &error, ""),
    }
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(3);

/// P08: capabilities, no new privileges, filter.
pub(crate) fn privileges(_: &Spec, out: &Out<'_>) {
    let status = match fs::read_to_string("/proc/self/status") {
        Ok(status) => status,
        Err(error) => return out.io("status", &error, ""),
    };
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        match field(set) {
            Some(value) if value.bytes().all(|b| b == b'0') => out.hidden(set, &value),
            Some(value) => out.reached(set, &value),
            None => out.absent(set, ""),
        }
    }
    for (name, closed) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        match field(name) {
            Some(value) if value == closed => out.hidden(name, &value),
            Some(value) => out.reached(name, &value),
            None => out.absent(name, ""),
        }
    }
    const GET_SECUREBITS: usize = 27;
    match sys::call(157, &[GET_SECUREBITS, 0, 0, 0, 0]) {
        // No capabilities for root at exec, and that locked.
        Ok(bits) if bits & 3 == 3 => out.hidden("securebits", &format!("{bits:#x}")),
        Ok(bits) => out.reached("securebits", &format!("{bits:#x}")),
        Err(errno) => out.error("securebits", errno, ""),
    }
}
