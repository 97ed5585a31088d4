//! The binary statistics of KVM (`KVM_GET_STATS_FD`): header, descriptors with names, data.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// More than any kernel's statistics file holds.
const MAX_LEN: usize = 128 * 1024;
/// Fixed part of a descriptor; the name follows.
const DESC_LEN: usize = 16;

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*b.get(at..)?.first_chunk()?))
}

fn index_at(b: &[u8], at: usize) -> Option<usize> {
    u32_at(b, at).and_then(|n| usize::try_from(n).ok())
}

/// The first value of the statistic `name` in the bytes of a statistics file.
pub(crate) fn value(b: &[u8], name: &str) -> Option<u64> {
    let (name_size, count) = (index_at(b, 4)?, index_at(b, 8)?);
    let (descriptors, data) = (index_at(b, 16)?, index_at(b, 20)?);
    let stride = DESC_LEN.checked_add(name_size)?;
    for i in 0..count {
        let at = descriptors.checked_add(i.checked_mul(stride)?)?;
        let found = b.get(at.checked_add(DESC_LEN)?..at.checked_add(stride)?)?;
        if found.split(|&c| c == 0).next() == Some(name.as_bytes()) {
            let at = data.checked_add(index_at(b, at + 8)?)?;
            return Some(u64::from_le_bytes(*b.get(at..)?.first_chunk()?));
        }
    }
    None
}

/// Two counters of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counters {
    /// Exits to KVM.
    pub(super) exits: u64,
    /// Instructions that KVM interpreted.
    pub(super) insn_emulation: u64,
}

impl Counters {
    /// Reads the file; nothing where it lacks one of them.
    pub(super) fn read(file: &File) -> Option<Self> {
        let mut bytes = vec![0; MAX_LEN];
        let len = file.read_at(&mut bytes, 0).ok()?;
        let bytes = bytes.get(..len)?;
        Some(Self { exits: value(bytes, "exits")?, insn_emulation: value(bytes, "insn_emulation")? })
    }

    /// What was counted since `earlier`.
    pub(super) const fn since(self, earlier: Self) -> Self {
        Self {
            exits: self.exits.saturating_sub(earlier.exits),
            insn_emulation: self.insn_emulation.saturating_sub(earlier.insn_emulation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with two statistics, names of 16 bytes.
    fn file() -> Vec<u8> {
        let mut b = Vec::new();
        for word in [0_u32, 16, 2, 24, 72, 136] {
            b.extend_from_slice(&word.to_le_bytes());
        }
        b.resize(72, b'#');
        for (name, offset) in [("exits", 0_u32), ("insn_emulation", 8)] {
            for word in [0, 1 << 16, offset, 0] {
                b.extend_from_slice(&word.to_le_bytes());
            }
            let mut name = name.as_bytes().to_vec();
            name.resize(16, 0);
            b.extend_from_slice(&name);
        }
        assert_eq!(b.len(), 136);
        b.extend_from_slice(&7_u64.to_le_bytes());
        b.extend_from_slice(&u64::MAX.to_le_bytes());
        b
    }

    #[test]
    fn finds_values_by_whole_name() {
        let b = file();
        assert_eq!(value(&b, "exits"), Some(7));
        assert_eq!(value(&b, "insn_emulation"), Some(u64::MAX));
        assert_eq!(value(&b, "exit"), None);
    }

    #[test]
    fn survives_every_cut_and_every_flipped_byte() {
        let b = file();
        for len in 0..b.len() {
            value(&b[..len], "insn_emulation");
        }
        for at in 0..b.len() {
            let mut broken = b.clone();
            broken[at] ^= 0xff;
            value(&broken, "insn_emulation");
        }
        assert_eq!(value(&b[..b.len() - 1], "insn_emulation"), None);
    }
}
