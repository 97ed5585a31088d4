//! Ending all processes of a cgroup, and the cgroup.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::CgroupError;
use super::reading::{field, read};

/// Kills until no process is left.
pub(super) fn kill_all(dir: &Path, timeout: Duration) -> Result<(), CgroupError> {
    let deadline = Instant::now() + timeout;
    loop {
        // One write kills all, race-free, since 5.14 on v2.
        let at_once = fs::write(dir.join("cgroup.kill"), "1").is_ok();
        let mut targets = Vec::new();
        for pid in members(dir)? {
            let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            targets.push((pid, fd));
        }
        // A number may have been given to a stranger between list and open: the second list tells.
        let still = members(dir)?;
        targets.retain(|(pid, _)| still.contains(pid));
        if targets.is_empty() && still.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let source = io::Error::from(io::ErrorKind::TimedOut);
            return Err(CgroupError::Remove { path: dir.to_owned(), source });
        }
        for (_, fd) in &targets {
            if !at_once {
                let _ = pidfd_send_signal(fd, Signal::KILL);
            }
        }
        for (_, fd) in &targets {
            wait_for(fd, PollFlags::IN, deadline);
        }
    }
}

/// Processes in the cgroup that our pid namespace can name.
fn members(dir: &Path) -> Result<Vec<Pid>, CgroupError> {
    let text = match read(&dir.join("cgroup.procs")) {
        Err(CgroupError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    Ok(text.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)).collect())
}

fn wait_for(fd: &OwnedFd, flags: PollFlags, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).ok();
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), flags)], timeout.as_ref());
}

/// Removes the directory; processes that are still in it are killed.
pub(super) fn remove(dir: &Path, timeout: Duration) -> Result<(), CgroupError> {
    let deadline = Instant::now() + timeout;
    loop {
        let error = match rustix::fs::rmdir(dir) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(e) => e,
        };
        if error != Errno::BUSY || Instant::now() >= deadline {
            return Err(CgroupError::Remove { path: dir.to_owned(), source: error.into() });
        }
        kill_all(dir, deadline.saturating_duration_since(Instant::now()))?;
        wait_unpopulated(dir, deadline);
    }
}

/// Dead processes may be counted for a moment longer. v2 has an event for that; v1 has none, so its waits are short.
fn wait_unpopulated(dir: &Path, deadline: Instant) {
    let events = dir.join("cgroup.events");
    let Ok(fd) = open(&events, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        std::thread::sleep(Duration::from_micros(200));
        return;
    };
    while Instant::now() < deadline {
        match read(&events).ok().and_then(|text| field(&text, "populated")) {
            Some(1) => {
                wait_for(&fd, PollFlags::PRI, deadline.min(Instant::now() + Duration::from_millis(100)))
            }
            _ => return,
        }
    }
}
