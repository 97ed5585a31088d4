//! Any tree: written twice alike, accepted, and read back as it was.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use isolab_fuzz::made;
use isolab_images::invariants::{Sketch, Xattrs, round_trip};
use isolab_images::tree::Meta;
use libfuzzer_sys::Corpus;

#[derive(Arbitrary, Debug)]
struct Node {
    meta: (u16, u32, u32, i64, u32),
    xattrs: Vec<(u8, Vec<u8>, u8)>,
    kind: Kind,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Dir(Vec<(Vec<u8>, Node)>),
    File(u8, u16),
    Symlink(Vec<u8>),
    Fifo,
    Link(u16),
}

pub(crate) fn run(data: &[u8]) -> Corpus {
    made(data, |root: Vec<(Vec<u8>, Node)>| round_trip(names(root, 0)))
}

fn names(entries: Vec<(Vec<u8>, Node)>, depth: usize) -> BTreeMap<Vec<u8>, Sketch> {
    entries.into_iter().map(|(name, node)| (of_alphabet(name, 255), sketch(node, depth))).collect()
}

/// What an import lets through as a name: no NUL, no slash, not empty, no dots alone.
fn of_alphabet(mut name: Vec<u8>, most: usize) -> Vec<u8> {
    name.truncate(most);
    name.iter_mut().filter(|byte| matches!(**byte, 0 | b'/')).for_each(|byte| *byte = b'_');
    if name.is_empty() || name == b"." || name == b".." { b"_".to_vec() } else { name }
}

fn sketch(node: Node, depth: usize) -> Sketch {
    let (mode, uid, gid, mtime_s, ns) = node.meta;
    let meta = Meta { mode: mode & 0o7777, uid, gid, mtime_s, mtime_ns: ns % 1_000_000_000 };
    let named = |(prefix, rest, len): (u8, Vec<u8>, u8)| {
        let rest = of_alphabet(rest, 200);
        ([&b"user."[..], b"trusted.", b"security."][usize::from(prefix % 3)].to_vec(), rest, len)
    };
    let xattrs = node.xattrs.into_iter().take(4).map(named);
    let xattrs: Xattrs =
        xattrs.map(|(p, rest, len)| ([p, rest].concat(), vec![len; usize::from(len) * 20])).collect();
    match node.kind {
        Kind::Dir(entries) if depth < 20 => Sketch::Dir(meta, xattrs, names(entries, depth + 1)),
        Kind::File(seed, len) => Sketch::File(meta, xattrs, vec![seed; usize::from(len) % 13_000]),
        Kind::Symlink(mut target) if !target.is_empty() && !target.contains(&0) => {
            target.truncate(4095);
            Sketch::Symlink(meta, target)
        }
        Kind::Link(number) => Sketch::Link(number.into()),
        _ => Sketch::Fifo(meta),
    }
}
