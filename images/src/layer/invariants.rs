//! What holds for any archive and any stream: for the property tests beside this and for fuzz targets.

use std::borrow::Cow;
use std::io::Read;

use super::samples::{Tar, chain, import, show};
use super::tar::{Entry, EntryKind, Reader};
use super::{Compression, Decoder, LayerError};
use crate::budget::{Budgets, Meter};
use crate::erofs;
use crate::tree::{Kind, Spool, Tree};

/// Small enough that any input ends soon.
fn budgets() -> Budgets {
    Budgets {
        decompressed_bytes: 1 << 20,
        ratio_floor_bytes: 1 << 20,
        entries: 4096,
        metadata_bytes: 1 << 20,
        lookups: 1 << 16,
        zstd_window_bytes: 1 << 20,
        ..Budgets::default()
    }
}

/// An archive gives a tree or an error that can be shown. A tree can be written as an image; exported and imported again it is the
/// same. What isolab reads in the archive is what a reader of other hands reads in it.
pub fn one_reading(layer: &[u8]) {
    let (tree, spool) = match import(&[layer.to_vec()], budgets()) {
        Ok(found) => found,
        Err(error) => return can_be_shown(&error),
    };
    let plain = decompress(layer, 1 << 16).expect("it was read before");
    if let Some(others) = others(&plain) {
        let ours = ours(&plain);
        assert_eq!(ours.len(), others.len(), "two readings of one archive");
        for (one, other) in ours.iter().zip(&others) {
            assert_eq!(one, other, "two readings of one archive");
        }
    }
    let first = image(&tree, &spool);
    let mut exported = Vec::new();
    crate::export::tar(&first, &mut exported).expect("export what was written");
    let (again, contents) = import(&[exported], Budgets::default()).expect("import what was exported");
    assert_eq!(show(&tree, &spool), show(&again, &contents));
    // PAX has no attributes without a value.
    let reached = erofs::check(&first).expect("accept what was written").tree;
    if reached.inodes.iter().all(|inode| inode.xattrs.values().all(|value| !value.is_empty())) {
        let (one, two) = (reached, erofs::check(&image(&again, &contents)).expect("accept").tree);
        assert_eq!(one.inodes, two.inodes);
    }
}

/// Messages about hostile names move no cursor.
fn can_be_shown(error: &LayerError) {
    let text = chain(error);
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
}

fn image(tree: &Tree, spool: &Spool) -> std::fs::File {
    assert!(matches!(tree.inode(Tree::ROOT).kind, Kind::Dir(_)), "the root is no directory");
    let file = tempfile::tempfile().expect("temporary file");
    erofs::write(tree, spool, &file).expect("write what was imported");
    file
}

/// Type, path, link target and contents of an entry.
type Seen = (EntryKind, Vec<u8>, Vec<u8>, Vec<u8>);

fn ours(plain: &[u8]) -> Vec<Seen> {
    let mut reader = Reader::new(plain, &budgets());
    let mut found = Vec::new();
    while let Some(Entry { kind, path, link, .. }) = reader.next_entry().expect("it was read before") {
        let mut data = Vec::new();
        reader.copy_data(&mut data).expect("it was read before");
        found.push((kind, path, link, data));
    }
    found
}

/// None where a value of a PAX header has lines of its own: the other reader takes each line for a record, not what the length says.
fn others(plain: &[u8]) -> Option<Vec<Seen>> {
    let mut archive = tar::Archive::new(plain);
    let mut found = Vec::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let records = entry.pax_extensions().expect("records");
        if records.is_some_and(|mut records| records.any(|record| record.is_err())) {
            return None;
        }
        let kind = match entry.header().entry_type() {
            tar::EntryType::Link => EntryKind::HardLink,
            tar::EntryType::Symlink => EntryKind::Symlink,
            tar::EntryType::Char | tar::EntryType::Block => EntryKind::Device,
            tar::EntryType::Directory => EntryKind::Dir,
            tar::EntryType::Fifo => EntryKind::Fifo,
            tar::EntryType::XGlobalHeader => continue,
            _ => EntryKind::File,
        };
        let path = entry.path_bytes().into_owned();
        // Of another entry the field means nothing.
        let is_link = matches!(kind, EntryKind::HardLink | EntryKind::Symlink);
        let link = entry.link_name_bytes().filter(|_| is_link).map(Cow::into_owned).unwrap_or_default();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).expect("its contents");
        found.push((kind, path, link, data));
    }
    Some(found)
}

