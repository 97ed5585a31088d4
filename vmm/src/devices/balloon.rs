//! Memory that the guest has freed goes back to the host: free page reporting, by a balloon that is never inflated (virtio 1.2,
//! section 5.5).
//!
//! The guest's kernel takes free pages out of its own reach, describes them as one chain of buffers that the device may write, and
//! waits. The host takes the pages (`MADV_DONTNEED`) before the chain is given back, so that no page is taken that is in use again.
//!
//! **What the guest finds there later.** Zeros; in a restored guest, where the page lies in a piece of the template
//! ([`crate::template`]), the template's page: the mapping is private, what goes is this guest's copy. Either is allowed: without
//! `VIRTIO_BALLOON_F_PAGE_POISON`, which is not offered, what a reported page holds is undefined. A Linux guest that counts on the
//! content of free pages (`init_on_free`, page poisoning) sees that the feature is missing and then reports nothing
//! (`virtballoon_validate`, the same in 6.1 and 6.12); every other one treats a free page as full of remains, which its kernel
//! clears before a program gets it. Nothing of another guest can come back: fresh pages are cleared by the host's kernel, and the
//! template's file is written by no guest. What can is the guest's own past, as it was when the template was made, a secret that
//! its kernel has overwritten since among it. All guests of the template hold that anyway (`docs/snapshot.md`).
//!
//! **What a hostile guest gets by it.** It loses pages of its own, at any moment that it likes. Buffers must be whole pages of RAM
//! that the device may write, in one chain no more than there is RAM; all are checked before the first one is taken.

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::chain::{self, Chain};
use super::{Malformed, Served, VirtioDevice};
use crate::memory::GuestRam;
use crate::sys;

/// `VIRTIO_BALLOON_F_PAGE_REPORTING`.
const F_PAGE_REPORTING: u64 = 1 << 5;
const PAGE: u64 = 4096;
/// Inflate and deflate, which every balloon has, and then the reports: the queue 4 by the specification, and 2 to a Linux that
/// counts only those queues whose features are there. Of what could be 2 and 3 else, nothing is offered, so that whatever
/// queue a driver sets up from 2 on is the one for reports. Linux reports 32 ranges at a time and wants room for all of them.
const QUEUES: [u16; 5] = [2, 2, 32, 32, 32];
/// The first queue that can be one for reports.
const REPORTS: usize = 2;
/// `num_pages`, `actual`: the host wants no page, and does not listen to how many the driver says it gave.
const CONFIG: [u8; 8] = [0; 8];

/// The device; it keeps nothing.
#[derive(Debug)]
pub(crate) struct Balloon;

/// Takes the pages of a report.
fn take(ram: &GuestRam, report: &Chain) -> Result<(), Malformed> {
    let whole = |n: u64| n.is_multiple_of(PAGE);
    let pages = |piece: &chain::Piece| piece.len > 0 && whole(piece.at.0) && whole(piece.len as u64);
    let reported = report.writable.iter().map(|piece| piece.len as u64).fold(0, u64::saturating_add);
    let all = ram.iter().map(GuestMemoryRegion::len).fold(0, u64::saturating_add);
    if !report.readable.is_empty() || !report.writable.iter().all(pages) || reported > all {
        return Err(Malformed);
    }
    for piece in &report.writable {
        // Where the host refuses, it keeps the pages, and the guest finds in them what it left.
        let _kept = sys::discard(ram, piece.at, piece.len);
    }
    Ok(())
}

impl VirtioDevice for Balloon {
    const ID: u32 = VIRTIO_ID_BALLOON;

    fn features(&self) -> u64 {
        F_PAGE_REPORTING
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUES
    }

    fn config(&self) -> &[u8] {
        &CONFIG
    }

    fn serve(&mut self, ram: &GuestRam, queues: &mut [Queue]) -> Result<Served, Malformed> {
        let mut served = Served::default();
        for (index, queue) in queues.iter_mut().enumerate() {
            for _ in 0..queue.size() {
                let Some(chain) = chain::pop(queue, ram)? else { break };
                // Pages that are put into or out of a balloon are left where they are.
                if index >= REPORTS {
                    take(ram, &chain)?;
                }
                chain::push(queue, ram, chain.head, 0)?;
                served.interrupt = true;
            }
            served.again |= chain::has_next(queue, ram);
        }
        Ok(served)
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
#[cfg(test)]
mod tests;
