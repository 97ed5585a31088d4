//! Records on disk (Linux, `fs/erofs/erofs_fs.h`); all numbers little endian.

use crc::{CRC_32_ISCSI, Crc};

/// Bytes of a block.
pub const BLOCK: usize = 4096;
/// Longest name.
pub const MAX_NAME: usize = 255;
/// Deepest directory that is written or accepted.
pub const MAX_DEPTH: usize = 1024;
/// Longest target of a symlink (`PATH_MAX` without its NUL).
pub(super) const MAX_TARGET: usize = 4095;
/// A block as a number of the file.
pub(super) const BLOCK_LEN: u64 = BLOCK as u64;
/// Where the superblock starts.
pub(super) const SUPER_AT: usize = 1024;
/// Bytes of the superblock.
pub(super) const SUPER_LEN: usize = 128;
/// Place of the checksum in the file.
pub(super) const CHECKSUM_AT: usize = SUPER_AT + 4;
/// Place of the UUID in the file.
pub(super) const UUID_AT: usize = SUPER_AT + 48;
/// First byte of inodes: behind the superblock.
pub(super) const META_AT: usize = SUPER_AT + SUPER_LEN;
/// Inode numbers count slots of this size from byte 0 (our `meta_blkaddr` is 0).
pub(super) const SLOT: usize = 32;
/// The root's number; the field has 16 bits, so the root comes first.
pub(super) const ROOT_NID: u16 = 36;
/// Bytes of an extended inode.
pub(super) const INODE_LEN: usize = 64;
/// Bytes of an entry of a directory, without its name.
pub(super) const DIRENT_LEN: usize = 12;
/// Bytes of the header before inline attributes.
pub(super) const XATTR_HEADER_LEN: usize = 12;
/// Bytes of an attribute, without name and value.
pub(super) const XATTR_ENTRY_LEN: usize = 4;

const MAGIC: u32 = 0xE0F5_E1E2;
/// `SB_CHKSUM | MTIME`: the superblock has a checksum; inode times are modification times.
const FEATURES_COMPAT: u32 = 0b11;

/// What differs between our superblocks; the rest is constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) inodes: u64,
    pub(super) blocks: u32,
}

impl Superblock {
    /// The record, with UUID and checksum still zero.
    pub(super) fn encode(&self) -> [u8; SUPER_LEN] {
        let mut b = [0; SUPER_LEN];
        b[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        b[8..12].copy_from_slice(&FEATURES_COMPAT.to_le_bytes());
        b[12] = 12; // log2 of the block size
        b[14..16].copy_from_slice(&ROOT_NID.to_le_bytes());
        b[16..24].copy_from_slice(&self.inodes.to_le_bytes());
        b[36..40].copy_from_slice(&self.blocks.to_le_bytes());
        b
    }

    /// Reads a record; nothing where any field but UUID and checksum is not as we write it, feature bits above
    /// all.
    pub(super) fn decode(b: &[u8; SUPER_LEN]) -> Option<Self> {
        let this = Self { inodes: u64_at(b, 16), blocks: u32_at(b, 36) };
        let mut plain = *b;
        plain[4..8].fill(0);
        plain[48..64].fill(0);
        (plain == this.encode()).then_some(this)
    }
}

/// Where the bytes of a file, directory or symlink lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In whole blocks.
    Plain,
    /// Whole blocks, and the rest behind the inode and its attributes.
    Inline,
}

/// An extended inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawInode {
    pub(super) layout: Layout,
    /// Attribute area: 0, or 1 + (bytes - 12) / 4.
    pub(super) xattr_count: u16,
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) block: u32,
    /// Number for 32-bit `stat`: 1 for the root, then in order.
    pub(super) ino: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_s: i64,
    pub(super) mtime_ns: u32,
    pub(super) nlink: u32,
}

