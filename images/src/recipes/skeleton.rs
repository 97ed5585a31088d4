//! Trees built by hand: the directories and files that each Linux root has. All times are 0, all owners root.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Write};

use crate::tree::{Content, Inode, InodeId, Kind, Meta, Spool, Tree};

const PASSWD: &[u8] =
    b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &[u8] = b"root:x:0:\nnogroup:x:65534:\n";

/// A tree under construction.
#[derive(Debug)]
pub(super) struct Skeleton {
    tree: Tree,
    spool: Spool,
}

impl Skeleton {
    /// Mount points, `/etc` with root and nobody, `/root`, `/run`, `/tmp`.
    pub(super) fn new(spool: Spool) -> io::Result<Self> {
        let mut this = Self { tree: Tree::new(), spool };
        for (name, mode) in [
            ("dev", 0o755),
            ("proc", 0o555),
            ("sys", 0o555),
            ("run", 0o755),
            ("tmp", 0o1777),
            ("root", 0o700),
        ] {
            let id = this.directory(name)?;
            this.tree.inode_mut(id).meta.mode = mode;
        }
        this.file("etc/passwd", 0o644, PASSWD)?;
        this.file("etc/group", 0o644, GROUP)?;
        Ok(this)
    }

    /// A file at a path without `/` in front; directories on the way are made.
    pub(super) fn file(&mut self, path: &str, mode: u16, bytes: &[u8]) -> io::Result<InodeId> {
        self.spool.file.write_all(bytes)?;
        let content = Content { offset: self.spool.len, len: bytes.len() as u64 };
        self.spool.len += content.len;
        let id = self.add(mode, Kind::File(content))?;
        self.link(path, id)?;
        Ok(id)
    }

    /// One more name for a file.
    pub(super) fn link(&mut self, path: &str, id: InodeId) -> io::Result<()> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = self.directory(dir)?;
        if let Kind::Dir(names) = &mut self.tree.inode_mut(dir).kind
            && let Entry::Vacant(free) = names.entry(name.into())
        {
            free.insert(id);
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there twice", path.escape_debug())))
    }

    fn directory(&mut self, path: &str) -> io::Result<InodeId> {
        let mut here = Tree::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Kind::Dir(names) = &self.tree.inode(here).kind else { break };
            let next = names.get(name.as_bytes()).copied();
            let id = next.map_or_else(|| self.add(0o755, Kind::Dir(BTreeMap::new())), Ok)?;
            if let Kind::Dir(names) = &mut self.tree.inode_mut(here).kind {
                names.insert(name.into(), id);
            }
            here = id;
        }
        Ok(here)
    }

    fn add(&mut self, mode: u16, kind: Kind) -> io::Result<InodeId> {
        let meta = Meta { mode, ..Meta::default() };
        let inode = Inode { meta, xattrs: BTreeMap::new(), kind };
        self.tree.add(inode).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn finish(self) -> (Tree, Spool) {
        (self.tree, self.spool)
    }
}
