//! Paths of entries: components inside the tree, whiteouts.

use crate::budget::{BudgetError, Budgets};
use crate::escape::Escaped;

/// Prefix of a whiteout's name.
const WHITEOUT: &[u8] = b".wh.";
/// Name that hides all lower entries of its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// No name at all.
    #[error("empty path")]
    Empty,
    /// A `..`, even one that stays inside.
    #[error("path with \"..\"")]
    DotDot,
    /// NUL in a name.
    #[error("path with a NUL byte")]
    Nul,
    /// `.`, `/` or a trailing slash on something that is not a directory; the root has to stay one.
    #[error("path of a directory on something else")]
    DirectoryName,
    /// `.wh.` alone, before `.` or `..`, with an unknown meaning, as a directory or as a link target.
    #[error("misplaced whiteout name {0}")]
    Whiteout(Escaped),
    /// Too long or too deep.
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

/// A path below the root: components without `.`, `..` and empty ones, joined by `/`; empty for the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TreePath(Vec<u8>);

impl TreePath {
    /// Checks and normalises a path as an archive writes it.
    pub(crate) fn parse(raw: &[u8], is_dir: bool, budgets: &Budgets) -> Result<Self, PathFault> {
        if raw.is_empty() {
            return Err(PathFault::Empty);
        }
        if raw.contains(&0) {
            return Err(PathFault::Nul);
        }
        let limit = |size: usize, limit: usize, what| {
            if size > limit { Err(BudgetError { what, limit: limit as u64 }) } else { Ok(()) }
        };
        limit(raw.len(), budgets.path_bytes, "bytes of a path")?;
        let mut out = Vec::with_capacity(raw.len());
        let (mut depth, mut last) = (0, &raw[..0]);
        for part in raw.split(|&b| b == b'/') {
            last = part;
            match part {
                b"" | b"." => continue,
                b".." => return Err(PathFault::DotDot),
                _ => {}
            }
            limit(part.len(), budgets.name_bytes, "bytes of a name")?;
            depth += 1;
            if depth > 1 {
                out.push(b'/');
            }
            out.extend_from_slice(part);
        }
        limit(depth, budgets.depth, "nested directories")?;
        if !is_dir && matches!(last, b"" | b".") {
            return Err(PathFault::DirectoryName);
        }
        Ok(Self(out))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Parent and last component; for the root, itself and nothing.
    pub(crate) fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        }
    }

    /// What a whiteout's path hides, if it is one.
    pub(crate) fn whiteout(&self) -> Result<Option<Whiteout>, PathFault> {
        let (parent, name) = self.split();
        let bad = |name: &[u8]| PathFault::Whiteout(Escaped::new(name));
        if let Some(part) = parent.split(|&b| b == b'/').find(|part| part.starts_with(WHITEOUT)) {
            return Err(bad(part));
        }
        let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(None) };
        if name == OPAQUE {
            return Ok(Some(Whiteout { dir: parent.to_vec(), name: None }));
        }
        match hidden {
            b"" | b"." | b".." => Err(bad(name)),
            _ if hidden.starts_with(WHITEOUT) => Err(bad(name)),
            _ => Ok(Some(Whiteout { dir: parent.to_vec(), name: Some(hidden.to_vec()) })),
        }
    }
}

/// A name of lower layers to hide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whiteout {
    /// The directory, as a path of the layer.
    pub(crate) dir: Vec<u8>,
    /// The name; nothing: all names.
    pub(crate) name: Option<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &[u8], is_dir: bool) -> Result<Vec<u8>, PathFault> {
        TreePath::parse(raw, is_dir, &Budgets::default()).map(|path| path.0)
    }

    #[test]
    fn strips_what_means_nothing() {
        for raw in [&b"a/b"[..], b"/a/b", b"./a/b", b"//a//b", b"/./a/./b", b"a/b/", b"a/b/."] {
            assert_eq!(parse(raw, true).as_deref(), Ok(&b"a/b"[..]), "{}", raw.escape_ascii());
        }
        for raw in [&b"/"[..], b".", b"./", b"/.", b"//./"] {
            assert_eq!(parse(raw, true).as_deref(), Ok(&b""[..]), "{}", raw.escape_ascii());
            assert_eq!(parse(raw, false), Err(PathFault::DirectoryName));
        }
    }

    #[test]
    fn refuses_paths_that_leave_or_lie() {
        for raw in [&b".."[..], b"../a", b"a/..", b"a/../b", b"/..", b"./.."] {
            assert_eq!(parse(raw, true), Err(PathFault::DotDot), "{}", raw.escape_ascii());
        }
        assert_eq!(parse(b"", true), Err(PathFault::Empty));
        assert_eq!(parse(b"a\0b", true), Err(PathFault::Nul));
        assert_eq!(parse(b"a/", false), Err(PathFault::DirectoryName));
        assert_eq!(parse(b"...", false).as_deref(), Ok(&b"..."[..]));
    }

    #[test]
    fn limits_names_and_depth() {
        parse(&[b'a'; 255], false).unwrap();
        assert!(matches!(parse(&[b'a'; 256], false), Err(PathFault::Budget(_))));
        parse(&b"a/".repeat(1024), true).unwrap();
        assert!(matches!(parse(&b"a/".repeat(1025), true), Err(PathFault::Budget(_))));
        assert!(matches!(parse(&b"/".repeat(4097), true), Err(PathFault::Budget(_))));
    }

    #[test]
    fn knows_whiteouts() {
        let of = |raw: &[u8]| TreePath::parse(raw, false, &Budgets::default()).unwrap().whiteout();
        let hides = |dir: &[u8], name: Option<&[u8]>| {
            Ok(Some(Whiteout { dir: dir.to_vec(), name: name.map(<[u8]>::to_vec) }))
        };
        assert_eq!(of(b"a/b"), Ok(None));
        assert_eq!(of(b"a/.wh"), Ok(None));
        assert_eq!(of(b"a/.wh.b"), hides(b"a", Some(b"b")));
        assert_eq!(of(b".wh.b"), hides(b"", Some(b"b")));
        assert_eq!(of(b"a/.wh..wh..opq"), hides(b"a", None));
        assert_eq!(of(b".wh..b"), hides(b"", Some(b".b")));
        for bad in
            [&b".wh."[..], b"a/.wh.", b".wh..", b".wh...", b".wh..wh.plnk", b".wh.a/b", b".wh..wh..opq/a"]
        {
            assert!(matches!(of(bad), Err(PathFault::Whiteout(_))), "{}", bad.escape_ascii());
        }
    }
}
