//! Random numbers of a seed: the same attack each time.

/// Marsaglia's xorshift64*.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(if seed == 0 { 1 } else { seed })
    }

    /// The next one.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One below this (not 0).
    pub const fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        let at = self.below(all.len() as u64);
        all[usize::try_from(at).unwrap_or(0)]
    }

    /// A number that breaks things: none, one, all ones, a sign, sizes of a page and of RAM, or any.
    pub fn hostile(&mut self) -> u64 {
        let any = self.next();
        let near = self.below(4096);
        self.of(&[
            0,
            1,
            u64::MAX,
            1 << 31,
            1 << 63,
            4096,
            0xffff_ffff,
            crate::virtio::RAM_END - near,
            crate::virtio::RAM_END,
            near,
            any >> 32,
            any,
        ])
    }
}
