use proptest::prelude::*;

use super::invariants::{bzimage, elf, file, loads_where_it_may_or_is_refused, signed};
use super::*;

fn check(bytes: &[u8]) -> Result<KernelInfo, KernelError> {
    check_kernel(&file(bytes))
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

#[test]
fn refuses_segments_over_each_other_and_code_without_an_entry() {
    let mut file = elf();
    // A second header beside the first one, at its last byte.
    file.copy_within(64..120, 120);
    file[56] = 2;
    file[120 + 24..120 + 32].copy_from_slice(&0x100_3fff_u64.to_le_bytes());
    assert!(matches!(check(&file), Err(KernelError::Place { start: 0x100_3fff, size: 0x4000 })));
    file[120 + 24..120 + 32].copy_from_slice(&0x100_4000_u64.to_le_bytes());
    check(&file).unwrap();
    let mut file = bzimage();
    file[0x1f4..0x1f8].copy_from_slice(&0x20_u32.to_le_bytes());
    assert!(matches!(check(&file), Err(KernelError::Unsupported(_))));
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
        loads_where_it_may_or_is_refused(&file);
    }
}
