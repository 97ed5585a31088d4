//! One direction of a port: bytes between a host descriptor and the guest's buffers, without copies in between.
//!
//! Nothing here blocks: a descriptor that may block is asked by `poll` before each piece that it can take whole.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::ioctl_fionread;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, ReadVolatile, VolatileMemoryError, WriteVolatile};

use crate::devices::chain::{self, Piece};
use crate::devices::{Malformed, Served};
use crate::memory::GuestRam;

/// What a pipe takes without blocking once `poll` calls it writable (`PIPE_BUF`).
const SAFE_WRITE: usize = 4096;
/// Most bytes moved in one turn, so that no port keeps the others waiting.
const TURN: usize = 256 << 10;

/// From the host into the guest.
#[derive(Debug, Default)]
pub(crate) struct Input {
    fd: Option<Arc<OwnedFd>>,
    nonblocking: bool,
}

/// How a turn of an input ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) served: bool,
    /// End of file (or error): the descriptor is closed now.
    pub(crate) ended: bool,
}

impl Input {
    pub(crate) fn new(fd: Option<OwnedFd>) -> Self {
        let nonblocking = fd.as_ref().is_some_and(is_nonblocking);
        Self { fd: fd.map(Arc::new), nonblocking }
    }

    pub(crate) const fn fd(&self) -> Option<&Arc<OwnedFd>> {
        self.fd.as_ref()
    }

    /// Closes the host's side.
    pub(crate) fn close(&mut self) {
        self.fd = None;
    }

    /// Reads what is there into the guest's buffers; to be called where `poll` reported the descriptor.
    pub(crate) fn turn(&mut self, ram: &GuestRam, queue: &mut Queue) -> Result<Moved, Malformed> {
        let mut moved = Moved::default();
        let Some(fd) = &self.fd else { return Ok(moved) };
        // Bytes that can be read without blocking; where the kernel can't say, one read is safe after poll.
        let mut ready = match ioctl_fionread(fd) {
            _ if self.nonblocking => TURN,
            Ok(n) if n > 0 => usize::try_from(n).unwrap_or(TURN).min(TURN),
            _ => 1,
        };
        while ready > 0 && chain::has_next(queue, ram) {
            let Some(chain) = chain::pop(queue, ram)? else { break };
            let Some(piece) = chain.writable.iter().find(|p| p.len > 0) else { return Err(Malformed) };
            match read_once(fd, ram, *piece)? {
                Some(0) => {
                    put_back(queue);
                    moved.ended = true;
                    break;
                }
                Some(n) => {
                    chain::push(queue, ram, chain.head, n)?;
                    moved.served = true;
                    ready = ready.saturating_sub(n);
                }
                None => {
                    put_back(queue);
                    break;
                }
            }
        }
        if moved.ended {
            self.fd = None;
        }
        Ok(moved)
    }
}

/// Makes the chain that was just taken available again: nothing was written to it.
fn put_back(queue: &mut Queue) {
    queue.set_next_avail(queue.next_avail().wrapping_sub(1));
}

/// One read: bytes, 0 at the end or after an error, nothing where it would block.
fn read_once(mut fd: &OwnedFd, ram: &GuestRam, piece: Piece) -> Result<Option<usize>, Malformed> {
    let mut target = ram.get_slice(piece.at, piece.len).map_err(|_| Malformed)?;
    loop {
        match fd.read_volatile(&mut target) {
            Ok(n) => return Ok(Some(n)),
            Err(VolatileMemoryError::IOError(e)) => match e.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(None),
                _ => return Ok(Some(0)),
            },
            Err(_) => return Err(Malformed),
        }
    }
}

/// A chain on its way to the host.
#[derive(Debug)]
struct InFlight {
    head: u16,
    /// Pieces that are still to be written, last first.
    pieces: Vec<Piece>,
}

/// From the guest to the host.
#[derive(Debug)]
pub(crate) struct Output {
    fd: Option<Arc<OwnedFd>>,
    /// Most bytes of one write.
    piece: usize,
    in_flight: Option<InFlight>,
    blocked: bool,
    /// Set at the end of the machine: the first chain that is not written any more.
    until: Option<u16>,
}

/// How a write ended.
enum Wrote {
    Some(usize),
    Blocked,
    /// Nobody reads any more.
    Closed,
}

impl Output {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let regular = fstat(&fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        let piece = if regular || is_nonblocking(&fd) { TURN } else { SAFE_WRITE };
        Self { fd: Some(Arc::new(fd)), piece, in_flight: None, blocked: false, until: None }
    }

