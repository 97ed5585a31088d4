//! Facts of this host that no single line of a file tells.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use isolab_bench::environment::ClockKind;
use isolab_container::root::mount_erofs;
use rustix::fs::{fstat, major, minor};

use super::load;
use crate::compare;

/// Facts of the host that are in no single line of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct HostTruth {
    pub(super) release: String,
    /// Sources of its mounts that are devices, without that of images.
    pub(super) sources: Vec<String>,
    /// Names of `/sys/block` and of the ids of disks.
    pub(super) blocks: String,
    pub(super) disk_ids: String,
    /// Links of `/proc/self/ns`.
    pub(super) namespaces: BTreeMap<String, String>,
    pub(super) hypervisor: Option<String>,
    /// Its network interfaces but loopback.
    pub(super) interfaces: String,
    /// Whether its kernel merges pages that are alike: what the switch says.
    pub(super) merging: String,
    /// The load that is made on it.
    pub(super) load: load::Plan,
    /// A mount of the image that isolab holds; nothing without root.
    pub(super) image: Option<OwnImage>,
}

/// The image, mounted by isolab itself as the levels do it, for as long as this is there: another instance.
#[derive(Clone, Debug)]
pub(super) struct OwnImage {
    /// Numbers of its file system's device.
    pub(super) device: String,
    /// The image is a disk of this machine.
    pub(super) is_disk: bool,
    _mount: Arc<OwnedFd>,
}

impl OwnImage {
    fn mount(image: &File) -> Option<Self> {
        let mount = mount_erofs(image).ok()?;
        let device = fstat(&mount).ok()?.st_dev;
        Some(Self {
            device: format!("{}:{}", major(device), minor(device)),
            is_disk: image.metadata().is_ok_and(|meta| meta.file_type().is_block_device()),
            _mount: Arc::new(mount),
        })
    }
}

/// Reads them.
pub(super) fn read(image: &File) -> HostTruth {
    let names = |dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names.join(" ")
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let source = |line: &str| {
        let (fs, rest) = line.split_once(" - ")?.1.split_once(' ')?;
        let source = rest.split(' ').next()?;
        (fs != "erofs" && source.starts_with("/dev/")).then(|| source.to_owned())
    };
    let mut sources: Vec<String> = mounts.lines().filter_map(source).collect();
    sources.sort_unstable();
    sources.dedup();
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let link = |kind: &str| {
        let id = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
        Some((format!("{kind} namespace"), id.to_string_lossy().into_owned()))
    };
    HostTruth {
        load: load::plan(compare::class().1 == ClockKind::Instructions),
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        sources,
        blocks: names("/sys/block"),
        disk_ids: names("/dev/disk/by-uuid"),
        interfaces: interfaces(),
        namespaces: kinds.into_iter().filter_map(link).collect(),
        hypervisor: hypervisor(),
        merging: fs::read_to_string("/sys/kernel/mm/ksm/run").unwrap_or_default().trim().to_owned(),
        image: OwnImage::mount(image),
    }
}

/// Network interfaces of this host but loopback.
fn interfaces() -> String {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.filter(|name| *name != "lo").collect::<Vec<_>>().join(" ")
}

/// Which hypervisor the processor names.
fn hypervisor() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    if __cpuid(1).ecx >> 31 == 0 {
        return Some("none".to_owned());
    }
    let leaf = __cpuid(0x4000_0000);
    let bytes: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx].into_iter().flat_map(u32::to_le_bytes).collect();
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
}
