//! Random trees through writer, checker and reader; damaged images.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::format::{CHECKSUM_AT, SUPER_AT};
use super::invariants::{Sketch, Xattrs, build, bytes, image, reseal, round_trip, spool, written_again};
use super::*;
use crate::tree::{Content, InodeId, Kind, Meta, Spool, Tree};

fn meta() -> impl Strategy<Value = Meta> {
    (0..=0o7777_u16, any::<u32>(), any::<u32>(), any::<i64>(), 0..1_000_000_000_u32)
        .prop_map(|(mode, uid, gid, mtime_s, mtime_ns)| Meta { mode, uid, gid, mtime_s, mtime_ns })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("separators", |c| *c != 0 && *c != b'/');
    prop_oneof![8 => vec(byte.clone(), 1..12), 1 => vec(byte, 200..=255)]
        .prop_filter("dots", |name| name != b"." && name != b"..")
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    let key = prop_oneof![
        (0..3_usize, vec(1..=255_u8, 1..20)).prop_map(|(i, rest)| [
            [&b"user."[..], b"trusted.", b"security."][i],
            &rest
        ]
        .concat()),
        Just(b"system.posix_acl_access".to_vec()),
    ];
    let value = prop_oneof![9 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 3000..9000)];
    prop_oneof![3 => Just(Xattrs::new()), 1 => btree_map(key, value, 1..4)]
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let len = prop_oneof![0..100_usize, 1000..1100_usize, 4000..4200_usize, 8000..9000_usize];
    let data = (len, any::<u8>()).prop_map(|(len, seed)| {
        (0..len).map(|i| u8::try_from(i % 251).unwrap_or_default() ^ seed).collect::<Vec<u8>>()
    });
    let target = prop_oneof![9 => vec(1..=255_u8, 1..60), 1 => vec(1..=255_u8, 4000..=4095)];
    let leaf = prop_oneof![
        4 => (meta(), xattrs(), data).prop_map(|(m, x, d)| Sketch::File(m, x, d)),
        1 => (meta(), target).prop_map(|(m, t)| Sketch::Symlink(m, t)),
        1 => meta().prop_map(Sketch::Fifo),
        1 => any::<usize>().prop_map(Sketch::Link),
    ];
    leaf.prop_recursive(5, 200, 40, |inner| {
        (meta(), xattrs(), btree_map(name(), inner, 0..40)).prop_map(|(m, x, c)| Sketch::Dir(m, x, c))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(root in btree_map(name(), sketch(), 0..40)) {
        round_trip(root);
    }
}

/// A tree with one of everything, for damage.
fn sample() -> (Tree, Spool) {
    let meta = Meta { mode: 0o755, uid: 1, gid: 2, mtime_s: 3, mtime_ns: 4 };
    let x = Xattrs::from([(b"user.a".to_vec(), vec![1; 50])]);
    let many = (0..400_u32).map(|i| {
        let name = format!("name-of-an-entry-{i:04}").into_bytes();
        (name, Sketch::File(meta, Xattrs::new(), vec![b'x'; (i * 37 % 5000) as usize]))
    });
    let deep = BTreeMap::from([
        (b"link".to_vec(), Sketch::Symlink(meta, b"../many".to_vec())),
        (b"pipe".to_vec(), Sketch::Fifo(meta)),
        (b"with".to_vec(), Sketch::File(meta, x.clone(), vec![7; 5000])),
    ]);
    build(BTreeMap::from([
        (b"deep".to_vec(), Sketch::Dir(meta, x, deep)),
        (b"many".to_vec(), Sketch::Dir(meta, Xattrs::new(), many.collect())),
    ]))
}

/// First byte of contents: all before it is metadata.
fn contents_at(tree: &Tree) -> u64 {
    let plan = super::plan::plan(tree, &mut |_, _| Ok(())).expect("plan");
    plan.meta.len() as u64
}

struct Damage(u64);

impl Damage {
    /// splitmix64: seeded, so that a failure repeats.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Sets the first block's checksum to what its bytes give.
fn mend(file: &File) {
    let mut block = [0; BLOCK];
    file.read_exact_at(&mut block, 0).expect("read");
    block[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
    let sum = super::format::crc32c(&block[SUPER_AT..]);
    file.write_all_at(&sum.to_le_bytes(), CHECKSUM_AT as u64).expect("write");
}

#[test]
fn every_damaged_bit_of_metadata_is_refused_with_a_mended_checksum_too() {
    let (tree, spool) = sample();
    let (file, written) = image(&tree, &spool);
    let meta_len = contents_at(&tree);
    assert!(meta_len < written.len);
    let mut damage = Damage(1);
    let images = if std::env::var_os("ISOLAB_TEST_FULL").is_some() { 10_000 } else { 3000 };
    let positions =
        (0..images).map(|i| if i % 3 == 0 { 1024 + damage.next() % 3072 } else { damage.next() % meta_len });
    for at in positions.collect::<Vec<_>>() {
        let mut byte = [0];
        let mut sum = [0; 4];
        file.read_exact_at(&mut byte, at).expect("read");
        file.read_exact_at(&mut sum, CHECKSUM_AT as u64).expect("read");
        let bit = 1 << (damage.next() % 8);
        file.write_all_at(&[byte[0] ^ bit], at).expect("write");
        assert!(check(&file).is_err(), "accepted with bit {bit:#x} of byte {at} flipped");
        if !(CHECKSUM_AT as u64..CHECKSUM_AT as u64 + 4).contains(&at) {
            mend(&file);
            assert!(check(&file).is_err(), "accepted, mended, with bit {bit:#x} of byte {at} flipped");
        }
        file.write_all_at(&sum, CHECKSUM_AT as u64).expect("write");
        file.write_all_at(&byte, at).expect("write");
    }
    check(&file).expect("whole again");
}

#[test]
fn damaged_contents_leave_the_tree_alone_or_are_refused() {
    let (tree, spool) = sample();
    let (file, written) = image(&tree, &spool);
    let whole = check(&file).expect("accept");
    let mut damage = Damage(2);
    for _ in 0..300 {
        let start = contents_at(&tree);
        let at = start + damage.next() % (written.len - start);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 0x10], at).expect("write");
        if let Ok(found) = check(&file) {
            assert_eq!(found.tree.inodes, whole.tree.inodes);
        }
        file.write_all_at(&byte, at).expect("write");
    }
}

#[test]
fn a_cut_or_longer_image_is_refused() {
    let (tree, spool) = sample();
    let (file, written) = image(&tree, &spool);
    let lens = (0..written.len).step_by(BLOCK).chain([1, 1023, 1025, written.len - 1, written.len + 4096]);
    for len in lens.collect::<Vec<_>>().into_iter().rev() {
        file.set_len(len).expect("truncate");
        assert!(check(&file).is_err(), "accepted at {len} bytes");
    }
}

#[test]
fn paths_resolve_inside_the_image() {
    let (tree, spool) = sample();
    let (file, _) = image(&tree, &spool);
    let image = Image::open(&file).expect("open");
    let direct = image.lookup(b"/many/name-of-an-entry-0007").expect("direct");
    let around = image.lookup(b"../../deep/./link/../many//name-of-an-entry-0007").expect("around");
    assert_eq!(direct.nid, around.nid);
    assert_eq!(image.read(&direct, 259).expect("read"), vec![b'x'; 259]);
    assert!(matches!(image.read(&direct, 258), Err(ErofsReadError::Unfit { .. })));
    assert!(matches!(image.lookup(b"/many/nothing"), Err(ErofsReadError::NotFound { .. })));
    assert!(matches!(image.lookup(b"/deep/with/x"), Err(ErofsReadError::NotFound { .. })));
}

#[test]
fn a_loop_of_symlinks_ends() {
    let meta = Meta { mode: 0o777, ..Meta::default() };
    let (tree, spool) = build(BTreeMap::from([
        (b"a".to_vec(), Sketch::Symlink(meta, b"/b/x".to_vec())),
        (b"b".to_vec(), Sketch::Symlink(meta, b"a".to_vec())),
    ]));
    let (file, _) = image(&tree, &spool);
    let image = Image::open(&file).expect("open");
    assert!(matches!(image.lookup(b"/a"), Err(ErofsReadError::Loop { .. })));
}

#[test]
fn trees_without_an_image_are_refused() {
    let dir = |children| Sketch::Dir(Meta::default(), Xattrs::new(), children);
    let file = || Sketch::File(Meta::default(), Xattrs::new(), Vec::new());
    let out = tempfile::tempfile().expect("temporary file");
    let refused = |tree: &Tree| write(tree, &spool(), &out).expect_err("refuse");
    for name in
        [b"".to_vec(), b".".to_vec(), b"..".to_vec(), b"a/b".to_vec(), b"a\0".to_vec(), vec![b'x'; 256]]
    {
        let (tree, _) = build(BTreeMap::from([(name, file())]));
        assert!(matches!(refused(&tree), ErofsWriteError::Plan(PlanError::Name { .. })));
    }
    let deep =
        |levels| (0..levels).fold(BTreeMap::new(), |inner, _| BTreeMap::from([(b"d".to_vec(), dir(inner))]));
    assert!(matches!(refused(&build(deep(MAX_DEPTH + 1)).0), ErofsWriteError::Plan(PlanError::Depth { .. })));
    check(&image(&build(deep(MAX_DEPTH)).0, &spool()).0).expect("the deepest");
    let (mut shared, _) = build(BTreeMap::from([(b"d".to_vec(), dir(BTreeMap::new()))]));
    let Kind::Dir(names) = &mut shared.inode_mut(Tree::ROOT).kind else { unreachable!() };
    names.insert(b"e".to_vec(), InodeId(1));
    assert!(matches!(refused(&shared), ErofsWriteError::Plan(PlanError::SharedDirectory { .. })));
    let (mut outside, _) = build(BTreeMap::from([(b"f".to_vec(), file())]));
    outside.inode_mut(InodeId(1)).kind = Kind::File(Content { offset: u64::MAX, len: 2 });
    assert!(matches!(refused(&outside), ErofsWriteError::Content { .. }));
}

/// Damage by somebody who knows UUID and checksum: what is accepted is another image of ours, to the last byte.
#[test]
fn what_is_accepted_after_sealed_damage_is_what_the_writer_makes() {
    let (tree, spool) = sample();
    let (file, _) = image(&tree, &spool);
    let good = bytes(&file);
    let meta_len = usize::try_from(contents_at(&tree)).expect("small");
    let mut damage = Damage(3);
    let mut below = |n: usize| usize::try_from(damage.next() % n as u64).expect("small");
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..600 {
        let mut bad = good.clone();
        let at = if round % 2 == 0 { 1024 + below(4000) } else { below(meta_len) };
        for byte in bad[at..meta_len].iter_mut().take([1, 1, 2, 16][round % 4]) {
            *byte = [*byte ^ (1 << below(8)), u8::try_from(below(256)).expect("a byte"), 0, 0xff][below(4)];
        }
        reseal(&mut bad[..meta_len]);
        file.write_all_at(&bad, 0).expect("write");
        let Ok(checked) = check(&file) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        assert!(bytes(&written_again(&file, &checked)) == bad, "round {round} at byte {at}");
    }
    assert!(accepted > 20 && refused > 100, "{accepted} accepted, {refused} refused");
}