impl RawInode {
    pub(super) fn encode(&self) -> [u8; INODE_LEN] {
        let mut b = [0; INODE_LEN];
        let layout: u16 = match self.layout {
            Layout::Plain => 0,
            Layout::Inline => 2,
        };
        b[0..2].copy_from_slice(&(1 | layout << 1).to_le_bytes()); // bit 0: extended
        b[2..4].copy_from_slice(&self.xattr_count.to_le_bytes());
        b[4..6].copy_from_slice(&self.mode.to_le_bytes());
        b[8..16].copy_from_slice(&self.size.to_le_bytes());
        for (at, word) in [(16, self.block), (20, self.ino), (24, self.uid), (28, self.gid)] {
            b[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        b[32..40].copy_from_slice(&self.mtime_s.to_le_bytes());
        b[40..44].copy_from_slice(&self.mtime_ns.to_le_bytes());
        b[44..48].copy_from_slice(&self.nlink.to_le_bytes());
        b
    }

    /// Reads a record; nothing for any that [`RawInode::encode`] never makes.
    pub(super) fn decode(b: &[u8; INODE_LEN]) -> Option<Self> {
        let layout = match u16_at(b, 0) {
            0b001 => Layout::Plain,
            0b101 => Layout::Inline,
            _ => return None,
        };
        let this = Self {
            layout,
            xattr_count: u16_at(b, 2),
            mode: u16_at(b, 4),
            size: u64_at(b, 8),
            block: u32_at(b, 16),
            ino: u32_at(b, 20),
            uid: u32_at(b, 24),
            gid: u32_at(b, 28),
            mtime_s: u64_at(b, 32).cast_signed(),
            mtime_ns: u32_at(b, 40),
            nlink: u32_at(b, 44),
        };
        (this.encode() == *b).then_some(this)
    }

    /// Bytes of the attribute area.
    pub(super) fn xattr_len(&self) -> usize {
        match self.xattr_count {
            0 => 0,
            n => XATTR_HEADER_LEN + 4 * (usize::from(n) - 1),
        }
    }
}

/// Bits of `mode` that say what an inode is.
pub(super) mod file_type {
    pub(in super::super) const MASK: u16 = 0o170_000;
    pub(in super::super) const DIR: u16 = 0o040_000;
    pub(in super::super) const FILE: u16 = 0o100_000;
    pub(in super::super) const SYMLINK: u16 = 0o120_000;
    pub(in super::super) const FIFO: u16 = 0o010_000;

    /// The same in an entry of a directory.
    pub(in super::super) const fn dirent(mode: u16) -> u8 {
        match mode & MASK {
            FILE => 1,
            DIR => 2,
            FIFO => 5,
            SYMLINK => 7,
            _ => 0,
        }
    }
}

/// Prefixes of attribute names and their numbers. The two with a whole name stand before any that they begin with.
pub(super) const XATTR_PREFIXES: [(u8, &[u8]); 5] = [
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
];

pub(super) fn u16_at(b: &[u8], at: usize) -> u16 {
    match b.get(at..at + 2) {
        Some(&[x, y]) => u16::from_le_bytes([x, y]),
        _ => 0,
    }
}

pub(super) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from(u16_at(b, at)) | u32::from(u16_at(b, at + 2)) << 16
}

pub(super) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

static CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// CRC-32C as the kernel's `crc32c(~0, ...)`: reflected, no final inversion.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    !CASTAGNOLI.checksum(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_check_string_is_the_published_one() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_superblock_with_another_feature_is_refused() {
        let good = Superblock { inodes: 7, blocks: 9 }.encode();
        assert_eq!(Superblock::decode(&good), Some(Superblock { inodes: 7, blocks: 9 }));
        for at in (0..SUPER_LEN).filter(|at| !matches!(at, 4..8 | 16..24 | 36..40 | 48..64)) {
            for bit in 0..8 {
                let mut bad = good;
                bad[at] ^= 1 << bit;
                assert_eq!(Superblock::decode(&bad), None, "byte {at} bit {bit}");
            }
        }
    }
}