/// A stream gives at most what the budget allows, and the same however it is read.
pub fn same_however_read(stored: &[u8]) {
    let (large, small) = (decompress(stored, 1 << 16), decompress(stored, 7));
    match (&large, &small) {
        (Ok(one), Ok(two)) => assert!(one == two, "other bytes in small pieces"),
        (Err(_), Err(_)) => {}
        (one, two) => panic!("{:?} and {:?}", one.as_ref().map(Vec::len), two.as_ref().map(Vec::len)),
    }
    if Compression::of_magic(stored) == Compression::None {
        assert!(large.is_err() || large.is_ok_and(|bytes| bytes == stored), "a plain stream is what it is");
    }
}

/// All bytes of a stream, in pieces of this size.
fn decompress(stored: &[u8], piece: usize) -> std::io::Result<Vec<u8>> {
    let meter = Meter::new(budgets());
    let (_, mut decoder) = Decoder::new(stored, &meter)?;
    let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
    loop {
        let n = decoder.read(&mut buffer)?;
        if n == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&buffer[..n]);
        assert!(all.len() as u64 <= meter.budgets.decompressed_bytes, "more than the budget");
    }
}

/// Names of three levels: few, so that they meet.
const NAMES: [&str; 11] = ["a", "b", "c", "d/a", "d/b", "d/f", "e/a", "e/b", "e/f", "d/g/x", "d/g/y"];
const DIRS: [&str; 3] = ["d", "e", "d/g"];
const OPAQUE: [&str; 3] = [".wh..wh..opq", "d/.wh..wh..opq", "d/g/.wh..wh..opq"];

/// The chosen entries of one layer, whose order means nothing but for whiteouts: each path once, as one type. The sets are files,
/// names that are hidden, directories, and directories that hide all below them; the last number goes into the files.
#[must_use]
pub fn layer_of((files, hidden, dirs, opaque, data): (u16, u16, u8, u8, u8)) -> Vec<String> {
    let chosen = |names: &[&'static str], set: u16| {
        let names = names.iter().enumerate().filter(move |(i, _)| set >> i & 1 == 1);
        names.map(|(_, &name)| name).collect::<Vec<_>>()
    };
    let whiteout = |name: &str| match name.rsplit_once('/') {
        Some((dir, name)) => format!("f {dir}/.wh.{name}"),
        None => format!("f .wh.{name}"),
    };
    let mut entries: Vec<String> = Vec::new();
    entries.extend(chosen(&NAMES, files).iter().map(|name| format!("f {name} {data}")));
    entries.extend(chosen(&NAMES, hidden).iter().map(|name| whiteout(name)));
    entries.extend(chosen(&DIRS, dirs.into()).iter().map(|dir| format!("d {dir}")));
    entries.extend(chosen(&OPAQUE, opaque.into()).iter().map(|path| format!("f {path}")));
    entries
}

/// Layers, each a list of lines as [`Tar::line`] takes them, give the tree that the specification's own words give on a map of
/// paths; so do the same layers in another order of their entries.
pub fn same_as_the_model(layers: &[&[String]], shuffled: &[&[String]]) {
    let tree = tree_of(layers);
    assert_eq!(tree, tree_of(shuffled));
    assert_eq!(tree, model(layers));
}

/// The tree of layers as text.
fn tree_of(layers: &[&[String]]) -> String {
    let layers: Vec<_> = layers.iter().map(|lines| Tar::parse(&lines.join(" | "))).collect();
    let (tree, spool) = import(&layers, Budgets::default()).expect("a sample");
    show(&tree, &spool)
}

/// The same by the book, on a map of paths: hide first, then add.
fn model(layers: &[&[String]]) -> String {
    let mut map = std::collections::BTreeMap::<String, Option<String>>::new();
    for lines in layers {
        for path in lines.iter().filter_map(|line| line.strip_prefix("f ")) {
            let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
            let join = |name: &str| if dir.is_empty() { name.to_string() } else { format!("{dir}/{name}") };
            if name == ".wh..wh..opq" {
                let prefix = join("");
                map.retain(|path, _| !path.starts_with(&prefix) || path.len() == prefix.len());
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                let hidden = join(hidden);
                let below = format!("{hidden}/");
                map.retain(|path, _| *path != hidden && !path.starts_with(&below));
            }
        }
        for line in lines.iter().filter(|line| !line.contains(".wh.")) {
            let (path, data) = match line.split_once(' ').expect("a sample") {
                ("d", path) => (path, None),
                (_, rest) => {
                    rest.split_once(' ').map(|(path, data)| (path, Some(data.to_string()))).expect("a sample")
                }
            };
            for (at, _) in path.match_indices('/') {
                map.insert(path[..at].to_string(), None);
            }
            map.insert(path.to_string(), data);
        }
    }
    let mut lines: Vec<_> = map
        .iter()
        .map(|(path, data)| match data {
            Some(data) => (path.split('/').collect::<Vec<_>>(), format!("{path}={data}")),
            None => (path.split('/').collect(), format!("{path}/")),
        })
        .collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join(" ")
}
