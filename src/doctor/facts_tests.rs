use super::*;

#[test]
fn finds_file_systems_by_whole_name() {
    let filesystems = "nodev\tsysfs\nnodev\toverlay\n\terofs\n\text4\n";
    assert_eq!(presence(filesystems, "", "erofs"), Presence::Loaded);
    assert_eq!(presence(filesystems, "", "overlay"), Presence::Loaded);
    assert_eq!(presence(filesystems, "", "ext"), Presence::Absent);
    assert_eq!(presence("nodev\n", "", "erofs"), Presence::Absent);
}

#[test]
fn finds_modules_with_any_compression() {
    let dep = "kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz\nkernel/fs/overlayfs/overlay.ko:\n";
    assert_eq!(presence("", dep, "erofs"), Presence::Module);
    assert_eq!(presence("", dep, "overlay"), Presence::Module);
    assert_eq!(presence("", dep, "libcrc32c"), Presence::Absent, "only as a dependency");
}

#[test]
fn compares_kernel_versions_as_numbers() {
    assert_eq!(kernel_version("6.12.9-cloud-amd64"), Some((6, 12)));
    assert_eq!(kernel_version("6.9-rc1"), Some((6, 9)));
    assert_eq!(kernel_version("linux"), None);
    assert!(kernel_version("6.9.0") < Some((6, 12)));
    assert!(kernel_version("10.0.0") >= Some((6, 12)));
}

#[test]
fn reads_os_release_with_and_without_quotes() {
    let ubuntu = distribution("PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nID=ubuntu\nID_LIKE='debian'\n");
    assert_eq!(ubuntu.id, "ubuntu");
    assert_eq!(ubuntu.like, ["debian"]);
    assert_eq!(ubuntu.name, "Ubuntu 24.04.1 LTS");
    assert_eq!(distribution(""), Distribution::default());
}

#[test]
fn reads_meminfo_in_bytes() {
    assert_eq!(meminfo_bytes("MemTotal:       2048 kB\nMemFree: 1 kB\n", "MemTotal"), Some(2 << 20));
    assert_eq!(meminfo_bytes("MemTotal:       2048\n", "MemTotal"), None);
    assert_eq!(meminfo_bytes("MemTotal: 18446744073709551615 kB\n", "MemTotal"), None);
}

#[test]
fn needs_a_range_for_this_user() {
    let subuid = "alice:100000:65536\n1001:165536:65536\nbob:1:1\n";
    assert!(has_subid_range(subuid, "alice", 1000));
    assert!(has_subid_range(subuid, "carol", 1001));
    assert!(!has_subid_range(subuid, "bob", 1002), "one id is no range");
    assert!(!has_subid_range(subuid, "", 4), "nobody has no name");
    assert!(!has_subid_range("\n:::\n", "", 0));
}

#[test]
fn finds_users_by_id() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n";
    assert_eq!(user_name(passwd, 1000), "alice");
    assert_eq!(user_name(passwd, 7), "");
}

#[test]
fn finds_versions() {
    assert_eq!(version_in("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"), Some("7.2.22"));
    assert_eq!(version_in("no version"), None);
}

#[test]
fn seccomp_needs_actions() {
    assert!(seccomp_filters("kill_process kill_thread trap errno log allow\n"));
    assert!(!seccomp_filters(""));
}

#[test]
fn reads_one_capability() {
    assert!(has_sys_admin("Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
    assert!(!has_sys_admin("CapEff:\t00000000a80425fb\n"), "the default of Docker");
    assert!(!has_sys_admin("CapEff:\tzz\n"));
    assert!(!has_sys_admin(""));
}

#[test]
fn a_mount_below_proc_hides_a_part_of_it() {
    let plain =
        "23 1 0:21 / /proc rw - proc proc rw\n24 23 0:22 / /proc/sys/fs/binfmt_misc rw - autofs a rw\n";
    assert!(!hides_proc(plain));
    assert!(hides_proc(&format!("{plain}25 23 0:5 /null /proc/kcore rw - tmpfs tmpfs rw\n")));
}
