//! The usual reasons why a level can't run here, and what to do: one sentence each, so that `doctor`, `run` and
//! `compare` say the same.

use std::fmt;

use isolab_bench::port::Unavailable;
use isolab_vmm::probe::{KvmAccess, KvmClass, KvmReport};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A reason and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// What is missing or wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

impl std::error::Error for Hint {}

impl From<Hint> for Unavailable {
    fn from(hint: Hint) -> Self {
        Self { reason: hint.reason, remedy: hint.remedy }
    }
}

fn hint(reason: impl Into<String>, remedy: impl Into<String>) -> Hint {
    Hint { reason: reason.into(), remedy: remedy.into() }
}

/// The environment variable that the lab sets for the isolab inside.
pub const LAB_ENV: &str = "ISOLAB_LAB";

/// Whether this isolab runs inside the lab.
#[must_use]
pub fn in_lab() -> bool {
    std::env::var_os(LAB_ENV).is_some_and(|value| !value.is_empty())
}

/// `host.class` of records: the KVM class, or `emulated-lab` where the lab says so and a guest kernel can run.
#[must_use]
pub fn host_class(report: &KvmReport, lab: bool) -> &'static str {
    if lab && report.runs_guest_kernel { "emulated-lab" } else { report.class.name() }
}

/// No `/dev/kvm`.
#[must_use]
pub fn no_kvm_device() -> Hint {
    hint(
        "this host has no /dev/kvm",
        "load kvm_intel or kvm_amd where the processor has VT-x or SVM (see the firmware's settings), or use --on lab",
    )
}

/// `/dev/kvm` without permission.
#[must_use]
pub fn kvm_denied() -> Hint {
    hint(
        "no permission to open /dev/kvm",
        "join its group (`sudo usermod -aG kvm $USER`, then log in again) or run as root, or use --on lab",
    )
}

/// `/dev/kvm` held by another hypervisor.
#[must_use]
pub fn kvm_busy() -> Hint {
    hint(
        "another hypervisor holds the processor's virtualisation, so KVM can't create a VM",
        "stop that hypervisor (VirtualBox, VMware or the like), or use --on lab",
    )
}

/// A KVM that can't run a guest kernel.
#[must_use]
pub fn kvm_not_hardware(report: &KvmReport) -> Hint {
    let backend = report.module.as_deref().unwrap_or("unknown module");
    let reason = match report.alu_ratio_kernel {
        Some(ratio) => format!(
            "this host's KVM ({backend}) has no hardware behind it and interprets guest kernel code, about {} \
             times slower than the host, so no guest kernel can boot on it",
            two_digits(ratio)
        ),
        None => format!("this host's KVM ({backend}) can't run a guest kernel ({})", report.reason),
    };
    hint(reason, "use --on lab, or a machine whose processor offers VT-x or SVM")
}

/// A measured ratio without the digits that change from probe to probe.
fn two_digits(ratio: f64) -> f64 {
    format!("{ratio:.1e}").parse().unwrap_or(ratio)
}

/// Why the vm level can't run with this KVM; nothing where it can.
#[must_use]
pub fn vm_on_host(report: &KvmReport) -> Option<Hint> {
    match report.access {
        KvmAccess::Missing => Some(no_kvm_device()),
        KvmAccess::Denied => Some(kvm_denied()),
        KvmAccess::Busy => Some(kvm_busy()),
        KvmAccess::Usable if report.runs_guest_kernel => None,
        KvmAccess::Usable if report.class == KvmClass::Software => Some(kvm_not_hardware(report)),
        KvmAccess::Usable | KvmAccess::Broken => {
            Some(hint(format!("/dev/kvm does not work as KVM does ({})", report.reason), "use --on lab"))
        }
    }
}

/// What limits figures of a vm level that can run; nothing on bare hardware.
#[must_use]
pub fn vm_caveat(report: &KvmReport, lab: bool) -> Option<Hint> {
    if lab {
        return Some(hint(
            "this is the lab: the processor is emulated and its clock counts instructions",
            "compare instruction counts, not milliseconds",
        ));
    }
    let remedy = "compare on a machine with its own VT-x or SVM, or by instruction counts with --on lab";
    match report.class {
        KvmClass::Hardware | KvmClass::None => None,
        KvmClass::Nested | KvmClass::Shadow | KvmClass::Software => Some(hint(report.reason.clone(), remedy)),
    }
}

