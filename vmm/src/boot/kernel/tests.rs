use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::*;

const SETUP_SECTORS: usize = 15;
const CODE: usize = 64 << 10;

/// The smallest file that says of itself what a distribution's kernel says.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; (SETUP_SECTORS + 1) * 512 + CODE];
    file[0x1f1] = u8::try_from(SETUP_SECTORS).unwrap();
    file[0x1f4..0x1f8].copy_from_slice(&u32::try_from(CODE / 16).unwrap().to_le_bytes());
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
fn signed() -> Vec<u8> {
    let mut file = bzimage();
    let end = u32::try_from(file.len()).unwrap();
    file[0x3c..0x40].copy_from_slice(&0x40_u32.to_le_bytes());
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    let entry = 0x40 + 24 + 112 + 32;
    file[entry..entry + 4].copy_from_slice(&end.to_le_bytes());
    file[entry + 4..entry + 8].copy_from_slice(&9000_u32.to_le_bytes());
    file.resize(file.len() + 9000, 0x30);
    file
}

/// An ELF file with one segment and a section table at its end.
fn elf() -> Vec<u8> {
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

fn check(bytes: &[u8]) -> Result<KernelInfo, KernelError> {
    let file = File::from(rustix::fs::memfd_create("kernel", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(bytes, 0).unwrap();
    check_kernel(&file)
}

#[test]
fn accepts_a_whole_bzimage_and_reads_its_version() {
    for file in [bzimage(), signed()] {
        let info = check(&file).unwrap();
        assert_eq!((info.format, info.version.as_str()), (KernelFormat::BzImage, "6.1.0-test"));
        assert_eq!((info.entry, info.memory_end), (0x10_0200, 0x120_0000));
    }
}

#[test]
fn accepts_a_whole_elf_kernel() {
    let info = check(&elf()).unwrap();
    assert_eq!((info.format, info.entry, info.memory_end), (KernelFormat::Elf, 0x100_0010, 0x100_4000));
    assert_eq!(info.free_below(), 0xf0_0000);
}

#[test]
fn refuses_a_file_cut_short_at_any_4_kib() {
    for file in [bzimage(), signed(), elf()] {
        for len in (0..file.len()).step_by(4096) {
            let error = check(&file[..len]).expect_err("a cut file was accepted");
            let cut = matches!(error, KernelError::Truncated { .. });
            assert!(cut || len == 0 && matches!(error, KernelError::Format), "{len}: {error}");
        }
        assert!(matches!(check(&file[..file.len() - 1]), Err(KernelError::Truncated { .. })));
    }
}

#[test]
fn refuses_what_is_not_a_kernel() {
    assert!(matches!(check(b"#!/bin/sh\n"), Err(KernelError::Format)));
    assert!(matches!(check(&vec![0; 100_000]), Err(KernelError::Format)));
    let mut other_cpu = elf();
    other_cpu[18] = 0xb7;
    assert!(matches!(check(&other_cpu), Err(KernelError::Format)));
}

#[test]
fn refuses_a_segment_over_the_boot_tables_or_out_of_reach() {
    for place in [0_u64, 0x9000, u64::MAX - 0x1000, 1 << 40] {
        let mut file = elf();
        file[88..96].copy_from_slice(&place.to_le_bytes());
        assert!(matches!(check(&file), Err(KernelError::Place { .. })), "{place:#x}");
    }
}

proptest! {
    #[test]
    fn any_change_is_accepted_or_refused_without_panic(
        which in 0_usize..3,
        changes in prop::collection::vec((0_usize..0x700, any::<u8>()), 1..20),
    ) {
        let mut file = [bzimage(), signed(), elf()][which].clone();
        for (at, byte) in changes {
            file[at] = byte;
        }
        if let Ok(info) = check(&file) {
            prop_assert!(info.memory_end <= MAX_MEMORY_END && info.memory_start >= layout::HIGH_MEMORY);
        }
    }
}
