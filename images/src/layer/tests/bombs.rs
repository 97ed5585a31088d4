//! Budgets: each kind of oversized image ends with its own message, on the decompressed side.

use std::io::{Read, Write};

use proptest::prelude::*;

use super::{Budgets, Tar, chain, import};
use crate::layer::invariants::same_however_read;

fn refused(layer: Vec<u8>, budgets: Budgets) -> String {
    chain(&import(&[layer], budgets).expect_err("over the budget"))
}

pub(crate) fn gzip(bytes: impl Read) -> Vec<u8> {
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::best());
    let mut out = Vec::new();
    encoder.read_to_end(&mut out).unwrap();
    out
}

fn zeros_in_a_file(len: u64) -> impl Read {
    let header = Tar::header(b'0', b"zeros", b"", len);
    std::io::Cursor::new(header).chain(std::io::repeat(0).take(len + 1024))
}

#[test]
fn a_gzip_bomb_ends_at_the_total() {
    let bomb = gzip(zeros_in_a_file(8 << 20));
    assert!(bomb.len() < 100_000);
    let message = refused(bomb, Budgets { decompressed_bytes: 1 << 20, ..Budgets::default() });
    assert!(message.contains("import budget of 1048576 decompressed bytes"), "{message}");
}

#[test]
fn a_bomb_ends_at_the_ratio() {
    let budgets = Budgets { ratio: 100, ratio_floor_bytes: 1 << 20, ..Budgets::default() };
    let message = refused(gzip(zeros_in_a_file(4 << 20)), budgets.clone());
    assert!(message.contains("100 decompressed bytes for each compressed byte"), "{message}");
    let mut tar = Vec::new();
    zeros_in_a_file(4 << 20).read_to_end(&mut tar).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(&tar[..], ruzstd::encoding::CompressionLevel::Fastest);
    let message = refused(zstd, budgets);
    assert!(message.contains("100 decompressed bytes for each compressed byte"), "{message}");
}

#[test]
fn budgets_hold_over_all_layers() {
    let layer = Tar::parse("f a 12345");
    let budgets = Budgets { decompressed_bytes: layer.len() as u64 * 2, ..Budgets::default() };
    import(&[layer.clone(), layer.clone()], budgets.clone()).unwrap();
    import(&[layer.clone(), layer.clone(), layer], budgets).unwrap_err();
}

#[test]
fn counts_are_limited() {
    let budgets = Budgets { entries: 10, ..Budgets::default() };
    let deep = ["d"; 11].join("/");
    let many: Vec<_> = (0..11).map(|n| format!("d {n}")).collect();
    assert!(refused(Tar::parse(&many.join(" | ")), budgets.clone()).contains("10 entries"));
    assert!(
        refused(Tar::parse(&format!("f {deep} x")), budgets).contains("10 entries"),
        "implied directories"
    );
    let shallow = Budgets { depth: 4, ..Budgets::default() };
    assert!(refused(Tar::parse("f a/b/c/d/e x"), shallow.clone()).contains("4 nested directories"));
    let linked = "d a/b/c | l s a/b/c | d s/d | l t s/d | d t/e";
    assert!(refused(Tar::parse(linked), shallow).contains("4 nested directories"), "through symlinks");
    let names = Budgets { metadata_bytes: 100, ..Budgets::default() };
    assert!(
        refused(Tar::parse(&format!("f {} x | f {} y", "a".repeat(60), "b".repeat(60))), names)
            .contains("100 bytes of names")
    );
    let lookups = Budgets { lookups: 50, ..Budgets::default() };
    let hops = (0..9).map(|n| format!("f s/s/s/s/s/s/s/{n} x")).collect::<Vec<_>>().join(" | ");
    assert!(refused(Tar::parse(&format!("l s . | {hops}")), lookups).contains("50 path lookups"));
}

#[test]
fn attributes_are_limited() {
    let budgets = Budgets { xattr_bytes: 64, ..Budgets::default() };
    let tar = |len| {
        let value = vec![b'v'; len];
        Tar::default().pax(&[("SCHILY.xattr.user.k", &value)]).entry(b'0', b"a", b"", b"").end()
    };
    import(&[tar(58)], budgets.clone()).unwrap();
    assert!(refused(tar(59), budgets).contains("64 bytes of one file's extended attributes"));
}

#[test]
fn a_window_over_the_cap_is_refused_before_it_is_allocated() {
    // Frame header: window descriptor 0xa8 is 2^31 bytes.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let message = refused(frame.to_vec(), Budgets::default());
    assert!(message.contains("indow"), "{message}");
}

#[test]
fn a_damaged_zstd_checksum_is_refused() {
    let mut zstd = ruzstd::encoding::compress_to_vec(
        &Tar::parse("f a x")[..],
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    import(&[zstd.clone()], Budgets::default()).unwrap();
    let last = zstd.len() - 1;
    zstd[last] ^= 1;
    let message = refused(zstd, Budgets::default());
    assert!(message.contains("zstd checksum does not match"), "{message}");
}

#[test]
fn several_members_and_frames_are_one_stream() {
    let tar = Tar::parse("f a x");
    let (first, second) = tar.split_at(700);
    let joined = [gzip(first), gzip(second)].concat();
    import(&[joined], Budgets::default()).unwrap();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    let frames = [
        ruzstd::encoding::compress_to_vec(first, level),
        skippable,
        ruzstd::encoding::compress_to_vec(second, level),
    ];
    import(&[frames.concat()], Budgets::default()).unwrap();
}

#[test]
fn bytes_after_a_gzip_member_are_refused() {
    let mut bytes = gzip(&Tar::parse("f a x")[..]);
    bytes.write_all(b"hidden").unwrap();
    import(&[bytes], Budgets::default()).unwrap_err();
}

/// Text that compresses with matches and literals of all kinds.
pub(crate) fn text() -> Vec<u8> {
    let lines: Vec<_> = (0..400_u32).map(|n| format!("line {} of {}\n", n * n % 977, n % 7)).collect();
    Tar::default().entry(b'0', b"text", b"", lines.concat().as_bytes()).end()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_streams_never_panic(
        zstd in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let mut bytes =
            if zstd { ruzstd::encoding::compress_to_vec(&text()[..], level) } else { gzip(&text()[..]) };
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        same_however_read(&bytes);
    }
}
