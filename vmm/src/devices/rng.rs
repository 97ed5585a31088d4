//! Entropy from the host's kernel.

use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::{Queue, QueueT};

use super::chain::{self, Piece};
use super::{Malformed, Served, VirtioDevice};
use crate::memory::GuestRam;

/// Most bytes of one request, whatever its buffers hold.
const MAX_REQUEST: usize = 64 << 10;
const SCRATCH: usize = 1024;

/// The device; it keeps nothing.
#[derive(Debug)]
pub(crate) struct Rng;

fn fill(ram: &GuestRam, pieces: &[Piece]) -> usize {
    let mut done = 0;
    let mut scratch = [0; SCRATCH];
    for piece in pieces {
        let mut within = 0;
        while within < piece.len && done < MAX_REQUEST {
            let want = SCRATCH.min(piece.len - within).min(MAX_REQUEST - done);
            let Ok(n) = getrandom(&mut scratch[..want], GetRandomFlags::empty()) else { return done };
            let Some(at) = piece.at.0.checked_add(within as u64) else { return done };
            let target = Piece { at: vm_memory::GuestAddress(at), len: n };
            if n == 0 || chain::write(ram, &[target], &scratch[..n]) != n {
                return done;
            }
            within += n;
            done += n;
        }
    }
    done
}

impl VirtioDevice for Rng {
    const ID: u32 = VIRTIO_ID_RNG;

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[16]
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn serve(&mut self, ram: &GuestRam, queues: &mut [Queue]) -> Result<Served, Malformed> {
        let mut served = Served::default();
        for queue in queues {
            for _ in 0..queue.size() {
                let Some(chain) = chain::pop(queue, ram)? else { break };
                let written = fill(ram, &chain.writable);
                chain::push(queue, ram, chain.head, written)?;
                served.interrupt = true;
            }
            served.again |= chain::has_next(queue, ram);
        }
        Ok(served)
    }
}
