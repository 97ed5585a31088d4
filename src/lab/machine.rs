//! The lab machine: a QEMU process with a software CPU, its drives and ports handed in as open descriptors.
//!
//! Nothing of it has a name in the file system: initramfs, sockets and image files are inherited descriptors, so there is
//! nothing to remove afterwards, however isolab ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context, Result, bail};
use isolab_vmm::host_tsc_khz;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::protocol::port;

/// QEMU's program; Debian has it in `qemu-system-x86`.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// Name (argument 0) under which isolab starts QEMU so that it dies with isolab.
pub(crate) const LAUNCHER: &str = "isolab-lab-machine";

/// The microvm has 24 virtio-mmio slots; the ports and the random number device take two.
pub(crate) const MAX_IMAGES: usize = 20;

/// The lab kernel's command line: constants only.
///
/// * `console=ttyS0 quiet`: warnings reach our log, the rest would cost time on the serial line;
/// * `panic=-1`: a panic ends the machine at once (with QEMU's `-no-reboot`);
/// * `nokaslr`, `norandmaps`: the same addresses, and so the same instructions, in each run: how many pages and page tables
///   a process touches depends on where its mappings lie;
/// * `cgroup_no_v1=all`: one hierarchy with all controllers, on kernels before 6.12, too.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 nokaslr norandmaps cgroup_no_v1=all";

/// With counted instructions, QEMU's TSC counts nanoseconds.
const COUNTED_TSC_KHZ: u64 = 1_000_000;

/// The lab's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LabClock {
    /// Counts instructions, 2 ns each: exact, one CPU.
    Instructions,
    /// The host's clock.
    Wall,
}

/// What the machine is made of.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a [u8],
    pub(crate) images: &'a [File],
    pub(crate) clock: LabClock,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    /// Where every random number that the machine gets comes from.
    pub(crate) seed: Option<u64>,
}

/// A running machine. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct RunningMachine {
    child: Child,
    ended: OwnedFd,
    /// Our ends of the ports, in the order of [`port::ALL`].
    pub(crate) ports: Vec<UnixStream>,
    /// The kernel's console.
    pub(crate) console: UnixStream,
    /// QEMU's monitor, until the watchdog takes it.
    pub(crate) monitor: Option<UnixStream>,
    /// QEMU's own messages.
    pub(crate) messages: Option<ChildStderr>,
    /// What its clock counts.
    pub(crate) clock: LabClock,
}

