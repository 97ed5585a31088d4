//! Archives written block by block, so that every malformed one can be made, and trees as text: for tests and fuzz targets.

use std::collections::BTreeMap;

use super::{Build, Expected, LayerError};
use crate::budget::{Budgets, Meter};
use crate::tree::{InodeId, Kind, Spool, Tree};

/// An archive under construction.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// One header with its checksum; names are cut to their fields.
    pub(crate) fn header(typeflag: u8, name: &[u8], link: &[u8], size: u64) -> [u8; 512] {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(if typeflag == b'5' { b"0000755" } else { b"0000644" });
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(b"00000000001");
        block[156] = typeflag;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        Self::seal(&mut block);
        block
    }

    /// Sets the checksum of a header.
    pub(crate) fn seal(block: &mut [u8; 512]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn entry(self, typeflag: u8, name: &[u8], link: &[u8], data: &[u8]) -> Self {
        self.raw(&Self::header(typeflag, name, link, data.len() as u64)).data(data)
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }

    /// From a line: `d NAME`, `f NAME DATA`, `l NAME TARGET`, `h NAME TARGET`, `p NAME`, `c NAME`, joined by ` | `.
    pub(crate) fn parse(line: &str) -> Vec<u8> {
        let entries = line.split(" | ").filter(|entry| !entry.is_empty());
        entries.fold(Self::default(), |tar, entry| tar.line(entry)).end()
    }

    pub(crate) fn line(self, entry: &str) -> Self {
        let mut words = entry.splitn(3, ' ');
        let (kind, name, rest) =
            (words.next().expect("a sample"), words.next().expect("a sample"), words.next().unwrap_or(""));
        let (name, rest) = (name.as_bytes(), rest.as_bytes());
        match kind {
            "d" => self.entry(b'5', name, b"", b""),
            "f" => self.entry(b'0', name, b"", rest),
            "l" => self.entry(b'2', name, rest, b""),
            "h" => self.entry(b'1', name, rest, b""),
            "p" => self.entry(b'6', name, b"", b""),
            "c" => self.entry(b'3', name, b"", b""),
            _ => panic!("{entry}"),
        }
    }
}

/// An empty spool.
pub(crate) fn spool() -> Spool {
    Spool::from_file(tempfile::tempfile().expect("a sample")).expect("a spool")
}

/// Applies layers in order.
pub(crate) fn import(layers: &[Vec<u8>], budgets: Budgets) -> Result<(Tree, Spool), LayerError> {
    let mut spool = spool();
    let mut build = Build::new(&mut spool, Meter::new(budgets));
    for layer in layers {
        build.layer(&layer[..], Expected::default(), &mut |_| {})?;
    }
    let tree = build.tree;
    Ok((tree, spool))
}

/// The tree as one line: `dir/`, `file=data`, `link->target`, `fifo|`, `second==first` for hard links.
pub(crate) fn show(tree: &Tree, spool: &Spool) -> String {
    let mut out = Vec::new();
    list(tree, spool, Tree::ROOT, "", &mut BTreeMap::new(), &mut out);
    out.join(" ")
}

fn list(
    tree: &Tree,
    spool: &Spool,
    dir: InodeId,
    path: &str,
    seen: &mut BTreeMap<InodeId, String>,
    out: &mut Vec<String>,
) {
    let Kind::Dir(names) = &tree.inode(dir).kind else { panic!("{path} is not a directory") };
    for (name, &id) in names {
        assert!(![&b""[..], b".", b".."].contains(&&name[..]) && !name.contains(&b'/'), "{path}");
        let name = format!("{path}{}", name.escape_ascii());
        if let Some(first) = seen.get(&id) {
            out.push(format!("{name}=={first}"));
            continue;
        }
        seen.insert(id, name.clone());
        match &tree.inode(id).kind {
            Kind::Dir(_) => {
                out.push(format!("{name}/"));
                list(tree, spool, id, &format!("{name}/"), seen, out);
            }
            Kind::File(content) => {
                out.push(format!("{name}={}", spool.read(*content).expect("a sample").escape_ascii()));
            }
            Kind::Symlink(target) => out.push(format!("{name}->{}", target.escape_ascii())),
            Kind::Fifo => out.push(format!("{name}|")),
        }
    }
}

/// The whole chain of an error.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        out = format!("{out}: {error}");
        next = error.source();
    }
    out
}
