//! Control messages from isolab to init after the job block: 8 bytes each.

/// Bytes of a message.
pub const MESSAGE_LEN: usize = 8;

/// What isolab asks of init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Send this signal to the workload (its process group with a terminal).
    Signal(u8),
    /// The window has this many rows and columns.
    Resize {
        /// Character rows.
        rows: u16,
        /// Character columns.
        cols: u16,
    },
}

impl Message {
    /// The message's bytes: kind, signal, rows, columns, two zeros; little endian.
    #[must_use]
    pub const fn encode(self) -> [u8; MESSAGE_LEN] {
        match self {
            Self::Signal(signal) => [1, signal, 0, 0, 0, 0, 0, 0],
            Self::Resize { rows, cols } => {
                let (r, c) = (rows.to_le_bytes(), cols.to_le_bytes());
                [2, 0, r[0], r[1], c[0], c[1], 0, 0]
            }
        }
    }

    /// Reads a message; nothing for bytes that are not one.
    #[must_use]
    pub const fn decode(b: &[u8; MESSAGE_LEN]) -> Option<Self> {
        match b {
            [1, signal @ 1..=64, 0, 0, 0, 0, 0, 0] => Some(Self::Signal(*signal)),
            [2, 0, r0, r1, c0, c1, 0, 0] => Some(Self::Resize {
                rows: u16::from_le_bytes([*r0, *r1]),
                cols: u16::from_le_bytes([*c0, *c1]),
            }),
            _ => None,
        }
    }
}
