//! What this host is: read from `/proc`, `/sys` and `/etc`, without changing anything.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::cgroup::{self, Controller};

/// The host, as observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// `uname -r`.
    pub kernel: String,
    /// The distribution.
    pub distribution: Distribution,
    /// `model name` of the first processor.
    pub cpu_model: String,
    /// Processors that this process may use.
    pub cpus: u32,
    /// `MemTotal`.
    pub memory_bytes: u64,
    /// `MemAvailable`.
    pub memory_available_bytes: u64,
    /// Effective user.
    pub euid: u32,
    /// `CAP_SYS_ADMIN` is effective, and in the first user namespace: EROFS can be mounted.
    pub sys_admin: bool,
    /// User namespaces.
    pub userns: Userns,
    /// A range for this user in `/etc/subuid` and `/etc/subgid`.
    pub subid_range: bool,
    /// `newuidmap` and `newgidmap`, which give the range out.
    #[serde(default)]
    pub subid_helpers: bool,
    /// EROFS in the kernel.
    pub erofs: Presence,
    /// EROFS mounts of plain files, without loop devices (Linux 6.12).
    pub erofs_file_backed: bool,
    /// Overlay in the kernel.
    pub overlay: Presence,
    /// `/dev/loop-control`.
    pub loop_devices: bool,
    /// Parts of `/proc` are hidden by other mounts.
    #[serde(default)]
    pub proc_masked: bool,
    /// Seccomp filters that can refuse and kill.
    pub seccomp: bool,
    /// Controllers for memory, cpu and pids.
    pub cgroup: Vec<Controller>,
    /// QEMU for the lab.
    pub qemu: Option<Program>,
    /// The package manager that `--fix` would use.
    pub package_manager: Option<String>,
    /// Tools that only the test suite uses, and whether they are there.
    pub test_tools: BTreeMap<String, bool>,
    /// Settings that move figures.
    pub environment: BTreeMap<String, String>,
}

/// Parts of `/etc/os-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// `ID`.
    pub id: String,
    /// `ID_LIKE`, by words.
    pub like: Vec<String>,
    /// `PRETTY_NAME`.
    pub name: String,
}

/// The sysctls of user namespaces; nothing where the kernel lacks one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Userns {
    /// The kernel has them.
    pub built: bool,
    /// `user.max_user_namespaces`.
    pub max: Option<u64>,
    /// `kernel.unprivileged_userns_clone`.
    pub unprivileged_clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    pub apparmor_restricted: Option<u64>,
    /// Whether `unshare --user true` works; nothing where there is no such program.
    pub works: Option<bool>,
}

/// How a file system is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Ready.
    Loaded,
    /// A module that the kernel would load.
    Module,
    /// Not at all.
    #[default]
    Absent,
}

/// A program that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Where.
    pub path: PathBuf,
    /// What it says of itself.
    pub version: Option<String>,
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn trimmed(path: impl AsRef<Path>) -> Option<String> {
    let text = read(path).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn number(path: &str) -> Option<u64> {
    trimmed(path)?.parse().ok()
}

/// The programs that write a map of subordinate ids are where the container looks for them.
pub(super) fn id_map_helpers() -> bool {
    ["newuidmap", "newgidmap"].iter().all(|name| Path::new("/usr/bin").join(name).exists())
}

/// The settings of user namespaces, without trying.
pub(super) fn userns_settings() -> Userns {
    Userns {
        works: None,
        built: fs::symlink_metadata("/proc/self/ns/user").is_ok(),
        max: number("/proc/sys/user/max_user_namespaces"),
        unprivileged_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricted: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
    }
}

/// Something is mounted below `/proc`.
pub(super) fn proc_is_masked() -> bool {
    hides_proc(&read("/proc/self/mountinfo"))
}

/// The same of a mountinfo. An ever empty directory of the kernel's, as for binfmt_misc, hides nothing.
pub(super) fn hides_proc(mountinfo: &str) -> bool {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with("/proc/")).any(|point| point != "/proc/sys/fs/binfmt_misc")
}

/// Observes everything.
#[must_use]
pub(super) fn observe() -> Facts {
    let kernel = trimmed("/proc/sys/kernel/osrelease").unwrap_or_default();
    let filesystems = read("/proc/filesystems");
    let modules = read(format!("/lib/modules/{kernel}/modules.dep"));
    let meminfo = read("/proc/meminfo");
    let euid = rustix::process::geteuid().as_raw();
    let passwd = read("/etc/passwd");
    let user = user_name(&passwd, euid);
    let has_range = |path| has_subid_range(&read(path), user, euid);
    Facts {
        distribution: distribution(&read("/etc/os-release")),
        cpu_model: cpuinfo_field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_bytes: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
        memory_available_bytes: meminfo_bytes(&meminfo, "MemAvailable").unwrap_or(0),
        euid,
        sys_admin: has_sys_admin(&read("/proc/self/status")) && in_first_user_namespace(),
        userns: Userns {
            works: find_program("unshare").and_then(|unshare| succeeds(&unshare, &["--user", "true"])),
            ..userns_settings()
        },
        subid_helpers: id_map_helpers(),
        subid_range: has_range("/etc/subuid") && has_range("/etc/subgid"),
        erofs: presence(&filesystems, &modules, "erofs"),
        erofs_file_backed: kernel_version(&kernel) >= Some((6, 12)),
        overlay: presence(&filesystems, &modules, "overlay"),
        loop_devices: Path::new("/dev/loop-control").exists(),
        seccomp: seccomp_filters(&read("/proc/sys/kernel/seccomp/actions_avail")),
        cgroup: cgroup::controllers(),
        proc_masked: proc_is_masked(),
        qemu: find_program("qemu-system-x86_64").map(|path| Program { version: version_of(&path), path }),
        package_manager: ["apt-get", "dnf", "pacman"]
            .into_iter()
            .find(|name| find_program(name).is_some())
            .map(str::to_owned),
        test_tools: TEST_TOOLS
            .iter()
            .map(|(program, _)| ((*program).to_owned(), find_program(program).is_some()))
            .collect(),
        environment: environment(),
        kernel,
    }
}

