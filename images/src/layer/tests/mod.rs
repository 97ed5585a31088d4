//! Layers against the tree.

mod archives;
pub(crate) mod bombs;
mod breakouts;
mod whiteouts;

pub(crate) use super::samples::{Tar, chain, show};
use super::samples::{import, spool};
use crate::budget::Budgets;

impl Tar {
    /// A PAX header before an entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let len = (1..8).map(|digits| rest + digits).find(|len| rest + len.to_string().len() == *len);
            body.extend_from_slice(format!("{} {key}=", len.unwrap()).as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(b'x', b"pax", b"", &body)
    }
}

/// Everything that an archive may hold, in one.
pub(crate) fn sample() -> Vec<u8> {
    Tar::default()
        .line("d d")
        .pax(&[("path", b"d/long"), ("mtime", b"1.5"), ("SCHILY.xattr.user.k", b"v")])
        .entry(b'0', b"cut", b"", &[b'x'; 700])
        .entry(b'L', b"l", b"", b"d/gnu\0")
        .line("h cut d/long")
        .line("l s d")
        .line("p s/p")
        .line("f .wh.gone")
        .end()
}

/// Layers joined by ` || ` to the tree's line, or the error's.
pub(crate) fn outcome(layers: &str) -> String {
    let layers: Vec<_> = layers.split(" || ").map(Tar::parse).collect();
    match import(&layers, Budgets::default()) {
        Ok((tree, spool)) => show(&tree, &spool),
        Err(error) => format!("ERROR {}", chain(&error)),
    }
}
