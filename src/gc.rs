//! `isolab gc`: what killed runs left behind, listed and removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use isolab_container::cgroup::stale;
use isolab_images::store::Store;
use serde::Serialize;

use crate::cli::GcArgs;
use crate::{kernel, snapshot, surface};

#[derive(Debug, Serialize)]
struct Item {
    what: &'static str,
    path: String,
    bytes: u64,
}

/// Lists and, unless only asked, removes.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn gc(args: &GcArgs) -> anyhow::Result<u8> {
    let item = |what, path: &std::path::Path, bytes| Item { what, path: path.display().to_string(), bytes };
    let mut items = Vec::new();
    items.extend(processes(&stale::list()?));
    let cgroups = if args.dry_run { stale::list()? } else { stale::sweep()? };
    items.extend(cgroups.iter().map(|path| item("cgroup", path, 0)));
    let store = Store::open_or_create()?;
    items.extend(store.gc(args.dry_run)?.iter().map(|r| item(r.what, &r.path, r.bytes)));
    for path in kernel::store()?.stale()? {
        if !args.dry_run {
            std::fs::remove_dir_all(&path)?;
        }
        items.push(item("unfinished kernel", &path, 0));
    }
    for path in snapshot::store()?.stale()? {
        if !args.dry_run {
            std::fs::remove_dir_all(&path)?;
        }
        items.push(item("unfinished snapshot", &path, 0));
    }
    for path in surface::instance::stale() {
        if args.dry_run || surface::instance::remove(&path)? {
            items.push(item("trace", &path, 0));
        }
    }
    if args.json {
        say!("{}", isolab_images::escape::json(&items)?);
    } else {
        let verb = if args.dry_run { "would remove" } else { "removed" };
        for item in &items {
            say!("{verb} {} {}", item.what, item.path.escape_debug());
        }
        if items.is_empty() {
            say!("nothing to remove");
        }
    }
    Ok(0)
}

/// The processes in these cgroups, which end with them. One may be in several hierarchies.
fn processes(cgroups: &[PathBuf]) -> impl Iterator<Item = Item> {
    let members = |dir: &PathBuf| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let pids: BTreeSet<u32> = cgroups
        .iter()
        .flat_map(|dir| members(dir).lines().flat_map(str::parse).collect::<Vec<_>>())
        .collect();
    pids.into_iter().map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Item { what: "process", path: format!("{pid} ({})", name.trim_end()), bytes: 0 }
    })
}