/// Why user namespaces can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsernsOff {
    /// The kernel has none.
    NotBuilt,
    /// `user.max_user_namespaces` is 0.
    MaxIsZero,
    /// `kernel.unprivileged_userns_clone` is 0.
    CloneIsZero,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1.
    AppArmor,
    /// The sysctls allow it, and yet making one fails.
    Refused,
    /// The number that may be there is reached, here or in an outer user namespace.
    Full,
}

/// User namespaces off.
#[must_use]
pub fn userns_off(why: UsernsOff) -> Hint {
    match why {
        UsernsOff::NotBuilt => {
            hint("the kernel has no user namespaces", "boot a kernel with CONFIG_USER_NS, or use --on lab")
        }
        UsernsOff::MaxIsZero => hint(
            "user namespaces are off (user.max_user_namespaces is 0)",
            "run `sudo sysctl user.max_user_namespaces=15000`, or use --on lab",
        ),
        UsernsOff::CloneIsZero => hint(
            "user namespaces are closed to unprivileged users (kernel.unprivileged_userns_clone is 0)",
            "run `sudo sysctl kernel.unprivileged_userns_clone=1`, run isolab as root, or use --on lab",
        ),
        UsernsOff::AppArmor => hint(
            "AppArmor closes user namespaces to unprivileged programs (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "run `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, run isolab as root, or use --on lab",
        ),
        UsernsOff::Refused => hint(
            "making a user namespace is refused (by the filter of a container around isolab, or a security module)",
            "allow clone with CLONE_NEWUSER there, run isolab outside of it, or use --on lab",
        ),
        UsernsOff::Full => hint(
            "no more namespaces can be made (a limit in /proc/sys/user, here or in an outer user namespace, is reached)",
            "raise it outside (`sysctl user` lists them; `sudo sysctl user.max_user_namespaces=15000`), or use --on lab",
        ),
    }
}

/// Namespaces that the kernel could not make.
#[must_use]
pub fn no_namespaces(why: Errno) -> Hint {
    hint(
        format!("make namespaces: {why}"),
        "free memory or descriptors, or see what `isolab doctor` says of this kernel",
    )
}

/// Root without `CAP_SYS_ADMIN`.
#[must_use]
pub fn no_sys_admin() -> Hint {
    hint(
        "root lacks CAP_SYS_ADMIN over this machine (this seems to be a container), so images can't be mounted",
        "run isolab outside of it, as another user than root, with that capability, or use --on lab",
    )
}

/// A `/proc` with parts that an outer container hides.
#[must_use]
pub fn masked_proc() -> Hint {
    hint(
        "parts of /proc are hidden here (isolab runs in a container), so the kernel refuses a container inside a /proc of its own",
        "start the outer container with all of it (Podman: --security-opt unmask=ALL, Docker: --security-opt \
         systempaths=unconfined), run isolab outside of it, or use --level process or --on lab",
    )
}

/// Cgroup controllers that are nowhere mounted or enabled.
#[must_use]
pub fn cgroup_missing(controllers: &[&str]) -> Hint {
    hint(
        format!("{} not there, so no limit of that kind can be enforced", named(controllers)),
        "mount cgroup v2 with them enabled (see the kernel option cgroup_enable), or use --on lab",
    )
}

/// Cgroup controllers (of version 1 or 2) that this user may not use.
#[must_use]
pub fn cgroup_not_delegated(controllers: &[&str], version: u8) -> Hint {
    let remedy = match version {
        // Version 1 has no safe delegation.
        1 => "run isolab as root, or use --on lab",
        _ => "run isolab under `systemd-run --user --scope -p Delegate=yes`, or as root",
    };
    let reason = format!(
        "{} not delegated to this user, so no limit of that kind can be enforced",
        named(controllers)
    );
    hint(reason, remedy)
}

/// `the cgroup controller memory is` or `the cgroup controllers memory, cpu are`.
fn named(controllers: &[&str]) -> String {
    match controllers {
        [one] => format!("the cgroup controller {one} is"),
        many => format!("the cgroup controllers {} are", many.join(", ")),
    }
}

/// An image that is not in the store and is no path. A recipe of its name is what a newcomer means.
#[must_use]
pub fn image_missing(name: &str, nearest: Option<&str>, is_recipe: bool) -> Hint {
    let remedy = match nearest {
        _ if is_recipe => format!("build it: `isolab image build {name}`"),
        Some(nearest) => format!("did you mean {nearest}? `isolab image ls` lists what is there"),
        None => {
            "`isolab image ls` lists what is there, `isolab image import` and `isolab image pull` add to it"
                .to_owned()
        }
    };
    hint(format!("there is no image {name:?}"), remedy)
}

/// No EROFS in the kernel.
#[must_use]
pub fn no_erofs() -> Hint {
    hint(
        "the kernel can't mount EROFS, the format of images",
        "boot a kernel with CONFIG_EROFS_FS or install its modules, or use --on lab",
    )
}

/// Neither file-backed EROFS mounts nor loop devices.
#[must_use]
pub fn no_loop() -> Hint {
    hint(
        "the kernel is older than 6.12 (no file-backed EROFS mounts) and has no loop devices",
        "run `modprobe loop`, boot Linux 6.12 or later, or use --on lab",
    )
}

/// No overlay file system.
#[must_use]
pub fn no_overlay() -> Hint {
    hint(
        "the kernel has no overlay file system, so images are read-only",
        "use --read-only, boot a kernel with CONFIG_OVERLAY_FS, or use --on lab",
    )
}

/// No overlay in user namespaces.
#[must_use]
pub fn old_overlay() -> Hint {
    hint(
        "the kernel is older than 5.11 and lets only root mount an overlay, so images are read-only",
        "use --read-only, run isolab as root, boot Linux 5.11 or later, or use --on lab",
    )
}

/// No seccomp filters.
#[must_use]
pub fn no_seccomp() -> Hint {
    hint(
        "the kernel has no seccomp filters, which every container gets",
        "boot a kernel with CONFIG_SECCOMP_FILTER, or use --on lab",
    )
}

/// Rootless: the image is unpacked instead of mounted.
#[must_use]
pub fn rootless_copy() -> Hint {
    hint(
        "without root the image can't be mounted: each run unpacks it into a private copy, whose files all belong to one user",
        "run as root where figures are compared with the vm level",
    )
}

/// Rootless without a range of user ids.
#[must_use]
pub fn no_subuid() -> Hint {
    hint(
        "this user has no range in /etc/subuid and /etc/subgid, so only one user exists inside",
        "run `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER`",
    )
}

/// Rootless without the programs that give a range of ids out.
#[must_use]
pub fn no_uidmap() -> Hint {
    hint(
        "newuidmap and newgidmap are not in /usr/bin, so only one user exists inside",
        "install them (Debian: `sudo apt-get install uidmap`); the user also needs a range in /etc/subuid and /etc/subgid",
    )
}

/// No QEMU for the lab.
#[must_use]
pub fn no_qemu() -> Hint {
    hint(
        "the lab needs QEMU, and qemu-system-x86_64 is not in PATH",
        "run `isolab doctor --fix`, or install your distribution's package (Debian: qemu-system-x86)",
    )
}

/// No guest kernel of that name.
#[must_use]
pub fn no_guest_kernel(name: &str) -> Hint {
    let remedy = if name == "stock" {
        "run `isolab kernel fetch`, or `isolab kernel add PATH --name stock`".to_owned()
    } else {
        format!("`isolab kernel ls` lists what is there, `isolab kernel add PATH --name {name}` adds it")
    };
    hint(format!("there is no guest kernel {name:?} in the store"), remedy)
}

/// The lab inside the lab.
#[must_use]
pub fn lab_in_lab() -> Hint {
    hint("this isolab runs in the lab already", "use --on host: inside the lab that is the lab machine")
}

#[cfg(test)]
mod tests;