impl Machine<'_> {
    /// Starts QEMU.
    pub(crate) fn start(&self) -> Result<RunningMachine> {
        let qemu = find_qemu()?;
        let kernel = open(self.kernel)?;
        let initramfs = memfd(self.initramfs).context("put the lab's initramfs into memory")?;
        let mut theirs = Vec::new();
        let mut ports = Vec::new();
        for _ in port::ALL {
            let (ours, lab) = UnixStream::pair().context("create a socket pair for a lab port")?;
            ours.set_nonblocking(true).context("prepare a lab port")?;
            ports.push(ours);
            theirs.push(lab);
        }
        let (console, lab_console) = UnixStream::pair().context("create the lab's console")?;
        console.set_nonblocking(true).context("prepare the lab's console")?;
        let (monitor, lab_monitor) = UnixStream::pair().context("create the lab's monitor")?;
        monitor.set_nonblocking(true).context("prepare the lab's monitor")?;
        let images: Vec<BorrowedFd<'_>> = self.images.iter().map(AsFd::as_fd).collect();
        let inherited = [kernel.as_fd(), initramfs.as_fd(), lab_console.as_fd(), lab_monitor.as_fd()]
            .into_iter()
            .chain(theirs.iter().map(AsFd::as_fd))
            .chain(images.iter().copied());
        for fd in inherited {
            fcntl_setfd(fd, FdFlags::empty()).context("hand a descriptor to the lab")?;
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg0(LAUNCHER).arg(std::process::id().to_string()).arg(&qemu);
        command.args(self.arguments(&kernel, &initramfs, [&lab_console, &lab_monitor], &theirs));
        // Ctrl-C is for us: we tell the lab.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = command.spawn();
        for image in &images {
            fcntl_setfd(image, FdFlags::CLOEXEC).context("take back a descriptor")?;
        }
        let mut child = started.with_context(|| format!("start {}", qemu.display()))?;
        let ended = pidfd(&child).inspect_err(|_| drop(child.kill()))?;
        let messages = child.stderr.take();
        Ok(RunningMachine {
            child,
            ended,
            ports,
            console,
            monitor: Some(monitor),
            messages,
            clock: self.clock,
        })
    }

    fn arguments(
        &self,
        kernel: &File,
        initramfs: &OwnedFd,
        [console, monitor]: [&UnixStream; 2],
        ports: &[UnixStream],
    ) -> Vec<OsString> {
        let fd = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut args: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
        // Without XSAVE: TCG does not intercept XSETBV, and guests find their own state inconsistent.
        add(&["-accel", "tcg", "-cpu", "EPYC,+svm,-xsave", "-M", self.board(), "-rtc", "clock=vm"]);
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // What runs inside is not trusted, and this is the process between it and the host.
        add(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
        add(&["-m", &format!("{}M", self.memory_mib), "-smp", &self.cpus.to_string()]);
        if self.clock == LabClock::Instructions {
            add(&["-icount", "shift=1,sleep=off"]);
        }
        if let Some(seed) = self.seed {
            add(&["-seed", &seed.to_string()]);
        }
        add(&["-kernel", &fd(kernel.as_fd()), "-initrd", &fd(initramfs.as_fd())]);
        add(&["-append", &self.command_line()]);
        add(&["-chardev", &format!("socket,id=console,fd={}", console.as_raw_fd())]);
        add(&["-serial", "chardev:console"]);
        add(&["-chardev", &format!("socket,id=monitor,fd={}", monitor.as_raw_fd())]);
        add(&["-mon", "chardev=monitor,mode=readline"]);
        let bus = self.bus();
        add(&["-device", &format!("virtio-rng-{bus}")]);
        add(&["-device", &format!("virtio-serial-{bus},max_ports=8")]);
        for (number, socket) in port::ALL.iter().zip(ports) {
            add(&["-chardev", &format!("socket,id=p{number},fd={}", socket.as_raw_fd())]);
            add(&["-device", &format!("virtserialport,nr={number},chardev=p{number}")]);
        }
        for (index, image) in self.images.iter().enumerate() {
            let file = fd(image.as_fd());
            let name = drive_name(index);
            // No lock on the file: the store's files are never changed, and other labs read them, too.
            let node = format!(
                "driver=raw,node-name={name},read-only=on,file.driver=file,file.filename={file},file.locking=off,file.read-only=on"
            );
            add(&["-blockdev", &node]);
            add(&["-device", &format!("virtio-blk-{bus},drive={name},serial={name}")]);
        }
        args.into_iter().map(OsString::from).collect()
    }

    /// The microvm starts fastest but has no clock to calibrate the TSC against on a busy host: fine where the
    /// frequency is known, and it is where the clock counts instructions.
    const fn board(&self) -> &'static str {
        match self.clock {
            LabClock::Instructions => "microvm,acpi=on",
            LabClock::Wall => "q35,usb=off,sata=off,smbus=off,vmport=off",
        }
    }

    const fn bus(&self) -> &'static str {
        match self.clock {
            LabClock::Instructions => "device",
            LabClock::Wall => "pci",
        }
    }

    fn command_line(&self) -> String {
        // Nothing is left to calibrate. Against emulated timers, on a busy host, a kernel finds a rate that is wrong by two thirds, and
        // KVM in it believes that: a guest's timers then come too early each time, and it does nothing else any more.
        let tsc_khz = match self.clock {
            LabClock::Instructions => COUNTED_TSC_KHZ,
            LabClock::Wall => host_tsc_khz(),
        };
        format!("{CMDLINE} tsc_early_khz={tsc_khz}")
    }
}

impl RunningMachine {
    /// Polls readable when QEMU has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Drop for RunningMachine {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serial number of an image's drive.
pub(crate) fn drive_name(index: usize) -> String {
    format!("image{index}")
}

/// What isolab does under the name [`LAUNCHER`]: becomes QEMU, which then dies with isolab.
///
/// Arguments: isolab's process id, the program, its arguments. Returns only with an error.
pub(crate) fn launch(mut args: impl Iterator<Item = OsString>) -> anyhow::Error {
    let mut prepare = || -> Result<Command> {
        let parent = args.next().context("no parent named")?;
        let program = args.next().context("no program named")?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .context("tie the lab machine to isolab")?;
        // isolab may have ended before the line above: then this process has another parent already.
        let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        if parent.to_str() != Some(now.to_string().as_str()) {
            bail!("isolab has ended");
        }
        let mut command = Command::new(program);
        command.args(&mut args);
        Ok(command)
    };
    match prepare() {
        Ok(mut command) => anyhow::Error::new(command.exec()).context("execute the lab machine"),
        Err(error) => error,
    }
}

/// Finds QEMU in the search path.
pub(crate) fn find_qemu() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(QEMU)).find(|file| file.is_file()).with_context(
        || {
            format!(
                "the lab needs {QEMU}, which is not installed: `isolab doctor --fix` installs it (Debian: apt-get install qemu-system-x86)"
            )
        },
    )
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("open the lab's kernel {}", path.display()))
}

fn memfd(content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("isolab-lab", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    Ok(file.into())
}

fn pidfd(child: &Child) -> Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("read QEMU's pid")?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("watch QEMU")
}
