//! What a guest needs before it can hear from isolab: device nodes, drivers, console ports.

use core::ffi::CStr;

use isolab_bare::cell::Once;
use isolab_bare::start::Start;
use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::mount::{self, flag};
use isolab_bare::sys::{CWD, Errno, Fd, fs, process};
use isolab_bare::text::{self, Text};
use isolab_wire::mark::{Failure, Step};
use isolab_wire::port;

use crate::At;
use crate::channels::{self, Channels};

/// Number of the first port, from the kernel command line (it hands unknown words to init's environment). Only
/// machines that keep port 0 for themselves, as QEMU does, need it.
const FIRST_PORT: &str = "isolab_first_port";

/// The smallest free block of memory that the kernel tells the host of, as a power of two of pages, in the same way.
const REPORTED_ORDER: &str = "isolab_reported_order";

/// Milliseconds that the driver may take between a port's node and the port.
const PORT_TRIES: u32 = 2000;

/// Mounts devtmpfs, loads the drivers of the initramfs, opens the four ports.
pub(crate) fn prepare(start: &Start) -> Result<Channels, Failure> {
    let _ = fs::mkdir(CWD, c"/dev", 0o755);
    mount::mount(Some(c"dev"), c"/dev", Some(c"devtmpfs"), flag::NOSUID | flag::NOEXEC, None)
        .at(Step::Channels)?;
    channels::occupy_standard_descriptors().at(Step::Channels)?;
    load_modules().at(Step::Modules)?;
    set_reported_order(start).at(Step::Modules)?;
    let first = start.var(FIRST_PORT).and_then(text::parse).unwrap_or_default();
    let open = |number: u32, flags: i32| {
        let mut suffix = Text::<16>::new();
        suffix.push(b"p").number(first + u64::from(number));
        let is_port = |name: &[u8]| is_port(name, suffix.bytes());
        let mut path = Text::<64>::new();
        await_name(|| {
            let found = find_name(is_port)?;
            if let Some(name) = found.as_ref() {
                path.push(b"/dev/").push(name.bytes());
            }
            Ok(found.is_some())
        })?;
        open_port(path.c_str().ok_or(Errno::NAMETOOLONG)?, flags | open::CLOEXEC)
    };
    let opened = || {
        // The host opens its side of the control port last, so once that is open, all are.
        let control = open(port::CONTROL, open::RDWR)?;
        await_host(control)?;
        let streams = [
            open(port::STDIN, open::RDWR | open::NONBLOCK)?,
            open(port::STDOUT, open::RDWR | open::NONBLOCK)?,
            open(port::STDERR, open::RDWR | open::NONBLOCK)?,
        ];
        Ok(Channels { control, streams })
    };
    opened().at(Step::Channels)
}

/// Opens a port. The driver (6.12's `add_port`) makes the node, and only some work later the port can be opened; for the
/// end of that work it has no event.
fn open_port(path: &CStr, flags: i32) -> Result<Fd, Errno> {
    for _ in 0..PORT_TRIES {
        match io::open(CWD, path, flags, 0) {
            Err(Errno::NXIO) => io::pause_ms(1),
            other => return other,
        }
    }
    Err(Errno::NXIO)
}

/// Loads `/modules/*` in the order of their names, and frees each file's memory.
fn load_modules() -> Result<(), Errno> {
    static ENTRIES: Once<[u8; 16384]> = Once::new([0; 16384]);
    let dir = match io::open(CWD, c"/modules", open::RDONLY | open::DIRECTORY | open::CLOEXEC, 0) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let entries = ENTRIES.take().ok_or(Errno::INVAL)?;
    let len = fs::entries(dir, entries)?;
    let packed = entries.get(..len).unwrap_or_default();
    let mut last = c"";
    while let Some(name) = next_name(packed, last) {
        let file = io::open(dir, name, open::RDONLY | open::CLOEXEC, 0)?;
        let compressed = !name.to_bytes().ends_with(b".ko");
        match process::load_module(file, compressed) {
            // Built in, or loaded already.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        io::close(file);
        fs::unlink(dir, name)?;
        last = name;
    }
    io::close(dir);
    Ok(())
}

/// Sets how small a free block may be of which the kernel tells the host, where it is to tell: kernel 6.1 overwrites what its command
/// line says of that when the driver starts, and reports for the first time two seconds later.
fn set_reported_order(start: &Start) -> Result<(), Errno> {
    let Some(order) = start.var(REPORTED_ORDER) else { return Ok(()) };
    let flags = flag::NOSUID | flag::NODEV | flag::NOEXEC;
    mount::mount(Some(c"sys"), c"/sys", Some(c"sysfs"), flags, None)?;
    let path = c"/sys/module/page_reporting/parameters/page_reporting_order";
    match io::open(CWD, path, open::WRONLY | open::CLOEXEC, 0) {
        Ok(file) => {
            io::write_all(file, order)?;
            io::close(file);
        }
        // A kernel that shows no parameters has kept what its command line says.
        Err(Errno::NOENT) => {}
        Err(e) => return Err(e),
    }
    mount::detach(c"/sys")
}

/// The first file name after `last` in byte order.
fn next_name<'a>(mut packed: &'a [u8], last: &CStr) -> Option<&'a CStr> {
    const REGULAR: u8 = 8;
    let mut best: Option<&CStr> = None;
    while let Some((name, kind, rest)) = fs::next_entry(packed) {
        packed = rest;
        let later = name.to_bytes() > last.to_bytes();
        if kind == REGULAR && later && best.is_none_or(|b| name.to_bytes() < b.to_bytes()) {
            best = Some(name);
        }
    }
    best
}

/// Whether a name is `vport`, the device's number among all virtio devices, and this suffix.
fn is_port(name: &[u8], suffix: &[u8]) -> bool {
    let number = name.strip_prefix(b"vport").and_then(|rest| rest.strip_suffix(suffix));
    number.is_some_and(|n| text::parse(n).is_some())
}

/// The first name in /dev that is wanted.
fn find_name(wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Text<32>>, Errno> {
    let dir = io::open(CWD, c"/dev", open::RDONLY | open::DIRECTORY | open::CLOEXEC, 0)?;
    let mut buffer = [0; 4096];
    let mut found = None;
    while found.is_none() {
        let len = fs::entries(dir, &mut buffer)?;
        if len == 0 {
            break;
        }
        let mut packed = buffer.get(..len).unwrap_or_default();
        while let Some((name, _, rest)) = fs::next_entry(packed) {
            packed = rest;
            if wanted(name.to_bytes()) {
                let mut text = Text::new();
                text.push(name.to_bytes());
                found = Some(text);
            }
        }
    }
    io::close(dir);
    Ok(found)
}

/// Waits until a driver has made a device node.
pub(crate) fn await_node(path: &CStr) -> Result<(), Errno> {
    await_name(|| Ok(fs::exists(path)))
}

/// Looks again whenever a name appears in /dev, until it is there.
fn await_name(mut is_there: impl FnMut() -> Result<bool, Errno>) -> Result<(), Errno> {
    if is_there()? {
        return Ok(());
    }
    let names = io::watch_names(c"/dev")?;
    let mut events = [0_u8; 4096];
    // Looked at again after the watch is set: what appears later wakes the read.
    while !is_there()? {
        io::read(names, &mut events)?;
    }
    io::close(names);
    Ok(())
}

/// Waits until the host has opened its side of a port.
fn await_host(fd: Fd) -> Result<(), Errno> {
    let events = io::watch_edges(fd)?;
    while io::next_edge(events)? & u32::from(io::HUP.unsigned_abs()) != 0 {}
    io::close(events);
    Ok(())
}
