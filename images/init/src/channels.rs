//! The channels to isolab: control and, in a guest, the workload's three streams.

use isolab_bare::cell::Once;
use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::{CWD, Errno, Fd};
use isolab_wire::GUEST_PROGRAM;
use isolab_wire::control::{MESSAGE_LEN, Message};
use isolab_wire::fd;
use isolab_wire::job::{HEADER_LEN, Header, Job, MAX_LEN, flag};
use isolab_wire::mark::{Failure, Step};

use crate::{At, Place};

/// The mark pipe of a container.
pub(crate) const MARKS: Fd = Fd(fd::MARKS);
/// The image's mount, or the directory, of a container.
pub(crate) const ROOT: Fd = Fd(fd::ROOT);

/// Open channels.
pub(crate) struct Channels {
    /// Job block and control messages.
    pub(crate) control: Fd,
    /// Standard input, output, error of the workload, towards isolab.
    pub(crate) streams: [Fd; 3],
}

/// A container's channels were open before this program started; nothing else may have been.
pub(crate) fn inherited() -> Result<Channels, Failure> {
    occupy_standard_descriptors().at(Step::Channels)?;
    io::close_range(fd::PROGRAM as u32 + 1, u32::MAX, false).at(Step::Channels)?;
    io::close_range(3, u32::MAX, true).at(Step::Channels)?;
    Ok(Channels { control: Fd(fd::CONTROL), streams: [Fd(0), Fd(1), Fd(2)] })
}

/// Opens /dev/null on each of 0, 1, 2 that is closed, so that no later descriptor takes such a number.
pub(crate) fn occupy_standard_descriptors() -> Result<(), Errno> {
    loop {
        let fd = io::open(CWD, c"/dev/null", open::RDWR, 0)?;
        if fd.0 > 2 {
            io::close(fd);
            return Ok(());
        }
    }
}

/// Reads and checks a job block, which stays where it was read. A guest of a template reads two: the template's and its own.
pub(crate) fn read_job(control: Fd) -> Result<Job<'static>, Failure> {
    static BLOCKS: [Once<[u8; MAX_LEN]>; 2] = [const { Once::new([0; MAX_LEN]) }; 2];
    let read = || {
        let block = BLOCKS.iter().find_map(Once::take).ok_or(Errno::INVAL)?;
        let (head, rest) = block.split_first_chunk_mut::<HEADER_LEN>().ok_or(Errno::INVAL)?;
        read_exact(control, head)?;
        let total = Header::total_len(head).map_err(|_| Errno::PROTO)?;
        read_exact(control, rest.get_mut(..total - HEADER_LEN).ok_or(Errno::PROTO)?)?;
        Job::decode(block.get(..total).ok_or(Errno::PROTO)?).map_err(|_| Errno::PROTO)
    };
    read().at(Step::Job)
}

/// The program of a job that brings its own. Before the guest's first root is covered: it is a file there.
pub(crate) fn program(place: Place, job: &Job<'_>) -> Result<Option<Fd>, Failure> {
    match place {
        _ if !job.has(flag::PROGRAM) => Ok(None),
        Place::Container => Ok(Some(Fd(fd::PROGRAM))),
        Place::Guest => {
            io::open(CWD, GUEST_PROGRAM, open::RDONLY | open::CLOEXEC, 0).map(Some).at(Step::Exec)
        }
    }
}

/// Reads until the buffer is full.
pub(crate) fn read_exact(fd: Fd, mut into: &mut [u8]) -> Result<(), Errno> {
    while !into.is_empty() {
        let n = io::read(fd, into)?;
        if n == 0 {
            // isolab is gone before it said what to do.
            return Err(Errno::PIPE);
        }
        into = into.get_mut(n..).unwrap_or_default();
    }
    Ok(())
}

/// Control messages, put together from whatever pieces the channel gives.
pub(crate) struct Messages {
    bytes: [u8; MESSAGE_LEN],
    len: usize,
}

/// What one read of the control channel gave.
pub(crate) enum Received {
    /// A message.
    Message(Message),
    /// Part of one, or bytes that mean nothing.
    Nothing,
    /// isolab is gone.
    End,
}

impl Messages {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; MESSAGE_LEN], len: 0 }
    }

    /// Reads once; call when the channel is readable.
    pub(crate) fn receive(&mut self, control: Fd) -> Received {
        let Some(free) = self.bytes.get_mut(self.len..) else { return Received::End };
        match io::read(control, free) {
            Ok(0) => return Received::End,
            Err(Errno::AGAIN) => return Received::Nothing,
            Err(_) => return Received::End,
            Ok(n) => self.len += n,
        }
        if self.len < MESSAGE_LEN {
            return Received::Nothing;
        }
        self.len = 0;
        Message::decode(&self.bytes).map_or(Received::Nothing, Received::Message)
    }
}
