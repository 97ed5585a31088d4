//! Finding directories in the tree: symlinks are followed inside it, never outside.

use std::collections::{BTreeMap, HashSet};

use super::apply::ApplyFault;
use crate::budget::{BudgetError, Meter};
use crate::tree::{Inode, InodeId, Kind, Meta, Tree};

/// Most symlinks in one path, as in Linux.
const HOPS: usize = 40;

/// What to do where a directory is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it: mode 0755, owner 0:0.
    Make,
    /// Say that there is none.
    Stop,
}

/// One walk from the root.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) tree: &'a mut Tree,
    pub(super) meter: &'a mut Meter,
    pub(super) missing: Missing,
    /// Paths that the layer brings itself: a lower symlink there is about to be replaced and is not followed.
    pub(super) replaced: Option<&'a HashSet<&'a [u8]>>,
    /// Directories made.
    pub(super) made: u64,
}

impl Walk<'_> {
    /// The directory of a path; nothing where it is missing and not to be made.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Option<InodeId>, ApplyFault> {
        let mut stack = vec![Tree::ROOT];
        let mut rest = path.to_vec();
        let (mut at, mut hops) = (0, 0);
        while at < rest.len() {
            let end = rest[at..].iter().position(|&b| b == b'/').map_or(rest.len(), |n| at + n);
            let part = &rest[at..end];
            let next = end + 1;
            match part {
                b"" | b"." => {
                    at = next;
                    continue;
                }
                b".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    at = next;
                    continue;
                }
                _ => {}
            }
            let here = stack.last().copied().unwrap_or(Tree::ROOT);
            let Some(id) = self.step(here, part, stack.len())? else { return Ok(None) };
            match &self.tree.inode(id).kind {
                Kind::Dir(_) => {
                    stack.push(id);
                    at = next;
                }
                Kind::Symlink(target) => {
                    let literal =
                        hops == 0 && self.replaced.is_some_and(|paths| paths.contains(&rest[..end]));
                    if literal {
                        return Ok(None);
                    }
                    hops += 1;
                    if hops > HOPS {
                        return Err(ApplyFault::Loop);
                    }
                    if target.starts_with(b"/") {
                        stack.truncate(1);
                    }
                    let mut joined = target.clone();
                    joined.push(b'/');
                    joined.extend_from_slice(rest.get(next..).unwrap_or_default());
                    (rest, at) = (joined, 0);
                }
                Kind::File(_) | Kind::Fifo if self.missing == Missing::Stop => return Ok(None),
                Kind::File(_) | Kind::Fifo => return Err(ApplyFault::ParentNotDir),
            }
        }
        self.check_depth(stack.len())?;
        Ok(stack.pop())
    }

    /// Symlinks can lead deeper than any path is long.
    fn check_depth(&self, depth: usize) -> Result<(), BudgetError> {
        let limit = self.meter.budgets.depth;
        if depth > limit {
            return Err(BudgetError { what: "nested directories", limit: limit as u64 });
        }
        Ok(())
    }

    /// The inode of a name, a new directory where it is missing and to be made.
    fn step(&mut self, here: InodeId, name: &[u8], depth: usize) -> Result<Option<InodeId>, ApplyFault> {
        self.meter.lookup()?;
        self.check_depth(depth)?;
        if let Some(id) = self.tree.child(here, name) {
            return Ok(Some(id));
        }
        if self.missing == Missing::Stop {
            return Ok(None);
        }
        if name.len() > self.meter.budgets.name_bytes {
            return Err(
                BudgetError { what: "bytes of a name", limit: self.meter.budgets.name_bytes as u64 }.into()
            );
        }
        self.meter.entries(1)?;
        self.made += 1;
        let meta = Meta { mode: 0o755, ..Meta::default() };
        let inode = Inode { meta, xattrs: BTreeMap::new(), kind: Kind::Dir(BTreeMap::new()) };
        let id = self.tree.add(inode).ok_or(ApplyFault::Full)?;
        self.tree.link(here, name, id);
        Ok(Some(id))
    }
}
