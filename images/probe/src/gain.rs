//! P09: rights that a program gains when it is executed. The file is this program itself, which loses its name before it gets
//! the bit or the capability: nobody else can ever execute it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::time::Duration;

use crate::out::Out;
use crate::protocol::{Found, Spec};
use crate::sys::{self, Ended};

/// The argument with which this program tells what it gained.
pub(crate) const ARGUMENT: &str = "gained";
/// Part of that status, so that it is no other program's.
const MARK: u8 = 0x40;
const USER: u8 = 1;
const CAPABILITY: u8 = 2;
/// Whom the file is executed by, where this process may become him: nobody.
const NOBODY: usize = 65534;
const LIMIT: Duration = Duration::from_secs(3);

/// What the file has.
#[derive(Clone, Copy, Debug)]
enum Gift {
    /// Owned by root and set-user-id.
    SetUser,
    /// A file capability, in force at once.
    Capability,
}

/// P09: where a file can be made, and on a mount without the level's own flags.
pub(crate) fn rights(_: &Spec, out: &Out<'_>) {
    for dir in ["/tmp", "/dev/shm"] {
        both(out, dir, dir);
    }
    const NEW_MOUNT_NAMESPACE: usize = 0x2_0000;
    let ended = sys::in_child(LIMIT * 3, || {
        if let Err(errno) = sys::call(272, &[NEW_MOUNT_NAMESPACE]) {
            return -i64::from(errno);
        }
        match own_mount() {
            Ok(dir) => both(out, &dir, "a mount of its own"),
            Err((errno, step)) => out.error("a mount of its own", errno, step),
        }
        0
    });
    if ended != Ended::Value(0) {
        out.call("a mount of its own", 272, &[NEW_MOUNT_NAMESPACE], ended);
    }
}

/// A tmpfs that nobody else sees, with no flag at all.
fn own_mount() -> Result<String, (i32, &'static str)> {
    const PRIVATE_BELOW: usize = 0x4_4000;
    let (root, dir, tmpfs) = (sys::path("/"), sys::path("/tmp"), sys::path("tmpfs"));
    let [root, at, fs_name] = [&root, &dir, &tmpfs].map(|text| text.as_ptr().expose_provenance());
    sys::call(165, &[0, root, 0, PRIVATE_BELOW, 0]).map_err(|errno| (errno, "no mount table of its own"))?;
    sys::call(165, &[fs_name, at, fs_name, 0, 0]).map_err(|errno| (errno, "no mount"))?;
    Ok("/tmp".to_owned())
}

fn both(out: &Out<'_>, dir: &str, name: &str) {
    for (gift, what) in [(Gift::SetUser, "set-user-id"), (Gift::Capability, "file capability")] {
        let item = format!("{what} on {name}");
        match file(dir, gift) {
            Ok(file) => told(out, &item, execute(&file)),
            Err((error, step)) => out.io(&item, &error, step),
        }
    }
}

/// This program in a file without a name, with the gift.
fn file(dir: &str, gift: Gift) -> Result<File, (io::Error, &'static str)> {
    let at = |step| move |error| (error, step);
    let program = fs::read("/proc/self/exe").map_err(at("its program can't be read"))?;
    let path = format!("{dir}/.isolab-probe-{}", std::process::id());
    let mut new = File::options()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(&path)
        .map_err(at("no file can be made"))?;
    let file = new.write_all(&program).and_then(|()| File::open(&path));
    let _ = fs::remove_file(&path);
    // One that is open for writing is not executed.
    drop(new);
    let file = file.map_err(at("no file can be written"))?;
    let fd = file.as_raw_fd() as usize;
    let call = |number, args: &[usize], step| {
        sys::call(number, args).map_err(|errno| (io::Error::from_raw_os_error(errno), step))
    };
    match gift {
        Gift::SetUser => {
            call(93, &[fd, 0, 0], "it can't be given to root")?;
            call(91, &[fd, 0o4755], "it can't be set-user-id")?;
        }
        Gift::Capability => {
            call(91, &[fd, 0o755], "it can't be executable")?;
            // `struct vfs_cap_data`: second revision and effective; CAP_CHOWN permitted.
            let value = [0x0200_0001_u32, 1, 0, 0, 0];
            let name = sys::path("security.capability");
            let (name, value) = (name.as_ptr().expose_provenance(), sys::address(&value));
            call(190, &[fd, name, value, 20, 0], "it can't have a capability")?;
        }
    }
    Ok(file)
}

/// Executes it as nobody, or as whoever this process can't help being.
fn execute(file: &File) -> Ended {
    const EMPTY_PATH: usize = 0x1000;
    sys::in_child(LIMIT, || {
        let _ = sys::call(116, &[0, 0]);
        let _ = sys::call(119, &[NOBODY; 3]);
        let _ = sys::call(117, &[NOBODY; 3]);
        let words = ["isolab-probe", ARGUMENT, &permitted().unwrap_or_default().to_string()].map(sys::path);
        let [name, argument, before] = words.each_ref().map(|word| word.as_ptr().expose_provenance());
        let (list, environment, empty) = ([name, argument, before, 0], [0_usize], sys::path(""));
        let path = empty.as_ptr().expose_provenance();
        let args =
            [file.as_raw_fd() as usize, path, sys::address(&list), sys::address(&environment), EMPTY_PATH];
        sys::call(322, &args).map_or_else(|errno| -i64::from(errno), |_| 0)
    })
}

fn told(out: &Out<'_>, item: &str, ended: Ended) {
    let status = match ended {
        Ended::Value(status) if status < 0 => {
            let errno = i32::try_from(-status).unwrap_or(libc::EIO);
            return out.error(item, errno, "it can't be executed");
        }
        Ended::Value(status) => u8::try_from(status).unwrap_or(0),
        ended => return out.say(item, Found::Unknown, &format!("{ended:?}")),
    };
    match (status & MARK != 0, status & USER != 0, status & CAPABILITY != 0) {
        (false, ..) => out.say(item, Found::Unknown, &format!("it ended with {status}")),
        (true, false, false) => out.hidden(item, "it ran with the rights of who executed it"),
        (true, true, _) => out.reached(item, "it ran as another user"),
        (true, false, true) => out.reached(item, "it ran with a capability"),
    }
}

/// A line of the own status.
fn own(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The permitted capabilities.
fn permitted() -> Option<u64> {
    u64::from_str_radix(&own("CapPrm")?, 16).ok()
}

/// In the executed file: what it has that who executed it had not.
pub(crate) fn tell() -> ExitCode {
    let before = std::env::args().nth(2).and_then(|word| word.parse::<u64>().ok());
    let users = own("Uid").unwrap_or_default();
    let mut users = users.split_whitespace();
    let (Some(before), Some(now), Some(real), Some(effective)) =
        (before, permitted(), users.next(), users.next())
    else {
        return ExitCode::FAILURE;
    };
    let user = if real == effective { 0 } else { USER };
    let capability = if now & !before == 0 { 0 } else { CAPABILITY };
    ExitCode::from(MARK | user | capability)
}