    /// The descriptor to poll for room, where a turn found none.
    pub(crate) fn waits_for(&self) -> Option<&Arc<OwnedFd>> {
        self.fd.as_ref().filter(|_| self.blocked)
    }

    /// Whether nothing of the guest is on its way.
    pub(crate) const fn is_idle(&self) -> bool {
        self.in_flight.is_none()
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.fd.is_some()
    }

    /// Whether the guest's bytes are all with the host.
    pub(crate) fn is_drained(&self, ram: &GuestRam, queue: &Queue) -> bool {
        self.in_flight.is_none() && !self.has_more(ram, queue)
    }

    fn has_more(&self, ram: &GuestRam, queue: &Queue) -> bool {
        self.until != Some(queue.next_avail()) && chain::has_next(queue, ram)
    }

    /// From now on only what is available already: other processors may still be adding.
    pub(crate) fn seal(&mut self, ram: &GuestRam, queue: &Queue) {
        self.until = queue.avail_idx(ram, Ordering::Acquire).ok().map(|index| index.0);
    }

    /// Closes the host's side; what the guest still sends is thrown away.
    pub(crate) fn close(&mut self) {
        self.fd = None;
        self.blocked = false;
    }

    /// The driver begins anew.
    pub(crate) fn reset(&mut self) {
        self.in_flight = None;
        self.blocked = false;
    }

    /// Writes what the guest has made available; says too whether the reader just went away.
    pub(crate) fn turn(&mut self, ram: &GuestRam, queue: &mut Queue) -> Result<(Served, bool), Malformed> {
        let (mut served, mut left, was_open) = (Served::default(), TURN, self.is_open());
        self.blocked = false;
        for _ in 0..=queue.size() {
            if self.in_flight.is_none() {
                if !self.has_more(ram, queue) {
                    break;
                }
                let Some(chain) = chain::pop(queue, ram)? else { break };
                let pieces = chain.readable.into_iter().rev().filter(|p| p.len > 0).collect();
                self.in_flight = Some(InFlight { head: chain.head, pieces });
            }
            if !self.write_in_flight(ram, &mut left)? {
                break;
            }
            if let Some(done) = self.in_flight.take() {
                chain::push(queue, ram, done.head, 0)?;
                served.interrupt = true;
            }
        }
        served.again = !self.blocked && !self.is_drained(ram, queue);
        Ok((served, was_open && !self.is_open()))
    }

    /// Whether the chain in flight is done.
    fn write_in_flight(&mut self, ram: &GuestRam, left: &mut usize) -> Result<bool, Malformed> {
        let Some(flight) = &mut self.in_flight else { return Ok(true) };
        while let Some(piece) = flight.pieces.last_mut() {
            let Some(fd) = &self.fd else { return Ok(true) };
            if *left == 0 {
                return Ok(false);
            }
            let len = piece.len.min(self.piece).min(*left);
            match write_once(fd, ram, Piece { at: piece.at, len }, self.piece == SAFE_WRITE)? {
                Wrote::Some(n) => {
                    *left -= n;
                    piece.len -= n;
                    piece.at = GuestAddress(piece.at.0 + n as u64);
                    if piece.len == 0 {
                        flight.pieces.pop();
                    }
                }
                Wrote::Blocked => {
                    self.blocked = true;
                    return Ok(false);
                }
                Wrote::Closed => self.fd = None,
            }
        }
        Ok(true)
    }
}

fn write_once(mut fd: &OwnedFd, ram: &GuestRam, piece: Piece, ask: bool) -> Result<Wrote, Malformed> {
    let source = ram.get_slice(piece.at, piece.len).map_err(|_| Malformed)?;
    loop {
        if ask && !is_writable(fd) {
            return Ok(Wrote::Blocked);
        }
        match fd.write_volatile(&source) {
            Ok(n) => return Ok(Wrote::Some(n)),
            Err(VolatileMemoryError::IOError(e)) => match e.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(Wrote::Blocked),
                _ => return Ok(Wrote::Closed),
            },
            Err(_) => return Err(Malformed),
        }
    }
}

/// Whether a write won't block; a descriptor in error is one whose write fails at once.
fn is_writable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|n| n > 0)
}

fn is_nonblocking(fd: &OwnedFd) -> bool {
    fcntl_getfl(fd.as_fd()).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}
