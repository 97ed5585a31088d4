//! Writing marks: to the pipe of a container or to the ports of a guest.

use isolab_wire::mark::{CODE_PORT, Clock, Code, Mark, PORTS, VALUE_PORT};

use crate::sys::{self, Errno, Fd};

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

    /// Writes a mark for now.
    pub fn write(self, code: Code, value: u32) {
        self.write_at(code, value, sys::tsc());
    }

    /// Writes a mark for the moment `tsc` (on the ports the VMM takes the time).
    pub fn write_at(self, code: Code, value: u32, tsc: u64) {
        match self {
            Self::Off => {}
            // A lost mark has no second way to be told; the reader sees that the last one is missing.
            Self::Pipe(fd) => {
                let record = Mark { code, clock: Clock::Tsc, value, stamp: tsc }.encode();
                let _ = sys::io::write(fd, &record);
            }
            Self::Port => {
                if value != 0 {
                    sys::out32(VALUE_PORT, value);
                }
                sys::out8(CODE_PORT, code as u8);
            }
        }
    }
}
