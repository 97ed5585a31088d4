//! One cgroup for each instance: its limits, its memory charge, its end.
//!
//! On v2 the child is cloned into the cgroup. On v1 the child moves itself by writing `0` to each hierarchy's `tasks`:
//! the kernel takes no global lock for a thread that moves itself, while a write of another process's number to
//! `cgroup.procs` waits for a grace period (9 ms against 0.04 ms where this was measured).
//!
//! The directory is called `isolab-<pid>-<start time>-<pid namespace>-<n>` after the process that made it, so that
//! [`stale`] can tell which ones have lost their owner.

mod host;
mod kill;
mod reading;
mod settle;
pub mod stale;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

pub use host::{Controller, Offer, offers};
pub(crate) use host::{Host, Place};
pub use reading::MemoryReading;
#[cfg(any(test, fuzzing))]
pub(crate) use reading::kernel_parts;
pub(crate) use reading::slurp;

/// How long the end of killed processes may take before [`Cgroup::remove`] gives up.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
const PERIOD_US: u64 = 100_000;

/// Limits to enforce; nothing: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, kernel memory included, in bytes; swap is then refused.
    pub memory_bytes: Option<u64>,
    /// CPU time in whole CPUs.
    pub cpus: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

impl Limits {
    fn wants(&self, controller: Controller) -> bool {
        match controller {
            Controller::Memory => self.memory_bytes.is_some(),
            Controller::Cpu => self.cpus.is_some(),
            Controller::Pids => self.pids.is_some(),
        }
    }
}

/// A step with a cgroup that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The list of mounts or of our own cgroups.
    #[error("read {path}")]
    Discover {
        /// Which list.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// No hierarchy that we may use has the controller.
    #[error("the {controller} limit can't be enforced: {reason}")]
    NotEnforceable {
        /// Which limit.
        controller: Controller,
        /// Why.
        reason: String,
    },
    /// The instance's directory.
    #[error("make cgroup {}", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A limit was not accepted.
    #[error("set the {controller} limit {} to {value}", path.display())]
    Set {
        /// Which limit.
        controller: Controller,
        /// Its file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why not.
        source: io::Error,
    },
    /// A limit was accepted and is another one.
    #[error("the {controller} limit {} is {found} after {value} was written", path.display())]
    Differs {
        /// Which limit.
        controller: Controller,
        /// Its file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// What it holds.
        found: String,
    },
    /// A control file.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This thread, a guest of the cgroup for a moment, stays in it.
    #[error("move back to {}", path.display())]
    Return {
        /// Where it belongs.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Processes did not end, or the directory stays.
    #[error("remove cgroup {}", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// One directory in one hierarchy.
#[derive(Debug)]
struct Part {
    version: Version,
    controllers: Vec<Controller>,
    dir: PathBuf,
    /// v2: the directory, for `CLONE_INTO_CGROUP`; v1: its `tasks`, open for writing.
    entrance: OwnedFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// An instance's cgroup; dropped, its processes are killed and it is removed.
#[derive(Debug)]
pub struct Cgroup {
    parts: Vec<Part>,
}

/// What is known before a cgroup is made.
#[derive(Debug)]
pub struct CgroupPlan {
    host: Host,
    limits: Limits,
}

impl CgroupPlan {
    /// Looks where this host has which controller.
    ///
    /// # Errors
    /// The list of mounts or of our own cgroups can't be read.
    pub fn new(limits: &Limits) -> Result<Self, CgroupError> {
        Ok(Self { host: Host::discover()?, limits: *limits })
    }

    /// Whether a process gets into a part of it by `clone3` only, so that it must be made before.
    pub(crate) fn joined_by_clone(&self) -> bool {
        Controller::ALL.iter().any(|&controller| self.uses(controller) && self.host.is_v2(controller))
    }

    /// The memory controller also gives the charge, so it is used where it is there.
    fn uses(&self, controller: Controller) -> bool {
        controller == Controller::Memory || self.limits.wants(controller)
    }

    /// Makes the cgroup with the limits, each read back. Without any limit, and where the host has no usable memory
    /// controller, there is nothing to make.
    ///
    /// # Errors
    /// A limit that can't be enforced; nothing is left behind.
    pub fn create(&self) -> Result<Option<Cgroup>, CgroupError> {
        let name =
            stale::own_name().map_err(|source| CgroupError::Discover { path: "/proc/self", source })?;
        let mut cgroup = Cgroup { parts: Vec::new() };
        for controller in Controller::ALL.into_iter().filter(|&controller| self.uses(controller)) {
            match cgroup.add(&self.host, controller, &name) {
                Err(e) if self.limits.wants(controller) => return Err(e),
                Err(_) | Ok(()) => {}
            }
        }
        for controller in Controller::ALL {
            cgroup.limit(controller, &self.limits)?;
        }
        Ok(if cgroup.parts.is_empty() { None } else { Some(cgroup) })
    }
}

impl Cgroup {
    /// Makes a cgroup: [`CgroupPlan::create`].
    ///
    /// # Errors
    /// A limit that can't be enforced; nothing is left behind.
    pub fn create(limits: &Limits) -> Result<Option<Self>, CgroupError> {
        CgroupPlan::new(limits)?.create()
    }

    fn add(&mut self, host: &Host, controller: Controller, name: &str) -> Result<(), CgroupError> {
        let places = host.places(controller)?;
        let mut first = None;
        for place in places {
            match self.add_at(&place, controller, name) {
                Ok(()) => return Ok(()),
                Err(e) => {
                    first.get_or_insert(e);
                }
            }
        }
        Err(first.unwrap_or_else(|| host.missing(controller)))
    }

    fn add_at(&mut self, place: &Place<'_>, controller: Controller, name: &str) -> Result<(), CgroupError> {
        let dir = place.base.join(name);
        if let Some(part) = self.parts.iter_mut().find(|part| part.dir == dir) {
            place.enable(controller)?;
            part.controllers.push(controller);
            return Ok(());
        }
        let fail = |source: Errno| CgroupError::Create { path: dir.clone(), source: source.into() };
        if place.version() == Version::V2 {
            place.enable(controller)?;
        }
        rustix::fs::mkdir(&dir, Mode::from_raw_mode(0o755)).map_err(fail)?;
        let opened = match place.version() {
            Version::V1 => open(dir.join("tasks"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()),
            Version::V2 => open(&dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()),
        };
        match opened {
            Ok(entrance) => {
                let version = place.version();
                self.parts.push(Part { version, controllers: vec![controller], dir, entrance });
                Ok(())
            }
            Err(e) => {
                let _ = fs::remove_dir(&dir);
                Err(fail(e))
            }
        }
    }

    fn part(&self, controller: Controller) -> Option<&Part> {
        self.parts.iter().find(|part| part.controllers.contains(&controller))
    }

    fn limit(&self, controller: Controller, limits: &Limits) -> Result<(), CgroupError> {
        let Some(part) = self.part(controller) else { return Ok(()) };
        match controller {
            Controller::Memory => limits.memory_bytes.map_or(Ok(()), |bytes| part.limit_memory(bytes)),
            Controller::Cpu => limits.cpus.map_or(Ok(()), |cpus| part.limit_cpu(cpus)),
            Controller::Pids => {
                limits.pids.map_or(Ok(()), |pids| part.set(controller, "pids.max", &pids.to_string()))
            }
        }
    }

    /// The v2 directory to clone into.
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.parts.iter().find(|part| part.version == Version::V2).map(|part| part.entrance.as_fd())
    }

    /// Files of the v1 parts through which a process joins them ([`join`]).
    pub(crate) fn entrances(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.parts.iter().filter(|part| part.version == Version::V1).map(|part| part.entrance.as_fd())
    }

    /// Directories of the instance, one for each hierarchy.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.dir.as_path())
    }

    /// Kills every process in it, until there is none.
    ///
    /// # Errors
    /// Processes that are still there after five seconds.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        match self.parts.iter().find(|part| part.version == Version::V2).or_else(|| self.parts.first()) {
            Some(part) => {
                if let Some(pids) = self.part(Controller::Pids)
                    && pids.version == Version::V1
                {
                    // No new processes while the loop runs, so that it ends.
                    let _ = fs::write(pids.dir.join("pids.max"), "0");
                }
                kill::kill_all(&part.dir, REMOVE_TIMEOUT)
            }
            None => Ok(()),
        }
    }

    /// Removes it once its processes are gone.
    ///
    /// # Errors
    /// A part that stays.
    pub fn remove(mut self) -> Result<(), CgroupError> {
        self.remove_parts()
    }

    fn remove_parts(&mut self) -> Result<(), CgroupError> {
        let mut result = Ok(());
        for part in self.parts.drain(..) {
            let removed = kill::remove(&part.dir, REMOVE_TIMEOUT);
            if result.is_ok() {
                result = removed;
            }
        }
        result
    }
}

