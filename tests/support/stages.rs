//! The stages of a start, by level, and who makes each.

/// Who makes a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Launcher,
    /// Process 1, its child, the child of level process, or the monitor.
    Other,
}

use Who::{Launcher, Other};

pub(crate) type Stages = &'static [(&'static str, Who)];

pub(crate) const PROCESS: Stages = &[
    ("image_open", Launcher),
    ("job", Launcher),
    ("cgroup", Launcher),
    ("image_mount", Launcher),
    ("channels", Launcher),
    ("clone", Launcher),
    ("namespaces", Other),
    ("cgroup_join", Other),
    ("root_mounts", Other),
    ("workspace", Other),
    ("caps_seccomp", Other),
    ("exec", Other),
    ("teardown", Launcher),
];

pub(crate) const CONTAINER: Stages = &[
    ("image_open", Launcher),
    ("job", Launcher),
    ("cgroup", Launcher),
    ("channels", Launcher),
    ("clone", Launcher),
    ("idmap", Launcher),
    ("image_mount", Launcher),
    ("init_program", Launcher),
    ("job_block", Launcher),
    ("namespaces", Other),
    ("cgroup_join", Other),
    ("identity", Other),
    ("exec_init", Other),
    ("init_job", Other),
    ("root_mounts", Other),
    ("dev_proc", Other),
    ("pivot", Other),
    ("masks", Other),
    ("workspace", Other),
    ("caps_seccomp", Other),
    ("exec", Other),
    ("reading", Launcher),
    ("teardown", Launcher),
];

pub(crate) const VM: Stages = &[
    ("image_open", Launcher),
    ("job", Launcher),
    ("kernel_files", Launcher),
    ("job_block", Launcher),
    ("cgroup", Launcher),
    ("channels", Launcher),
    ("clone", Launcher),
    ("namespaces", Other),
    ("cgroup_join", Other),
    ("ram", Other),
    ("kernel_load", Other),
    ("initramfs_load", Other),
    ("boot_params", Other),
    ("create_vm", Other),
    ("ram_register", Other),
    ("irqchip", Other),
    ("devices", Other),
    ("vcpus", Other),
    ("vcpu_start", Other),
    ("guest_kernel", Other),
];

/// What takes a boot: the guest's process 1, and what comes after it.
pub(crate) const VM_BOOTED: Stages = &[
    ("guest_init", Other),
    ("init_job", Other),
    ("root_mounts", Other),
    ("dev_proc", Other),
    ("pivot", Other),
    ("masks", Other),
    ("workspace", Other),
    ("caps_seccomp", Other),
    ("exec", Other),
    ("reading", Launcher),
    ("teardown", Launcher),
];

/// Stages that a guest of a snapshot has, from the snapshot's opening on.
pub(crate) const RESTORED: Stages = &[
    ("template_open", Launcher),
    ("clone", Launcher),
    ("template_read", Other),
    ("create_vm", Other),
    ("restore_state", Other),
    ("vcpu_start", Other),
    ("caps_seccomp", Other),
    ("exec", Other),
    ("teardown", Launcher),
];

/// The arguments of a run with these options and this fault. A ready workload is read only where it is measured.
pub(crate) fn arguments<'a>(options: &[&'a str], fault: &'a str) -> Vec<&'a str> {
    let measured: &[&str] = if fault.contains("reading") { &["--report-fd", "1"] } else { &[] };
    [&["run", "--on", "host", "--level"], options, &[fault], measured, &["demo"]].concat()
}
