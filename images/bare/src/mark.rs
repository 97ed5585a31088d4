//! Writing marks: to the pipe of a container or to the ports of a guest.

use isolab_wire::RELEASE;
use isolab_wire::mark::{CODE_PORT, Clock, Code, HOLDS, Mark, PORTS, RECORD_LEN, VALUE_PORT};

use crate::sys::{self, Errno, Fd};

/// Longest wait for the release, in seconds: a reader that never gives it must not keep the workload for good.
const HOLD_SECONDS: u64 = 10;
/// Most subphases that one packet can tell.
const MAX_STEPS: usize = 12;
/// Most marks of one packet.
const MAX_MARKS: usize = 16;

/// Where marks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// Nowhere.
    Off,
    /// Records on this pipe.
    Pipe(Fd),
    /// The mark device's ports.
    Port,
}

impl Marks {
    /// Gets the right to the ports (`ioperm`), which children and programs inherit.
    ///
    /// # Errors
    /// No privilege for ports, or a kernel without them.
    pub fn port() -> Result<Self, Errno> {
        sys::process::ioperm(PORTS.0, PORTS.1)?;
        Ok(Self::Port)
    }

    /// From the value of [`isolab_wire::MARK_ENV`].
    #[must_use]
    pub fn from_env(value: Option<&[u8]>) -> Self {
        match value {
            Some(b"port") => Self::port().unwrap_or(Self::Port),
            Some([b'f', b'd', b':', number @ ..]) => match crate::text::parse(number) {
                Some(n @ 3..=1023) => Self::Pipe(Fd(n as i32)),
                _ => Self::Off,
            },
            _ => Self::Off,
        }
    }

    /// Writes [`Code::Ready`] and goes on when the account has been read. On the ports the VMM holds the processor; on a
    /// pipe the reader sends [`RELEASE`], which is blocked before the mark so that it can't be missed.
    pub fn ready(self) {
        match self {
            Self::Pipe(_) => {
                let release = 1_u64 << (RELEASE - 1);
                let blocked = sys::process::blocked_signals().unwrap_or(0);
                let _ = sys::process::block_signals(blocked | release);
                self.write(Code::Ready, HOLDS);
                let _ = sys::process::await_signal(release, HOLD_SECONDS);
                let _ = sys::process::block_signals(blocked);
            }
            Self::Off | Self::Port => self.write(Code::Ready, 0),
        }
    }

    /// Writes [`Code::Exec`]. On a pipe, [`Code::Init`] of the moment `born` comes with it in one packet, for which the
    /// reader wakes once; in a guest it was written at its time.
    pub fn write_exec(self, born: u64) {
        match self {
            Self::Pipe(fd) => write_packet(fd, [(Code::Init, 0, born), (Code::Exec, 0, sys::tsc())]),
            Self::Off | Self::Port => self.write(Code::Exec, 0),
        }
    }

    /// Writes the last mark, and before it the ends of subphases and what is claimed: on a pipe in one packet, in a guest
    /// without the subphases (its time stamp counter is not the host's).
    pub fn write_last(self, code: Code, value: u32, steps: &[(u32, u64)], claims: &[(Code, u32)]) {
        let now = sys::tsc();
        let claims = claims.iter().map(|&(code, value)| (code, value, now));
        let last = claims.chain([(code, value, now)]);
        match self {
            Self::Pipe(fd) => {
                let steps = steps.iter().take(MAX_STEPS).map(|&(number, tsc)| (Code::Subphase, number, tsc));
                write_packet(fd, steps.chain(last));
            }
            Self::Off | Self::Port => last.for_each(|(code, value, _)| self.write(code, value)),
        }
    }

    /// Writes a mark for now.
    pub fn write(self, code: Code, value: u32) {
        self.write_at(code, value, sys::tsc());
    }

    /// Writes a mark for the moment `tsc` (on the ports the VMM takes the time).
    pub fn write_at(self, code: Code, value: u32, tsc: u64) {
        match self {
            Self::Off => {}
            Self::Pipe(fd) => write_packet(fd, [(code, value, tsc)]),
            Self::Port => {
                if value != 0 {
                    sys::out32(VALUE_PORT, value);
                }
                sys::out8(CODE_PORT, code as u8);
            }
        }
    }
}

/// Writes marks (code, value, time stamp) as one packet, of which at most [`MAX_MARKS`] fit. A lost one has no second way
/// to be told; the reader sees that the last one is missing.
fn write_packet(fd: Fd, marks: impl IntoIterator<Item = (Code, u32, u64)>) {
    let mut packet = [0; MAX_MARKS * RECORD_LEN];
    let mut len = 0;
    for (slot, (code, value, stamp)) in packet.chunks_exact_mut(RECORD_LEN).zip(marks) {
        slot.copy_from_slice(&Mark { code, clock: Clock::Tsc, value, stamp }.encode());
        len += RECORD_LEN;
    }
    let _ = sys::io::write(fd, packet.get(..len).unwrap_or_default());
}
