//! The lab's system: root, mounts, modules, store view, ports.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isolab_images::kernels::KernelStore;
use rustix::fs::inotify;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::system::finit_module;
use rustix::time::{ClockId, Timespec, clock_settime};

use super::super::protocol::{HOME, JobImage, LabJob, port};
use super::ISOLAB;

/// Milliseconds that a port's driver may take between its node and the port.
const PORT_TRIES: u32 = 2000;
/// The new root while it is being made.
const ROOT: &str = "/root";

/// Makes the system; returns what did not work and is not needed by every command.
pub(super) fn set_up(job: &LabJob) -> Result<Vec<String>> {
    let mut warnings = load_modules(&memory_disks(&job.images)?)?;
    new_root()?;
    mounts()?;
    delegate_controllers()?;
    leave_room()?;
    dig_holes()?;
    let now = Timespec { tv_sec: i64::try_from(job.now_s).unwrap_or(0), tv_nsec: 0 };
    if let Err(errno) = clock_settime(ClockId::Realtime, now) {
        warnings.push(format!("set the clock: {errno}"));
    }
    rustix::system::sethostname(b"lab").context("set the host name")?;
    Ok(warnings)
}

/// Parameters of `brd`, the driver of disks in memory: their number and size (kernel doc: blockdev/ramdisk). They take no
/// memory before they are written.
fn memory_disks(images: &[JobImage]) -> Result<CString> {
    let sizes = || images.iter().filter_map(|image| image.to_memory);
    let kib = sizes().max().unwrap_or(0).div_ceil(4096) * 4;
    CString::new(format!("rd_nr={} rd_size={kib}", sizes().count())).context("describe disks in memory")
}

/// Loads `/modules` in the order of its names.
fn load_modules(brd: &CStr) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let entries = fs::read_dir("/modules").context("list the modules")?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .context("list the modules")?;
    paths.sort();
    for path in paths {
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let of_brd = path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b"-brd.ko"));
        match finit_module(&file, if of_brd { brd } else { c"" }, 0) {
            // kvm-amd refuses a CPU without SVM, and the rest of the lab works without it.
            Err(errno) if errno != rustix::io::Errno::EXIST => {
                warnings.push(format!("load {}: {errno}", path.display()));
            }
            _ => {}
        }
    }
    Ok(warnings)
}

/// A tmpfs as root in place of the initramfs, which can't be pivoted away from: containers need that.
fn new_root() -> Result<()> {
    mount("tmpfs", ROOT, "tmpfs", MountFlags::empty(), c"mode=0755,size=50%")
        .context("mount the lab's root")?;
    for dir in ["dev", "lab", "proc", "root", "run", "sys", "tmp", "var"] {
        let path = Path::new(ROOT).join(dir);
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
    }
    mount_bind("/lab", Path::new(ROOT).join("lab")).context("show /lab in the lab's root")?;
    let binary = Path::new(ROOT).join(ISOLAB.trim_start_matches('/'));
    File::create(&binary).context("create the place of isolab")?;
    mount_bind("/init", &binary).context("show isolab in the lab's root")?;
    std::env::set_current_dir(ROOT).context("enter the lab's root")?;
    mount_move(".", "/").context("move the lab's root")?;
    rustix::process::chroot(".").context("change to the lab's root")?;
    std::env::set_current_dir("/").context("enter the lab's root")
}

