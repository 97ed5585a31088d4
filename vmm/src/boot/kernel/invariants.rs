//! Small kernels, and what holds for any kernel file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vm_memory::Bytes;

use super::*;

const SETUP_SECTORS: usize = 15;
const CODE: usize = 8 << 10;

/// The smallest file that says of itself what a distribution's kernel says.
#[must_use]
pub fn bzimage() -> Vec<u8> {
    let mut file = vec![0; (SETUP_SECTORS + 1) * 512 + CODE];
    file[0x1f1] = u8::try_from(SETUP_SECTORS).expect("small");
    file[0x1f4..0x1f8].copy_from_slice(&u32::try_from(CODE / 16).expect("small").to_le_bytes());
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    file[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
    file[0x211] = 1;
    file[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    file[0x234] = 1;
    file[0x236] = 1;
    file[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
    file[0x260..0x264].copy_from_slice(&0x20_0000_u32.to_le_bytes());
    file[0x600..0x60b].copy_from_slice(b"6.1.0-test\0");
    file
}

/// A bzImage with a signature after its code.
#[must_use]
pub fn signed() -> Vec<u8> {
    let mut file = bzimage();
    let end = u32::try_from(file.len()).expect("small");
    file[0x3c..0x40].copy_from_slice(&0x40_u32.to_le_bytes());
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    let entry = 0x40 + 24 + 112 + 32;
    file[entry..entry + 4].copy_from_slice(&end.to_le_bytes());
    file[entry + 4..entry + 8].copy_from_slice(&9000_u32.to_le_bytes());
    file.resize(file.len() + 9000, 0x30);
    file
}

/// An ELF file with one segment and a section table at its end.
#[must_use]
pub fn elf() -> Vec<u8> {
    let mut file = vec![0; 0x5000];
    file[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    file[16..20].copy_from_slice(&[2, 0, 0x3e, 0]);
    file[24..32].copy_from_slice(&0x100_0010_u64.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[40..48].copy_from_slice(&0x4f80_u64.to_le_bytes());
    file[52..64].copy_from_slice(&[64, 0, 56, 0, 1, 0, 64, 0, 2, 0, 0, 0]);
    file[64..72].copy_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    for (at, value) in [(72, 0x1000_u64), (88, 0x100_0000), (96, 0x2000), (104, 0x4000)] {
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    file
}

/// An unnamed file of these bytes.
pub(super) fn file(bytes: &[u8]) -> File {
    let file = rustix::fs::memfd_create("kernel", rustix::fs::MemfdFlags::CLOEXEC).map(File::from);
    let file = file.expect("a memory file");
    file.write_all_at(bytes, 0).expect("write");
    file
}

/// A kernel that is accepted has its segments apart from each other, in memory that is free for them and within reach; its
/// entry is in one of them. Loaded, it leaves all memory outside alone.
pub fn loads_where_it_may_or_is_refused(bytes: &[u8]) {
    let file = file(bytes);
    let Ok(info) = check_kernel(&file) else { return };
    assert!(info.memory_end <= MAX_MEMORY_END && info.memory_start >= layout::HIGH_MEMORY, "{info:?}");
    assert!((info.memory_start..info.memory_end).contains(&info.entry), "{info:?}");
    let mut places: Vec<_> = info.segments.iter().map(|s| (s.place, s.place + s.memory_bytes)).collect();
    places.retain(|(start, end)| start < end);
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "segments overlap: {info:?}");
    let bytes = (info.memory_end + 1).next_multiple_of(1 << 21);
    // Not `memory::map`: what that maps stays for as long as the process.
    let whole = usize::try_from(bytes).expect("less than 4 GiB");
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), whole)]).expect("memory");
    if load(&ram, &file, &info).is_err() {
        return;
    }
    let untouched = |start: u64, end: u64| {
        let len = usize::try_from((end - start).min(1 << 20)).expect("small");
        let mut found = vec![0; len];
        ram.read_slice(&mut found, GuestAddress(start)).expect("in RAM");
        found.iter().all(|&byte| byte == 0)
    };
    assert!(untouched(0, layout::HIGH_MEMORY), "the first MiB was written to");
    assert!(untouched(info.memory_end, bytes), "memory after the kernel was written to");
}