/// *Child*: moves the calling process, of one thread, through such a file.
pub(crate) fn join(entrance: &OwnedFd) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::io::write(entrance, b"0")).map(drop)
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.remove_parts();
    }
}

impl Part {
    /// Writes a limit and reads it back.
    fn set(&self, controller: Controller, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.dir.join(file);
        let mut text = [0; 64];
        let opened = File::options().read(true).write(true).open(&path);
        let read_back = opened.and_then(|mut file| {
            file.write_all(value.as_bytes())?;
            file.read_at(&mut text, 0)
        });
        let found = match read_back {
            Ok(n) => String::from_utf8_lossy(&text[..n]),
            Err(source) => {
                return Err(CgroupError::Set { controller, path, value: value.to_owned(), source });
            }
        };
        if found.trim_end() == value {
            return Ok(());
        }
        let (value, found) = (value.to_owned(), found.trim_end().to_owned());
        Err(CgroupError::Differs { controller, path, value, found })
    }

    fn limit_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        // The kernel counts in pages.
        let value = (bytes & !0xfff).to_string();
        let (limit, swap, no_swap) = match self.version {
            Version::V1 => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", value.as_str()),
            Version::V2 => ("memory.max", "memory.swap.max", "0"),
        };
        self.set(Controller::Memory, limit, &value)?;
        if self.dir.join(swap).exists() {
            self.set(Controller::Memory, swap, no_swap)?;
        } else if host::has_swap() {
            return Err(CgroupError::NotEnforceable {
                controller: Controller::Memory,
                reason: "the kernel does not account swap (boot it with swapaccount=1, or turn swap off)"
                    .into(),
            });
        }
        if self.version == Version::V2 {
            // The whole instance ends, never one process of it. Kernels before 4.19 have no such file.
            let _ = fs::write(self.dir.join("memory.oom.group"), "1");
        }
        Ok(())
    }

    fn limit_cpu(&self, cpus: u32) -> Result<(), CgroupError> {
        let quota = u64::from(cpus) * PERIOD_US;
        match self.version {
            Version::V1 => {
                self.set(Controller::Cpu, "cpu.cfs_period_us", &PERIOD_US.to_string())?;
                self.set(Controller::Cpu, "cpu.cfs_quota_us", &quota.to_string())
            }
            Version::V2 => self.set(Controller::Cpu, "cpu.max", &format!("{quota} {PERIOD_US}")),
        }
    }
}