fn mounts() -> Result<()> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let table: [(&str, &str, MountFlags, &CStr); 8] = [
        ("proc", "/proc", quiet, c""),
        ("sysfs", "/sys", quiet, c""),
        ("tracefs", "/sys/kernel/tracing", quiet, c""),
        ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
        ("devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, c"ptmxmode=0666,mode=0620"),
        ("tmpfs", "/dev/shm", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", quiet, c"favordynmods"),
        ("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777"),
    ];
    for (kind, target, flags, data) in table {
        if !Path::new(target).is_dir() {
            fs::create_dir(target).with_context(|| format!("create {target}"))?;
        }
        mount(kind, target, kind, flags, data).with_context(|| format!("mount {target}"))?;
    }
    for (link, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let link = Path::new("/dev").join(link);
        match std::os::unix::fs::symlink(Path::new("/proc/self").join(target), &link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("create {}", link.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Offers every controller to child cgroups.
fn delegate_controllers() -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let controllers =
        fs::read_to_string(root.join("cgroup.controllers")).context("list cgroup controllers")?;
    for controller in controllers.split_whitespace() {
        fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("enable the cgroup controller {controller}"))?;
    }
    Ok(())
}

/// Leaves a hole in the kernel's per-CPU memory, as a machine has that has run for a while.
///
/// In a fresh one all that is free lies in one piece, and each allocation that takes from the largest piece has the whole map
/// searched anew (`pcpu_chunk_refresh_hint`): a start then takes up to a tenth longer, or not, depending on what was freed
/// before it. What twenty instances at once need (cgroup, mounts, network namespace: as much as twelve cgroups each) fits into the room of
/// these cgroups; the one that stays keeps it apart from the largest piece.
fn leave_room() -> Result<()> {
    const ROOM: usize = 240;
    let of = |name: String| Path::new("/sys/fs/cgroup").join(name);
    let gone: Vec<PathBuf> = (0..ROOM).map(|n| of(format!("lab-room-{n}"))).collect();
    let create = |path: &PathBuf| fs::create_dir(path).with_context(|| format!("create {}", path.display()));
    gone.iter().try_for_each(create)?;
    create(&of("lab-fence".to_owned()))?;
    gone.iter()
        .try_for_each(|path| fs::remove_dir(path).with_context(|| format!("remove {}", path.display())))
}

/// Gives the kernels the holes again that their files have in the store of the host: an initramfs has none.
fn dig_holes() -> Result<()> {
    let kernels = KernelStore::new(Path::new(HOME).join("kernels")).list().context("list the kernels")?;
    for kernel in kernels {
        let path = kernel.vmlinux().unwrap_or_else(|| kernel.kernel());
        let file = File::options().read(true).write(true).open(&path);
        let dug = file.and_then(|file| isolab_images::kernels::dig(&file));
        dug.with_context(|| format!("make holes in {}", path.display()))?;
    }
    Ok(())
}

/// Shows each image's drive, or its copy in memory, as the image's file in the store.
pub(super) fn place_images(images: &[JobImage]) -> Result<Option<String>> {
    if images.is_empty() {
        return Ok(None);
    }
    let (drives, mut warning) = (drives()?, None);
    let mut disks = (0..).map(|n| PathBuf::from(format!("/dev/ram{n}")));
    for image in images {
        let drive = drives.get(&image.drive).with_context(|| format!("drive {} is missing", image.drive))?;
        let disk = image.to_memory.and_then(|_| disks.next()).filter(|disk| disk.exists());
        if disk.is_none() && image.to_memory.is_some() {
            let why = "the lab's kernel has no disks in memory (brd), so that figures depend on how busy the host is";
            warning = Some(format!("{why}; `isolab kernel fetch` gets one that has"));
        }
        if let (Some(disk), Some(bytes)) = (&disk, image.to_memory) {
            copy(drive, disk, bytes).with_context(|| format!("copy {} into memory", image.digest))?;
        }
        super::store_view::place(Path::new(HOME), image, disk.as_ref().unwrap_or(drive))?;
    }
    Ok(warning)
}

/// Copies so many bytes, and has them written: what is left in the page cache of either side is not used again.
fn copy(drive: &Path, disk: &Path, bytes: u64) -> Result<()> {
    let mut to = File::options().write(true).open(disk)?;
    io::copy(&mut File::open(drive)?.take(bytes), &mut to)?;
    Ok(to.sync_all()?)
}

/// Block devices by serial number.
fn drives() -> Result<BTreeMap<String, PathBuf>> {
    let mut drives = BTreeMap::new();
    for entry in fs::read_dir("/sys/block").context("list drives")? {
        let name = entry.context("list drives")?.file_name();
        // Only virtio drives have this file.
        if let Ok(serial) = fs::read_to_string(Path::new("/sys/block").join(&name).join("serial")) {
            drives.insert(serial.trim().to_owned(), Path::new("/dev").join(&name));
        }
    }
    Ok(drives)
}

/// Opens all ports; they appear a moment after their driver.
pub(super) fn open_ports() -> Result<BTreeMap<u32, File>> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).context("watch for the ports")?;
    inotify::add_watch(&watch, "/dev", inotify::WatchFlags::CREATE).context("watch for the ports")?;
    let mut ports = BTreeMap::new();
    loop {
        for entry in fs::read_dir("/dev").context("look for the ports")? {
            let path = entry.context("look for the ports")?.path();
            if let Some(number) = port_number(&path)
                && port::ALL.contains(&number)
                && !ports.contains_key(&number)
            {
                let file = open_port(&path).with_context(|| format!("open {}", path.display()))?;
                ports.insert(number, file);
            }
        }
        if ports.len() == port::ALL.len() {
            return Ok(ports);
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&watch, &mut buffer);
        if let Err(errno) = reader.next() {
            bail!("wait for the ports: {errno}");
        }
    }
}

/// Opens a port. Its driver makes the node, and only some work later the port can be opened; for the end of that work
/// it has no event.
fn open_port(path: &Path) -> io::Result<File> {
    let busy = rustix::io::Errno::NXIO.raw_os_error();
    for _ in 0..PORT_TRIES {
        match File::options().read(true).write(true).open(path) {
            Err(error) if error.raw_os_error() == Some(busy) => thread::sleep(Duration::from_millis(1)),
            opened => return opened,
        }
    }
    Err(rustix::io::Errno::NXIO.into())
}

/// `/dev/vport0p3` is port 3.
fn port_number(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_prefix("vport")?;
    name.split_once('p')?.1.parse().ok()
}

/// Kills every process but this one.
pub(super) fn kill_all_others() {
    // From process 1, a signal to process -1 reaches all others. None left is fine.
    let _ = rustix::process::kill_process_group(rustix::process::Pid::INIT, rustix::process::Signal::KILL);
}
