//! The processor and the virtual machine, as they look from here.

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::files::{beginning, open};
use crate::out::Out;
use crate::protocol::Spec;
use crate::sys::{self, Ended, cpuid};

/// P02: which hypervisor the processor names.
pub(crate) fn hypervisor(_: &Spec, out: &Out<'_>) {
    let [_, _, features, _] = cpuid(1, 0);
    if features >> 31 == 0 {
        return out.told("signature", "none");
    }
    let [_, b, c, d] = cpuid(0x4000_0000, 0);
    let bytes: Vec<u8> = [b, c, d].into_iter().flat_map(u32::to_le_bytes).collect();
    out.told("signature", String::from_utf8_lossy(&bytes).trim_end_matches('\0'));
}

/// P32: features of the processor that reach beyond a program.
pub(crate) fn features(_: &Spec, out: &Out<'_>) {
    let has = |leaf: u32, register: usize, bit: u32| {
        let most = cpuid(leaf & 0x8000_0000, 0)[0];
        most >= leaf && cpuid(leaf, 0)[register] >> bit & 1 == 1
    };
    let counters = has(0x8000_0001, 2, 23) || (cpuid(0, 0)[0] >= 10 && cpuid(10, 0)[0] & 0xff > 0);
    let found = [
        ("vmx", has(1, 2, 5)),
        ("svm", has(0x8000_0001, 2, 2)),
        ("performance counters", counters),
        ("transactions", has(7, 1, 11)),
    ];
    for (item, there) in found {
        if there { out.reached(item, "named by CPUID") } else { out.absent(item, "not named by CPUID") }
    }
}

/// P33: virtual machines from here.
pub(crate) fn nested(_: &Spec, out: &Out<'_>) {
    const GET_API_VERSION: usize = 0xae00;
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => match sys::call(16, &[kvm.as_raw_fd() as usize, GET_API_VERSION, 0]) {
            Ok(version) => out.reached("/dev/kvm", &format!("version {version}")),
            Err(errno) => out.error("/dev/kvm", errno, ""),
        },
        Err(error) => out.io("/dev/kvm", &error, ""),
    }
}

/// P31: the devices that a guest has.
pub(crate) fn guest_devices(_: &Spec, out: &Out<'_>) {
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    };
    let mut kinds: Vec<String> = names("/sys/bus/virtio/devices")
        .iter()
        .filter_map(|name| beginning(format!("/sys/bus/virtio/devices/{name}/device"), 32).ok())
        .map(|id| match id.trim() {
            "0x0001" => "network".to_owned(),
            "0x0002" => "block".to_owned(),
            "0x0003" => "console".to_owned(),
            "0x0004" => "rng".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    kinds.sort_unstable();
    out.told("virtio devices", &kinds.join(" "));
    for bus in ["pci", "usb", "scsi", "i2c"] {
        out.told(&format!("{bus} devices"), &names(&format!("/sys/bus/{bus}/devices")).join(" "));
    }
    out.told("block devices", &names("/sys/block").join(" "));
}

/// P37: clocks fine enough to tell what others do with the processor.
pub(crate) fn timers(_: &Spec, out: &Out<'_>) {
    match sys::tsc() {
        Ended::Value(_) => out.reached("time stamp counter", "can be read"),
        Ended::Signal(signal) => out.hidden("time stamp counter", &format!("signal {signal}")),
        ended => out.say("time stamp counter", crate::protocol::Found::Unknown, &format!("{ended:?}")),
    }
    const MONOTONIC_RAW: usize = 4;
    let mut resolution = [0_u64; 2];
    match sys::call(229, &[MONOTONIC_RAW, sys::address_mut(&mut resolution)]) {
        Ok(_) if resolution[0] == 0 && resolution[1] < 1000 => {
            out.reached("clock", &format!("resolution of {} ns", resolution[1]));
        }
        Ok(_) => out.hidden("clock", &format!("resolution of {} ns", resolution[1])),
        Err(errno) => out.error("clock", errno, ""),
    }
}

/// P34: writing to the image's disk. In a guest only: its root may try everything.
pub(crate) fn image_disk(_: &Spec, out: &Out<'_>) {
    let mounts = beginning("/proc/self/mountinfo", 64 << 10).unwrap_or_default();
    let disk = mounts.lines().find(|line| line.contains(" - erofs ")).and_then(|line| line.split(' ').nth(2));
    let numbers = disk.and_then(|disk| disk.split_once(':'));
    let numbers = numbers.and_then(|(a, b)| Some((a.parse::<usize>().ok()?, b.parse::<usize>().ok()?)));
    let Some((major, minor)) = numbers else { return out.absent("image disk", "no disk below the image") };
    // A tmpfs on which nodes are devices.
    let dir = format!("/tmp/.isolab-probe-{}", std::process::id());
    let (at, tmpfs) = (sys::path(&dir), sys::path("tmpfs"));
    let made = fs::create_dir_all(&dir);
    let fs_name = tmpfs.as_ptr().expose_provenance();
    let mounted = sys::call(165, &[fs_name, at.as_ptr().expose_provenance(), fs_name, 0, 0]);
    if let Err(errno) = mounted {
        return out.error("image disk", errno, &format!("no place for a node ({made:?})"));
    }
    let node = format!("{dir}/disk");
    let path = sys::path(&node);
    let args = [path.as_ptr().expose_provenance(), 0o060_600, (major << 8) | minor];
    if let Err(errno) = sys::call(133, &args) {
        return out.error("image disk", errno, "no node");
    }
    write_through(out, Path::new(&node));
    let _ = sys::call(166, &[at.as_ptr().expose_provenance(), 2]);
    let _ = fs::remove_dir(&dir);
}

fn write_through(out: &Out<'_>, node: &Path) {
    write_sector(out, "write", node);
    // Root can tell the kernel that the disk is no longer read-only; whether that believes it, the write tells.
    const SET_READ_ONLY: usize = 0x125d;
    let off = 0_i32;
    if let Ok(disk) = open(node, 0) {
        let _ = sys::call(16, &[disk.as_raw_fd() as usize, SET_READ_ONLY, sys::address(&off)]);
    }
    write_sector(out, "write after clearing the flag", node);
}

fn write_sector(out: &Out<'_>, item: &str, node: &Path) {
    // The bytes that are there already: a write that succeeds changes nothing.
    let mut sector = [0; 512];
    let written =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_SYNC).open(node).and_then(|disk| {
            disk.read_exact_at(&mut sector, 1024)?;
            disk.write_all_at(&sector, 1024)?;
            disk.sync_all()
        });
    match written {
        Ok(()) => out.reached(item, "a sector was written"),
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {
            out.hidden(item, "the device answers with an error");
        }
        // Linux 6.8 and later can be built so (BLK_DEV_WRITE_MOUNTED).
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            out.hidden(item, "the kernel lets nobody write to a disk that is mounted");
        }
        Err(error) => out.io(item, &error, "refused for the device's read-only flag"),
    }
}
