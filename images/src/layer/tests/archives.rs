//! Tar strictness: one reading or an error (threat I-04).

use proptest::prelude::*;

use super::{Budgets, Tar, chain, import, sample, show, spool};
use crate::budget::Meter;
use crate::digest::Digest;
use crate::layer::invariants::one_reading;
use crate::layer::{Build, Expected};

fn tree(archive: Vec<u8>) -> String {
    match import(&[archive], Budgets::default()) {
        Ok((tree, spool)) => show(&tree, &spool),
        Err(error) => format!("ERROR {}", chain(&error)),
    }
}

fn refused(archive: Vec<u8>, part: &str) {
    let found = tree(archive);
    assert!(found.starts_with("ERROR ") && found.contains(part), "expected {part}: {found}");
}

/// A header with some bytes changed and the checksum right.
fn changed(typeflag: u8, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut block = Tar::header(typeflag, b"a", b"", 0);
    block[at..at + bytes.len()].copy_from_slice(bytes);
    Tar::seal(&mut block);
    Tar::default().raw(&block).end()
}

#[test]
fn reads_long_names_of_both_kinds() {
    let long = [&[b'a'; 150][..], b"/", &[b'b'; 150]].concat();
    let name = [&long[..], b"\0"].concat();
    let gnu = Tar::default().entry(b'L', b"././@LongLink", b"", &name).entry(b'0', b"cut", b"", b"x").end();
    let pax = Tar::default().pax(&[("path", &long)]).entry(b'0', b"cut", b"", b"x").end();
    assert_eq!(tree(gnu), tree(pax.clone()));
    assert!(tree(pax).contains(&"b".repeat(150)));
    let links = Tar::default()
        .entry(b'K', b"././@LongLink", b"", &name)
        .entry(b'2', b"gnu", b"cut", b"")
        .pax(&[("linkpath", &long)])
        .entry(b'2', b"pax", b"cut", b"");
    let text = String::from_utf8(long).unwrap();
    assert_eq!(tree(links.end()), format!("gnu->{text} pax->{text}"));
}

#[test]
fn joins_the_prefix_only_where_it_is_one() {
    let mut block = Tar::header(b'0', b"name", b"", 0);
    block[345..348].copy_from_slice(b"dir");
    Tar::seal(&mut block);
    assert_eq!(tree(Tar::default().raw(&block).end()), "dir/ dir/name=");
    block[257..265].copy_from_slice(b"ustar  \0");
    Tar::seal(&mut block);
    assert_eq!(tree(Tar::default().raw(&block).end()), "name=");
}

#[test]
fn the_pax_size_decides() {
    // The other reading would take the data for headers.
    let inner = Tar::default().entry(b'0', b"hidden", b"", b"").0;
    let size = inner.len().to_string();
    let mut header = Tar::header(b'0', b"a", b"", 0);
    Tar::seal(&mut header);
    let tar = Tar::default().pax(&[("size", size.as_bytes())]).raw(&header).data(&inner).line("f b y").end();
    let found = tree(tar);
    assert!(found.starts_with("a=hidden") && found.ends_with(" b=y"), "{found}");
}

#[test]
fn a_pax_value_can_have_lines_that_look_like_records() {
    let tar = Tar::default().pax(&[("path", b"a\n9 path=b")]).entry(b'0', b"cut", b"", b"x").end();
    let found = tree(tar.clone());
    assert!(found.contains("9 path=b=x") && !found.contains("cut"), "{found}");
    crate::layer::invariants::one_reading(&tar);
}

