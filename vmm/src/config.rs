//! What a guest is made of.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use isolab_images::kernels::Discovery;
use isolab_wire::trace::Tracer;

use crate::boot::initramfs::{self, Initramfs, InitramfsError};
use crate::boot::kernel::KernelInfo;
use crate::jail::Jail;

/// Most processors of a guest.
pub const MAX_CPUS: u8 = 8;

/// Where a guest begins.
#[derive(Debug)]
pub enum Begin {
    /// At its kernel's first instruction.
    Boot(Boot),
    /// Where the guest of a template waits for its job.
    Restore(TemplateFiles),
}

/// What a kernel boots from.
#[derive(Debug)]
pub struct Boot {
    /// Kernel file ([`crate::check_kernel`]).
    pub kernel: File,
    /// How that kernel learns of its machine. Only one way is taken: a kernel that knows both would see each device twice.
    pub discovery: Discovery,
    /// Initramfs with process 1.
    pub initramfs: Initramfs,
    /// Make a template of the guest when it waits for its job, in these empty files, and end.
    pub template: Option<TemplateFiles>,
}

/// The two files of a template ([`crate::template`]).
#[derive(Debug)]
pub struct TemplateFiles {
    /// State of processors and devices.
    pub state: File,
    /// What guest RAM held.
    pub memory: File,
}

/// Everything that a guest gets.
#[derive(Debug)]
pub struct VmConfig {
    /// RAM in bytes; rounded down to whole pages.
    pub memory_bytes: u64,
    /// Processors, 1 to [`MAX_CPUS`].
    pub cpus: u8,
    /// Where it begins.
    pub begin: Begin,
    /// Whether it has a device by which memory that it frees returns to the host.
    pub free_page_reporting: bool,
    /// Image, opened read-only: the guest's first disk.
    pub image: File,
    /// Read for the workload's standard input; nothing: it reads end of file.
    pub stdin: Option<OwnedFd>,
    /// Gets standard output.
    pub stdout: OwnedFd,
    /// Gets standard error.
    pub stderr: OwnedFd,
    /// Read for the job block and control messages.
    pub control: OwnedFd,
    /// Gets mark records.
    pub marks: OwnedFd,
    /// Read at the guest's first [`Code::Ready`](isolab_wire::mark::Code::Ready) before its processor goes on; nothing: it
    /// goes on at once.
    pub hold: Option<OwnedFd>,
    /// Where the ends of subphases, the place of guest RAM and KVM's counters go.
    pub tracer: Tracer,
    /// Who the monitor becomes before its guest runs; nothing: it keeps its user, and what files that user sees (to measure the rest).
    pub jail: Option<Jail>,
    /// Copy the guest kernel's messages to this process's stderr (slow; for diagnosis).
    pub console_log: bool,
}

impl VmConfig {
    /// Every descriptor that the machine uses.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let (boot, template) = match &self.begin {
            Begin::Boot(boot) => (Some(boot), boot.template.as_ref()),
            Begin::Restore(template) => (None, Some(template)),
        };
        let initramfs = boot.and_then(|boot| match &boot.initramfs {
            Initramfs::File(file) => Some(file),
            Initramfs::Bytes(_) => None,
        });
        let template = template.map(|files| [&files.state, &files.memory]).into_iter().flatten();
        let files = boot.map(|boot| &boot.kernel).into_iter().chain(initramfs).chain(template);
        let ends = [&self.stdout, &self.stderr, &self.control, &self.marks].map(AsFd::as_fd);
        let more = [&self.stdin, &self.hold].map(|end| end.as_ref().map(AsFd::as_fd));
        let files = files.chain([&self.image]).map(AsFd::as_fd);
        files.chain(ends).chain(more.into_iter().flatten()).collect()
    }
}

/// Least RAM for a kernel with an initramfs, in bytes.
///
/// # Errors
/// The initramfs is a file whose size can't be read.
pub fn least_memory(kernel: &KernelInfo, initramfs: &Initramfs) -> Result<u64, InitramfsError> {
    Ok(initramfs::needed(kernel, initramfs.len()?))
}
