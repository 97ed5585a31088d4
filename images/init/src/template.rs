//! The template of a guest: process 1 with all mounts done waits for its job. What is stored there comes to life many times, so
//! that nothing of it may be secret or unique: random numbers and the wall clock are set before the job is read.

use core::ffi::CStr;

use isolab_bare::mark::Marks;
use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::{CWD, Errno, clock};
use isolab_wire::job::{Job, flag};
use isolab_wire::mark::{Code, Failure, Step};
use isolab_wire::restore::{BLOCK_LEN, Restore};

use crate::At;
use crate::channels::{self, Channels};

/// How long the kernel gets to finish what it has put off since it started: what it does not do now, each restored guest
/// would.
const SETTLE_NS: u64 = 500_000_000;

/// Most bytes of the image's own command that a template holds.
const PRELOAD: usize = 16 << 20;

/// Has the image's own command read in: the restored guests that run it need no disk for it.
fn preload(prepared: &Job<'_>) {
    let Some(Ok(path)) = prepared.args().next().map(CStr::from_bytes_with_nul) else { return };
    if !path.to_bytes().starts_with(b"/") {
        return;
    }
    // Where it is not there, whoever runs it is told.
    if let Ok(file) = io::open(CWD, path, open::RDONLY | open::NONBLOCK | open::CLOEXEC, 0) {
        let _ = io::read_ahead(file, PRELOAD);
        io::close(file);
    }
}

/// Waits for the job of a restored guest; everything after the mark happens once for each of them.
pub(crate) fn wait(prepared: &Job<'_>, channels: &Channels, marks: Marks) -> Result<Job<'static>, Failure> {
    preload(prepared);
    let settled = clock::monotonic_ns().saturating_add(SETTLE_NS);
    clock::sleep_until_ns(settled).at(Step::Restore)?;
    marks.write(Code::Template, 0);
    renew(channels).at(Step::Restore)?;
    let job = channels::read_job(channels.control)?;
    marks.write(Code::Init, 0);
    let same = |bit| prepared.has(bit) == job.has(bit);
    let fits = same(flag::READ_ONLY) && prepared.header.tmpfs_bytes == job.header.tmpfs_bytes;
    if fits && !job.has(flag::TEMPLATE) { Ok(job) } else { Err(Errno::PROTO).at(Step::Restore) }
}

fn renew(channels: &Channels) -> Result<(), Errno> {
    let mut block = [0; BLOCK_LEN];
    channels::read_exact(channels.control, &mut block)?;
    let restore = Restore::decode(&block).ok_or(Errno::PROTO)?;
    let device = io::open(CWD, c"/dev/urandom", open::RDONLY | open::CLOEXEC, 0)?;
    let renewed = clock::reseed(device, restore.seed);
    io::close(device);
    renewed?;
    clock::set_realtime_ns(restore.realtime_ns)
}
