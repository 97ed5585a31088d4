//! One layer onto the tree.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::walk::{Missing, Walk};
use super::{Build, Change, Layer, Make};
use crate::budget::BudgetError;
use crate::escape::Escaped;
use crate::tree::{Inode, InodeId, Kind, Tree};

/// An entry that does not fit the tree.
#[derive(Debug, thiserror::Error)]
#[error("tar entry {name} at byte {offset}: {fault}")]
pub struct ApplyError {
    /// The entry's path.
    pub name: Escaped,
    /// Its offset in the tar stream; 0 for a whiteout.
    pub offset: u64,
    /// Why.
    pub fault: ApplyFault,
}

/// Why an entry does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyFault {
    /// Too many symlinks on the way.
    #[error("more than 40 symlinks in the path")]
    Loop,
    /// A file or pipe where the path needs a directory.
    #[error("a parent is not a directory")]
    ParentNotDir,
    /// The hard link's target is missing.
    #[error("hard link to {0}, which does not exist")]
    NoTarget(Escaped),
    /// The hard link's target is a directory.
    #[error("hard link to the directory {0}")]
    DirTarget(Escaped),
    /// 2^32 inodes.
    #[error("too many inodes")]
    Full,
    /// Over a budget.
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

impl Tree {
    /// The inode of a name in a directory.
    #[must_use]
    pub fn child(&self, dir: InodeId, name: &[u8]) -> Option<InodeId> {
        match &self.inode(dir).kind {
            Kind::Dir(names) => names.get(name).copied(),
            _ => None,
        }
    }

    /// Gives an inode a name in a directory, in place of what had it.
    pub(crate) fn link(&mut self, dir: InodeId, name: &[u8], id: InodeId) {
        if let Kind::Dir(names) = &mut self.inode_mut(dir).kind {
            names.insert(name.to_vec(), id);
        }
    }

    fn unlink(&mut self, dir: InodeId, name: &[u8]) {
        if let Kind::Dir(names) = &mut self.inode_mut(dir).kind {
            names.remove(name);
        }
    }
}

impl Build<'_> {
    pub(super) fn apply(&mut self, layer: Layer) -> Result<(), ApplyError> {
        self.hide(&layer)?;
        let mut dropped = BTreeSet::new();
        for mut change in layer.entries {
            let (name, offset) = (Escaped::new(change.path.bytes()), change.offset);
            self.change_tree(&mut change, &mut dropped).map_err(|fault| ApplyError {
                name,
                offset,
                fault,
            })?;
        }
        Ok(())
    }

    /// Hides what the whiteouts name. All are looked up before the first is applied, so that their order
    /// does not matter even where one hides a symlink on the path of another.
    fn hide(&mut self, layer: &Layer) -> Result<(), ApplyError> {
        if layer.whiteouts.is_empty() {
            return Ok(());
        }
        let replaced: HashSet<&[u8]> = layer.entries.iter().map(|change| change.path.bytes()).collect();
        let mut found = Vec::new();
        for whiteout in &layer.whiteouts {
            let dir = self.walk(Missing::Stop, Some(&replaced), &whiteout.dir);
            let name = Escaped::new(&whiteout.dir);
            if let Some(dir) = dir.map_err(|fault| ApplyError { name, offset: 0, fault })? {
                found.push((dir, &whiteout.name));
            }
        }
        for (dir, name) in found {
            match (name, &mut self.tree.inode_mut(dir).kind) {
                (Some(name), Kind::Dir(names)) => drop(names.remove(name)),
                (None, Kind::Dir(names)) => names.clear(),
                _ => {}
            }
        }
        Ok(())
    }

    fn walk(
        &mut self,
        missing: Missing,
        replaced: Option<&HashSet<&[u8]>>,
        path: &[u8],
    ) -> Result<Option<InodeId>, ApplyFault> {
        let mut walk = Walk { tree: &mut self.tree, meter: &mut self.meter, missing, replaced, made: 0 };
        let dir = walk.dir(path)?;
        self.report.implied_directories += walk.made;
        Ok(dir)
    }

    /// `dropped`: names of devices that this layer had, for hard links to them.
    fn change_tree(
        &mut self,
        change: &mut Change,
        dropped: &mut BTreeSet<(InodeId, Vec<u8>)>,
    ) -> Result<(), ApplyFault> {
        if change.path.is_root() {
            self.describe(Tree::ROOT, change);
            return Ok(());
        }
        let (parent, name) = change.path.split();
        let name = name.to_vec();
        let dir = self.walk(Missing::Make, None, parent)?.ok_or(ApplyFault::ParentNotDir)?;
        if let Make::Dir = change.make
            && let Some(id) = self.tree.child(dir, &name)
            && let Kind::Dir(_) = self.tree.inode(id).kind
        {
            self.describe(id, change);
            return Ok(());
        }
        if let Some(id) = self.make(change, dropped)? {
            dropped.remove(&(dir, name.clone()));
            self.tree.link(dir, &name, id);
        } else {
            self.report.devices_dropped += 1;
            self.tree.unlink(dir, &name);
            dropped.insert((dir, name));
        }
        Ok(())
    }

    /// A directory that exists already gets the entry's owner, mode, time and attributes.
    fn describe(&mut self, id: InodeId, change: &mut Change) {
        let inode = self.tree.inode_mut(id);
        inode.meta = change.meta;
        inode.xattrs = std::mem::take(&mut change.xattrs);
    }

    /// The inode that an entry names; nothing for a device.
    fn make(
        &mut self,
        change: &mut Change,
        dropped: &BTreeSet<(InodeId, Vec<u8>)>,
    ) -> Result<Option<InodeId>, ApplyFault> {
        let kind = match &mut change.make {
            Make::Nothing => return Ok(None),
            Make::HardLink(target) => {
                let target = target.clone();
                return self.target(target.bytes(), target.split(), dropped);
            }
            Make::File(content) => Kind::File(*content),
            Make::Symlink(target) => Kind::Symlink(std::mem::take(target)),
            Make::Dir => Kind::Dir(BTreeMap::new()),
            Make::Fifo => Kind::Fifo,
        };
        if matches!(kind, Kind::File(_)) && change.meta.mode & 0o6000 != 0 {
            self.report.set_id_files += 1;
        }
        let inode = Inode { meta: change.meta, xattrs: std::mem::take(&mut change.xattrs), kind };
        self.tree.add(inode).map(Some).ok_or(ApplyFault::Full)
    }

    /// The inode of a hard link's target: its parents are resolved, itself is not followed.
    fn target(
        &mut self,
        path: &[u8],
        (parent, name): (&[u8], &[u8]),
        dropped: &BTreeSet<(InodeId, Vec<u8>)>,
    ) -> Result<Option<InodeId>, ApplyFault> {
        let missing = || ApplyFault::NoTarget(Escaped::new(path));
        let dir = self.walk(Missing::Stop, None, parent)?.ok_or_else(missing)?;
        match self.tree.child(dir, name) {
            Some(id) if matches!(self.tree.inode(id).kind, Kind::Dir(_)) => {
                Err(ApplyFault::DirTarget(Escaped::new(path)))
            }
            Some(id) => Ok(Some(id)),
            None if dropped.contains(&(dir, name.to_vec())) => Ok(None),
            None => Err(missing()),
        }
    }
}
