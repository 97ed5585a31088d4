//! A trace of its own in the kernel (kernel doc: trace/ftrace, "Instances"; trace/events).

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::process::{Pid, test_kill_process};

const TRACEFS: &str = "/sys/kernel/tracing";
const PREFIX: &str = "isolab-surface-";
/// Room for the events of one run on each processor, in KiB.
const BUFFER_KIB: u32 = 16 << 10;
/// What is traced. Those of KVM are there where its module is loaded.
const EVENTS: [&str; 7] = [
    "task/task_newtask",
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "kvm/kvm_exit",
    "kvm/kvm_userspace_exit",
    "kvm/kvm_pio",
    "kvm/kvm_mmio",
];

/// The instance; it goes away with this value.
#[derive(Debug)]
pub(super) struct Instance {
    dir: PathBuf,
    /// An open file of it, which keeps others from removing it: process numbers of another namespace tell them nothing.
    in_use: Option<File>,
}

impl Instance {
    /// Makes it, switched off.
    ///
    /// # Errors
    /// There is no tracefs, or it may not be used.
    pub(super) fn new() -> anyhow::Result<Self> {
        let instances = Path::new(TRACEFS).join("instances");
        if !instances.is_dir() {
            bail!(
                "the kernel's trace can't be used: {TRACEFS} is not mounted, or not open to this user; be root and mount -t tracefs \
                 tracefs {TRACEFS}, or use --on lab"
            );
        }
        for path in stale() {
            remove(&path).context("remove the trace that an isolab left")?;
        }
        let dir = instances.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&dir).context("make a trace of our own; this needs root")?;
        let in_use = Some(File::open(dir.join("trace_pipe")).context("hold our own trace open")?);
        let instance = Self { dir, in_use };
        instance.set("trace_clock", "mono")?;
        instance.set("buffer_size_kb", &BUFFER_KIB.to_string())?;
        instance.set("options/event-fork", "1")?;
        Ok(instance)
    }

    /// Traces this thread and all that it starts from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn start(&self) -> anyhow::Result<()> {
        self.set("trace", "")?;
        // First: with an empty list the whole machine would be recorded.
        self.set("set_event_pid", &rustix::thread::gettid().as_raw_nonzero().to_string())?;
        self.switch(true)
    }

    /// Stops, and gives what was recorded.
    ///
    /// # Errors
    /// Events were lost: then no number of this trace is right.
    pub(super) fn stop(&self) -> anyhow::Result<String> {
        self.stop_without_text()?;
        let bytes = fs::read(self.dir.join("trace")).context("read the trace")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Stops; what was recorded stays in the buffers.
    ///
    /// # Errors
    /// Events were lost.
    pub(super) fn stop_without_text(&self) -> anyhow::Result<()> {
        self.switch(false)?;
        self.set("set_event_pid", "")?;
        for cpu in fs::read_dir(self.dir.join("per_cpu")).context("read the trace")? {
            let stats = fs::read_to_string(cpu?.path().join("stats")).context("read the trace")?;
            if lost(&stats) > 0 {
                bail!(
                    "the workload passes more of the kernel than the kernel's trace holds ({BUFFER_KIB} KiB for each processor): \
                     give it less to do"
                );
            }
        }
        Ok(())
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn switch(&self, on: bool) -> anyhow::Result<()> {
        // The end of a call is recorded only while its beginning is: without it, it would be one that was refused.
        let order: Vec<&str> = if on { EVENTS.into() } else { EVENTS.into_iter().rev().collect() };
        for event in order {
            let file = format!("events/{event}/enable");
            if self.dir.join(&file).exists() || !event.starts_with("kvm/") {
                self.set(&file, if on { "1" } else { "0" })?;
            }
        }
        Ok(())
    }

    /// Sets a file of it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        fs::write(self.dir.join(file), value).with_context(|| format!("set {file} of the kernel's trace"))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // One that stays is removed by the next run, or by `isolab gc`.
        let _ = self.switch(false);
        drop(self.in_use.take());
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Events that were lost, by the statistics of one processor's buffer.
fn lost(stats: &str) -> u64 {
    let fields = stats.lines().filter_map(|line| line.split_once(": "));
    let of_loss = |key: &str| matches!(key, "overrun" | "commit overrun" | "dropped events");
    fields.filter(|(key, _)| of_loss(key)).filter_map(|(_, n)| n.trim().parse::<u64>().ok()).sum()
}

/// Traces of isolabs that are gone.
pub(crate) fn stale() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(Path::new(TRACEFS).join("instances")) else { return Vec::new() };
    let gone = |path: &PathBuf| {
        let pid = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
        let alive = test_kill_process(Pid::from_raw(pid)?);
        (alive == Err(rustix::io::Errno::SRCH)).then_some(())
    };
    entries.flatten().map(|entry| entry.path()).filter(|path| gone(path).is_some()).collect()
}

/// Removes one of [`stale`]; false: it is in use after all.
///
/// # Errors
/// It can't be removed for another reason.
pub(crate) fn remove(path: &Path) -> std::io::Result<bool> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(false),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_each_kind_count() {
        let stats =
            "entries: 7\noverrun: 1\ncommit overrun: 2\nbytes: 9\ndropped events: 4\nread events: 0\n";
        assert_eq!(lost(stats), 7);
        assert_eq!(lost("entries: 7\noverrun: 0\n"), 0);
    }
}
