//! The tar writer: ustar headers, PAX records for what they can't hold, parents before children, names in order.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;

use super::ExportError;
use crate::erofs::{Checked, Image};
use crate::tree::{Inode, InodeId, Kind, Tree};

/// Bytes of a record.
const RECORD: usize = 512;
/// Bytes copied at once.
const CHUNK: u64 = 1 << 20;

pub(super) fn write(image: &File, checked: &Checked, out: &mut impl Write) -> Result<(), ExportError> {
    let image = Image::open(image)?;
    let mut first_names: HashMap<InodeId, Vec<u8>> = HashMap::new();
    let mut todo = vec![(Tree::ROOT, b"./".to_vec())];
    let mut buffer = Vec::new();
    while let Some((id, path)) = todo.pop() {
        let inode = checked.tree.inode(id);
        if let Some(first) = first_names.get(&id) {
            header(out, inode, &path, b'1', first, 0)?;
            continue;
        }
        match &inode.kind {
            Kind::Dir(names) => {
                header(out, inode, &path, b'5', b"", 0)?;
                let prefix: &[u8] = if id == Tree::ROOT { b"" } else { &path };
                todo.extend(names.iter().rev().map(|(name, &child)| {
                    let slash: &[u8] =
                        if matches!(checked.tree.inode(child).kind, Kind::Dir(_)) { b"/" } else { b"" };
                    (child, [prefix, name, slash].concat())
                }));
                continue;
            }
            Kind::Symlink(target) => header(out, inode, &path, b'2', target, 0)?,
            Kind::Fifo => header(out, inode, &path, b'6', b"", 0)?,
            Kind::File(content) => {
                header(out, inode, &path, b'0', b"", content.len)?;
                let node = image.node(checked.nid(id))?;
                let mut at = 0;
                while at < content.len {
                    buffer.resize(usize::try_from(CHUNK.min(content.len - at)).unwrap_or_default(), 0);
                    image.read_at(&node, &mut buffer, at)?;
                    out.write_all(&buffer)?;
                    at += buffer.len() as u64;
                }
                pad(out, content.len)?;
            }
        }
        first_names.insert(id, path);
    }
    out.write_all(&[0; 2 * RECORD])?;
    Ok(())
}

fn pad(out: &mut impl Write, len: u64) -> Result<(), ExportError> {
    let over = usize::try_from(len % RECORD as u64).unwrap_or_default();
    out.write_all(&[0; RECORD][..(RECORD - over) % RECORD])?;
    Ok(())
}

/// Writes a header, after one with PAX records where it needs them.
fn header(
    out: &mut impl Write,
    inode: &Inode,
    path: &[u8],
    kind: u8,
    link: &[u8],
    size: u64,
) -> Result<(), ExportError> {
    let meta = inode.meta;
    let mut pax = Vec::new();
    let mut h = [0; RECORD];
    let mut text = |key: &[u8], value: &[u8], at: usize| {
        if value.len() > 100 {
            pax_record(&mut pax, key, value);
        }
        let n = value.len().min(100);
        h[at..at + n].copy_from_slice(&value[..n]);
    };
    text(b"path", path, 0);
    text(b"linkpath", link, 157);
    let mut number = |key: &[u8], value: u64, at: usize, digits: usize| {
        let fits = value < 1 << (3 * digits);
        if !fits {
            pax_record(&mut pax, key, value.to_string().as_bytes());
        }
        let octal = format!("{:0digits$o}", if fits { value } else { 0 });
        h[at..at + digits].copy_from_slice(octal.as_bytes());
    };
    number(b"mode", meta.mode.into(), 100, 7);
    number(b"uid", meta.uid.into(), 108, 7);
    number(b"gid", meta.gid.into(), 116, 7);
    number(b"size", size, 124, 11);
    let whole = u64::try_from(meta.mtime_s).ok().filter(|&s| s < 1 << 33 && meta.mtime_ns == 0);
    number(b"mtime", whole.unwrap_or_default(), 136, 11);
    if whole.is_none() {
        pax_record(&mut pax, b"mtime", decimal(meta.mtime_s, meta.mtime_ns).as_bytes());
    }
    // A second name has the attributes of the first.
    for (name, value) in inode.xattrs.iter().filter(|_| kind != b'1') {
        pax_record(&mut pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    h[156] = kind;
    h[257..265].copy_from_slice(b"ustar\x0000");
    if !pax.is_empty() {
        let mut x = h;
        x[..100].fill(0);
        x[..10].copy_from_slice(b"PaxHeaders");
        x[124..135].copy_from_slice(format!("{:011o}", pax.len()).as_bytes());
        x[156] = b'x';
        x[157..257].fill(0);
        seal(&mut x);
        out.write_all(&x)?;
        out.write_all(&pax)?;
        pad(out, pax.len() as u64)?;
    }
    seal(&mut h);
    out.write_all(&h)?;
    Ok(())
}

/// Fills in the checksum, which counts its own field as spaces.
fn seal(h: &mut [u8; RECORD]) {
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|&b| u32::from(b)).sum();
    h[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    h[154] = 0;
}

/// `LEN key=value\n`, where LEN counts itself.
fn pax_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(len.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        out.extend_from_slice(part);
    }
}

/// Seconds with a fraction; before 1970 both parts count down.
fn decimal(s: i64, ns: u32) -> String {
    let total = i128::from(s) * 1_000_000_000 + i128::from(ns);
    let (sign, total) = (if total < 0 { "-" } else { "" }, total.unsigned_abs());
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for len in 0..1200 {
            let mut out = Vec::new();
            pax_record(&mut out, b"k", &vec![b'v'; len]);
            let said: usize = out
                .split(|&c| c == b' ')
                .next()
                .and_then(|n| std::str::from_utf8(n).ok()?.parse().ok())
                .expect("number");
            assert_eq!(said, out.len());
        }
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        for (s, ns, text) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (-2, 500_000_000, "-1.5"),
            (-1, 0, "-1"),
            (10, 1, "10.000000001"),
        ] {
            assert_eq!(decimal(s, ns), text);
        }
    }
}
