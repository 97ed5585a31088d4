//! The KVM machine: one Linux guest with its own kernel, virtio over MMIO, no firmware, no PCI.
//!
//! [`run`] is the whole life of a guest. It is called in a process of its own, so that everything (threads,
//! guest memory, descriptors) goes with the process; deadlines and kills come from the launcher outside.
//!
//! Order of events:
//! 1. beside each other: the kernel file is checked, everything is seen to fit, and kernel, initramfs, ACPI tables (for a kernel
//!    without ACPI: a multiprocessor table) and boot parameters are written into RAM; KVM makes an empty machine;
//! 2. the machine gets its RAM, interrupt controllers and devices;
//! 3. it gets its processors;
//! 4. user, files and capabilities are given up, and each thread gives up system calls; then processors run in their threads, devices
//!    in the calling one;
//! 5. the guest's last mark (or its death) ends it: output is drained, the mark is sent, [`run`] returns.
//!
//! A [`template`] stands in for what 1 writes: its memory is mapped, and processors and devices are what they were when it was made.
//!
//! It refuses: writing to the image, queues that leave RAM, registers out of order, marks that only the host may
//! make. Nothing that a guest does ends in a panic: it is ignored, or it breaks that guest's device or the guest.
#![deny(unsafe_code)]

mod arch;
mod boot;
mod cmdline;
mod config;
pub mod confinement;
mod devices;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod invariants;
mod jail;
mod layout;
mod machine;
mod memory;
pub mod probe;
mod service;
mod statistics;
mod sys;
pub mod template;
mod tsc;
mod vcpu;

/// The command line of a kernel with ACPI, for a fair comparison with other monitors.
#[must_use]
pub fn command_line() -> String {
    cmdline::line(cmdline::Wanted::default(), &[])
}

pub use arch::ArchError;
pub use boot::initramfs::{Initramfs, InitramfsError};
pub use boot::kernel::{KernelError, KernelFormat, KernelInfo, check_kernel};
pub use config::{Begin, Boot, MAX_CPUS, TemplateFiles, VmConfig, least_memory};
pub use filter::FilterError;
pub use isolab_images::kernels::Discovery;
pub use jail::{Jail, JailError};
pub use machine::{Stop, VmError, run};
pub use memory::MemoryError;
pub use template::TemplateError;
pub use tsc::host_tsc_khz;
