//! What isolab and its process 1 say to each other, at the container and at the vm level alike.
//!
//! Order of events:
//! 1. isolab starts `isolab-init` (in new namespaces, or as `/init` of a guest kernel).
//! 2. Init reads one [job block](job) from the control channel: everything that the workload is.
//! 3. Init answers with [marks](mark): one fixed record for each moment, error or exit status.
//! 4. While the workload runs, isolab sends [control messages](control): signals and window sizes.
//!
//! A guest that a template is made of gets a block without a job at 2, and at each restore a [restore block](restore) and
//! then its job.
//!
//! No allocation, no standard library: init reads the block where it lies and passes its strings on to
//! `execve` as they are. Every reader here is total: any bytes give a value or an error, never a panic.
#![no_std]
#![forbid(unsafe_code)]

pub mod control;
pub mod fault;
pub mod job;
pub mod mark;
pub mod restore;
pub mod trace;

/// File descriptors that init finds open when it starts in a container.
pub mod fd {
    /// Control channel: the job block, then control messages. End of file means that isolab is gone.
    pub const CONTROL: i32 = 3;
    /// Mark pipe, written in [`crate::mark::Mark`] records.
    pub const MARKS: i32 = 4;
    /// The root: a detached mount (`fsmount`/`open_tree`) of the image, or a directory (rootless).
    pub const ROOT: i32 = 5;
    /// With [`crate::job::flag::PROGRAM`]: the program to execute.
    pub const PROGRAM: i32 = 6;
}

/// The same of a guest: a file of its initramfs, which no name leads to once the image is the root.
pub const GUEST_PROGRAM: &core::ffi::CStr = c"/program";

/// How the guest finds its console ports: `/dev/vport*pN` of the one virtio-console device (the first number is
/// the device's among all virtio devices).
///
/// The host opens its side (`VIRTIO_CONSOLE_PORT_OPEN`, 1) of the streams first and of [`CONTROL`](port::CONTROL) last:
/// when init sees the control port open, it knows that a stream that is not open has ended. A side that is closed
/// (`PORT_OPEN`, 0) is the end of that stream, after all bytes that were queued before. Init closes its side of an
/// output when the workload has closed it, and of standard input when the job has none. Bytes that the guest queued
/// before its last mark count: the host takes them off the queue before it stops the machine.
pub mod port {
    /// Control channel, both ways bytes: job block and control messages in; nothing out.
    pub const CONTROL: u32 = 0;
    /// The workload's standard input.
    pub const STDIN: u32 = 1;
    /// The workload's standard output (with a terminal: all its output).
    pub const STDOUT: u32 = 2;
    /// The workload's standard error.
    pub const STDERR: u32 = 3;
    /// How many ports the device has.
    pub const COUNT: u32 = 4;
}

/// Environment variable that tells `isolab-work` where to write marks: `fd:4` or `port`.
pub const MARK_ENV: &str = "ISOLAB_MARK";

/// Environment variable that makes `isolab-work` wait in one of its own subphases: `workload_ready=50` (milliseconds).
pub const DELAY_ENV: &str = "ISOLAB_TEST_DELAY";

/// The signal (`SIGCONT`) for which a ready workload with a mark pipe waits: its account is being read until then.
pub const RELEASE: u8 = 18;