#[test]
fn keeps_user_attributes_and_counts_the_rest() {
    let tar = Tar::default()
        .pax(&[
            ("SCHILY.xattr.user.k", b"v\0\n"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.capability", b"c"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("mtime", b"5.25"),
            ("uid", b"3000000000"),
        ])
        .entry(b'0', b"a", b"", b"x")
        .end();
    let mut spool = spool();
    let mut build = Build::new(&mut spool, Meter::new(Budgets::default()));
    build.layer(&tar[..], Expected::default(), &mut |_| {}).unwrap();
    let id = build.tree.child(crate::tree::Tree::ROOT, b"a").unwrap();
    let inode = build.tree.inode(id);
    assert_eq!(inode.xattrs.iter().collect::<Vec<_>>(), [(&b"user.k".to_vec(), &b"v\0\n".to_vec())]);
    assert_eq!((inode.meta.uid, inode.meta.mtime_s, inode.meta.mtime_ns), (3_000_000_000, 5, 250_000_000));
    assert_eq!((build.report.capabilities_dropped, build.report.xattrs_dropped), (1, 2));
}

#[test]
fn verifies_both_digests() {
    let tar = Tar::parse("f a x");
    let right = Digest::of(&tar);
    let wrong = Digest::of(b"");
    let run = |stored, diff_id| {
        let mut spool = spool();
        let mut build = Build::new(&mut spool, Meter::new(Budgets::default()));
        let expected = Expected { stored: Some(stored), diff_id: Some(diff_id), compression: None };
        let result = build.layer(&tar[..], expected, &mut |_| {});
        let changed = !show(&build.tree, &super::spool()).is_empty();
        (result.map_err(|error| error.to_string()), changed)
    };
    let message = |what| format!("digest of the {what} is {right}, expected {wrong}");
    assert_eq!(run(wrong, right), (Err(message("stored layer")), false));
    assert_eq!(run(right, wrong), (Err(message("layer's tar stream")), false));
}

#[test]
fn refuses_malformed_headers() {
    refused(changed(b'0', 257, b"\0\0\0\0\0\0\0\0"), "neither a POSIX");
    refused(changed(b'0', 508, b"tar\0"), "neither a POSIX");
    refused(changed(b'0', 108, b"00000x0"), "bad number in field uid");
    refused(changed(b'0', 124, b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), "bad number in field size");
    refused(
        changed(b'0', 124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        "bad number in field size",
    );
    refused(changed(b'0', 124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), "bad number in field size");
    for blank in [[0; 12], [b' '; 12]] {
        refused(changed(b'0', 124, &blank), "bad number in field size");
    }
    refused(changed(b'0', 100, b"7777777"), "bad number in field mode");
    refused(changed(b'0', 0, b"a\0b"), "bytes after the end of field name");
    refused(changed(b'0', 0, b"\0"), "empty path");
    refused(changed(b'5', 124, b"00000000001"), "can't have data");
    for typeflag in [b'7', b'S', b'D', b'M', b'V', b'N', b'X', b'A', b'9', 0xff] {
        refused(changed(typeflag, 0, b"a"), "is not supported");
    }
    let mut bad = Tar::parse("f a x");
    bad[0] ^= 1;
    refused(bad, "at byte 0: header checksum");
}

#[test]
fn refuses_malformed_extensions() {
    let pax = |records| Tar::default().pax(records).line("f a x").end();
    refused(pax(&[("path", b"")]), "malformed PAX record");
    refused(pax(&[("path", b"a\0b")]), "malformed PAX record");
    refused(pax(&[("size", b"0x1")]), "bad number in field size");
    refused(pax(&[("size", b"18446744073709551615")]), "bad number in field size");
    refused(pax(&[("uid", b"4294967295")]), "bad number in field uid");
    refused(pax(&[("GNU.sparse.realsize", b"5")]), "not supported");
    refused(pax(&[("path", b"a"), ("path", b"b")]), "given twice");
    let twice = Tar::default().pax(&[("uid", b"1")]).pax(&[("uid", b"2")]).line("f a x");
    refused(twice.end(), "PAX header given twice");
    let both = Tar::default().pax(&[("path", b"b")]).entry(b'L', b"l", b"", b"c\0").line("f a x");
    refused(both.end(), "name given twice");
    refused(Tar::default().entry(b'L', b"l", b"", b"unterminated").line("f a x").end(), "GNU long name");
    refused(Tar::default().entry(b'L', b"l", b"", b"a\0b\0").line("f a x").end(), "GNU long name");
    refused(Tar::default().pax(&[("uid", b"1")]).end(), "without an entry");
    refused(Tar::default().entry(b'g', b"g", b"", b"8 uid=1\n").line("f a x").end(), "not supported");
    let comment = Tar::default().entry(b'g', b"g", b"", b"14 comment=ab\n").line("f a x");
    assert_eq!(tree(comment.end()), "a=x");
    let huge = Tar::default().raw(&Tar::header(b'x', b"x", b"", 1 << 30));
    refused(huge.end(), "extension header of 1073741824 bytes");
}

#[test]
fn the_end_is_two_zero_blocks_and_nothing_else() {
    assert_eq!(tree(Tar::default().end()), "");
    refused(Vec::new(), "cut short at byte 0");
    refused(Tar::default().raw(&[0; 512]).0, "cut short at byte 512");
    refused(Tar::default().line("f a x").0, "cut short at byte 1024");
    refused(Tar::default().raw(&[0; 512]).line("f a x").end(), "after the end");
    refused(Tar(Tar::parse("f a x")).line("f b y").end(), "after the end");
    assert_eq!(tree(Tar(Tar::parse("f a x")).raw(&[0; 10240]).0), "a=x");
}

#[test]
fn escapes_names_in_messages() {
    let found = tree(Tar::default().entry(b'0', b"../\x1b[31m\r", b"", b"").end());
    assert!(found.contains(r#""../\x1b[31m\r""#), "{found}");
}

#[test]
fn every_truncation_is_refused() {
    let whole = sample();
    assert!(!tree(whole.clone()).starts_with("ERROR"));
    for len in (0..whole.len()).step_by(37).chain([whole.len() - 1, whole.len() - 512]) {
        assert!(tree(whole[..len].to_vec()).starts_with("ERROR"), "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_in_a_header_is_refused(header in prop::sample::select(vec![0_usize, 512]), bit in 0_usize..4096) {
        let mut bytes = sample();
        bytes[header + bit / 8] ^= 1 << (bit % 8);
        // Blanks and the end of the checksum field may change without changing the number.
        if !(148..156).contains(&(bit / 8)) {
            prop_assert!(tree(bytes).starts_with("ERROR"));
        }
    }

    #[test]
    fn damaged_archives_never_panic(edits in prop::collection::vec((0_usize..5000, any::<u8>()), 1..8), seal in any::<bool>()) {
        let mut bytes = sample();
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
            if seal {
                let block = at / 512 * 512;
                let mut header: [u8; 512] = bytes[block..block + 512].try_into().unwrap();
                Tar::seal(&mut header);
                bytes[block..block + 512].copy_from_slice(&header);
            }
        }
        one_reading(&bytes);
    }
}