/// Programs of the test suite and their Debian packages.
pub(super) const TEST_TOOLS: [(&str, &str); 11] = [
    ("busybox", "busybox-static"),
    ("bwrap", "bubblewrap"),
    ("docker-registry", "docker-registry"),
    ("fsck.erofs", "erofs-utils"),
    ("hyperfine", "hyperfine"),
    ("mmdebstrap", "mmdebstrap"),
    ("newuidmap", "uidmap"),
    ("runc", "runc"),
    ("skopeo", "skopeo"),
    ("strace", "strace"),
    ("umoci", "umoci"),
];

/// Settings that move figures, for records and for the curious; what is not readable is left out.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    let single = [
        ("clocksource", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        ("governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        ("smt", "/sys/devices/system/cpu/smt/control"),
        ("thp", "/sys/kernel/mm/transparent_hugepage/enabled"),
        ("ksm", "/sys/kernel/mm/ksm/run"),
        ("kvm.nx_huge_pages", "/sys/module/kvm/parameters/nx_huge_pages"),
        ("kvm.halt_poll_ns", "/sys/module/kvm/parameters/halt_poll_ns"),
        ("cmdline", "/proc/cmdline"),
    ];
    let mut found: BTreeMap<String, String> =
        single.into_iter().filter_map(|(name, path)| Some((name.to_owned(), trimmed(path)?))).collect();
    if let Some(microcode) = cpuinfo_field(&read("/proc/cpuinfo"), "microcode") {
        found.insert("microcode".to_owned(), microcode.to_owned());
    }
    if let Some(swap) = meminfo_bytes(&read("/proc/meminfo"), "SwapTotal") {
        found.insert("swap_total_bytes".to_owned(), swap.to_string());
    }
    for entry in fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten() {
        if let Some(state) = trimmed(entry.path()) {
            found.insert(format!("vulnerability.{}", entry.file_name().to_string_lossy()), state);
        }
    }
    found
}

/// Major and minor of `uname -r`.
#[must_use]
pub(super) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether the list of `/proc/filesystems` or `modules.dep` has `name`.
#[must_use]
pub(super) fn presence(filesystems: &str, modules_dep: &str, name: &str) -> Presence {
    if filesystems.lines().any(|line| line.split_ascii_whitespace().next_back() == Some(name)) {
        return Presence::Loaded;
    }
    let module = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(path, _)| path.rsplit('/').next())
        .any(|file| file.split_once(".ko").is_some_and(|(stem, _)| stem == name));
    if module { Presence::Module } else { Presence::Absent }
}

fn distribution(os_release: &str) -> Distribution {
    let value = |key: &str| {
        os_release
            .lines()
            .filter_map(|line| line.split_once('='))
            .find(|(k, _)| *k == key)
            .map(|(_, v)| v.trim().trim_matches(['"', '\'']).to_owned())
            .unwrap_or_default()
    };
    let like = value("ID_LIKE").split_ascii_whitespace().map(str::to_owned).collect();
    Distribution { id: value("ID"), like, name: value("PRETTY_NAME") }
}

fn cpuinfo_field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let (_, value) = meminfo.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| *key == name)?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn seccomp_filters(actions: &str) -> bool {
    let has = |name| actions.split_ascii_whitespace().any(|action| action == name);
    has("errno") && has("kill_process")
}

/// Bit 21 of the effective capabilities.
fn has_sys_admin(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|bits| bits >> 21 & 1 == 1)
}

/// The first user namespace has a number of its own (`PROC_USER_INIT_INO`).
fn in_first_user_namespace() -> bool {
    fs::read_link("/proc/self/ns/user").map_or(true, |name| name == Path::new("user:[4026531837]"))
}

fn user_name(passwd: &str, uid: u32) -> &str {
    let uid = uid.to_string();
    passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(uid.as_str()))
        .and_then(|line| line.split(':').next())
        .unwrap_or("")
}

/// A range of at least 1000 ids for this user in `/etc/subuid` or `/etc/subgid`.
fn has_subid_range(text: &str, user: &str, uid: u32) -> bool {
    let uid = uid.to_string();
    text.lines().any(|line| {
        let mut fields = line.split(':');
        let owner = fields.next().is_some_and(|owner| !owner.is_empty() && (owner == user || owner == uid));
        owner && fields.nth(1).and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|n| n >= 1000)
    })
}

/// Finds an executable in `PATH`, and in the places of administration programs that a user's `PATH` may lack.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(more)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}

/// Whether a program ends with 0; nothing where it can't be started.
fn succeeds(program: &Path, arguments: &[&str]) -> Option<bool> {
    let silent = || Stdio::null();
    let mut command = Command::new(program);
    command.args(arguments).stdin(silent()).stdout(silent()).stderr(silent());
    command.status().ok().map(|status| status.success())
}

/// The version in the first line of `PROGRAM --version`.
fn version_of(program: &Path) -> Option<String> {
    let output =
        Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().and_then(version_in).map(str::to_owned)
}

/// The first word that begins with a digit.
fn version_in(line: &str) -> Option<&str> {
    line.split_ascii_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
