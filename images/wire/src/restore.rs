//! The restore block: what a guest that continues from a template must not have from there. The job block follows it.
//!
//! Layout (little endian): [`MAGIC`]; [`VERSION`] u16; zero u16; the host's `CLOCK_REALTIME` in nanoseconds u64; [`SEED_LEN`]
//! random bytes.

/// First bytes of a block.
pub const MAGIC: [u8; 4] = *b"ISOR";
/// Version of this layout.
pub const VERSION: u16 = 1;
/// Random bytes for the guest's generator: twice what it is seeded with.
pub const SEED_LEN: usize = 64;
/// Bytes of a block.
pub const BLOCK_LEN: usize = 16 + SEED_LEN;

/// What differs between two guests of one template.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Restore {
    /// The host's `CLOCK_REALTIME` in nanoseconds.
    pub realtime_ns: u64,
    /// Random bytes of the host.
    pub seed: [u8; SEED_LEN],
}

/// A secret has no place in a log.
impl core::fmt::Debug for Restore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Restore").field("realtime_ns", &self.realtime_ns).finish_non_exhaustive()
    }
}

impl Restore {
    /// The block's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK_LEN] {
        let mut out = [0; BLOCK_LEN];
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[8..16].copy_from_slice(&self.realtime_ns.to_le_bytes());
        out[16..].copy_from_slice(&self.seed);
        out
    }

    /// Reads a block; nothing for bytes that are not one of this version.
    #[must_use]
    pub fn decode(b: &[u8; BLOCK_LEN]) -> Option<Self> {
        let (head, seed) = b.split_last_chunk()?;
        let [m0, m1, m2, m3, v0, v1, 0, 0, time @ ..] = head else { return None };
        let time = <[u8; 8]>::try_from(time).ok()?;
        let known = [*m0, *m1, *m2, *m3] == MAGIC && u16::from_le_bytes([*v0, *v1]) == VERSION;
        known.then_some(Self { realtime_ns: u64::from_le_bytes(time), seed: *seed })
    }
}
