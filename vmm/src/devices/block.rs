//! The image as a read-only block device.
//!
//! Read-only three times: the descriptor is opened so, the device says so, and requests that write are refused.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use virtio_bindings::bindings::virtio_blk as id;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::chain::{self, Chain, Piece};
use super::{Malformed, Served, VirtioDevice};
use crate::memory::GuestRam;
use crate::sys::FileAt;

const SECTOR: u64 = 512;
const SECTOR_LEN: usize = 512;
const QUEUE_SIZE: u16 = 128;
/// Segments of a request: the queue less header and status.
const MAX_SEGMENTS: u32 = 126;
/// Most bytes of one request; Linux asks for 1280 KiB at most, in segments of a page or more.
const MAX_REQUEST: usize = 4 << 20;
/// What a guest sees as the serial number: nothing of the host.
const SERIAL: &[u8] = b"isolab-image";
const HEADER_LEN: usize = 16;

/// The device.
#[derive(Debug)]
pub(crate) struct Block {
    image: File,
    len: u64,
    config: [u8; 24],
}

impl Block {
    /// A device for an image; `image` may be a file or a block device.
    pub(crate) fn open(mut image: File) -> io::Result<Self> {
        // Metadata of a block device says 0.
        let len = image.seek(SeekFrom::End(0))? / SECTOR * SECTOR;
        let mut config = [0; 24];
        config[..8].copy_from_slice(&(len / SECTOR).to_le_bytes());
        config[12..16].copy_from_slice(&MAX_SEGMENTS.to_le_bytes());
        config[20..24].copy_from_slice(&512_u32.to_le_bytes());
        Ok(Self { image, len, config })
    }

    /// Serves one request: returns its status and the bytes written before the status byte.
    fn request(&self, ram: &GuestRam, chain: &Chain, data: &[Piece]) -> (u32, usize) {
        let mut header = [0; HEADER_LEN];
        if chain.readable_len() < HEADER_LEN || chain::read(ram, &chain.readable, &mut header).is_none() {
            return (id::VIRTIO_BLK_S_IOERR, 0);
        }
        let [k0, k1, k2, k3, _, _, _, _, s @ ..] = header;
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            id::VIRTIO_BLK_T_IN => self.read(ram, data, u64::from_le_bytes(s)),
            id::VIRTIO_BLK_T_GET_ID => {
                let mut text = [0; id::VIRTIO_BLK_ID_BYTES as usize];
                text[..SERIAL.len()].copy_from_slice(SERIAL);
                (id::VIRTIO_BLK_S_OK, chain::write(ram, data, &text))
            }
            id::VIRTIO_BLK_T_OUT => (id::VIRTIO_BLK_S_IOERR, 0),
            _ => (id::VIRTIO_BLK_S_UNSUPP, 0),
        }
    }

    fn read(&self, ram: &GuestRam, data: &[Piece], sector: u64) -> (u32, usize) {
        const FAILED: u32 = id::VIRTIO_BLK_S_IOERR;
        let total = data.iter().map(|p| p.len).fold(0, usize::saturating_add);
        let end = sector.checked_mul(SECTOR).and_then(|start| start.checked_add(total as u64));
        if total > MAX_REQUEST || !total.is_multiple_of(SECTOR_LEN) || end.is_none_or(|end| end > self.len) {
            return (FAILED, 0);
        }
        let mut image = FileAt::new(&self.image, sector * SECTOR, self.len);
        let mut done = 0;
        for piece in data {
            match ram.read_exact_volatile_from(piece.at, &mut image, piece.len) {
                Ok(()) => done += piece.len,
                Err(_) => return (FAILED, done),
            }
        }
        (id::VIRTIO_BLK_S_OK, done)
    }
}

/// Splits the status byte from the end of the writable pieces.
fn split_status(writable: &[Piece]) -> Option<(Vec<Piece>, GuestAddress)> {
    let (last, rest) = writable.split_last()?;
    let before = last.len.checked_sub(1)?;
    let mut data = rest.to_vec();
    if before > 0 {
        data.push(Piece { at: last.at, len: before });
    }
    Some((data, GuestAddress(last.at.0 + before as u64)))
}

impl VirtioDevice for Block {
    const ID: u32 = VIRTIO_ID_BLOCK;

    fn features(&self) -> u64 {
        1 << id::VIRTIO_BLK_F_RO | 1 << id::VIRTIO_BLK_F_SEG_MAX | 1 << id::VIRTIO_BLK_F_BLK_SIZE
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn serve(&mut self, ram: &GuestRam, queues: &mut [Queue]) -> Result<Served, Malformed> {
        let mut served = Served::default();
        for queue in queues {
            for _ in 0..queue.size() {
                let Some(chain) = chain::pop(queue, ram)? else { break };
                // Without a byte for the status there is nobody to tell.
                let (data, status_at) = split_status(&chain.writable).ok_or(Malformed)?;
                let (status, written) = self.request(ram, &chain, &data);
                let status = u8::try_from(status).unwrap_or(1);
                ram.write_obj(status, status_at).map_err(|_| Malformed)?;
                chain::push(queue, ram, chain.head, written + 1)?;
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
