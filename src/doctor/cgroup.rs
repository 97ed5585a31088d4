//! Which cgroup controllers there are, and whether this user may make cgroups with them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

/// The controllers that enforce a job's limits.
pub(super) const WANTED: [&str; 3] = ["memory", "cpu", "pids"];

/// One controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    /// `memory`, `cpu` or `pids`.
    pub name: String,
    /// 1 or 2; nothing where it is not there.
    pub version: Option<u8>,
    /// The directory in which cgroups would be made.
    pub path: Option<PathBuf>,
    /// This user may make cgroups there.
    pub writable: bool,
}

/// A cgroup mount of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The directory of the hierarchy that is mounted.
    root: String,
    /// Where.
    point: String,
    /// Controllers of a v1 mount; nothing for v2.
    v1: Option<Vec<String>>,
}

/// The wanted controllers, from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
#[must_use]
pub(super) fn controllers(mountinfo: &str, own: &str) -> Vec<Controller> {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(mount).collect();
    WANTED.iter().map(|name| controller(&mounts, own, name)).collect()
}

fn controller(mounts: &[Mount], own: &str, name: &str) -> Controller {
    let v2 = mounts.iter().find(|mount| mount.v1.is_none()).and_then(|mount| {
        let enabled = |dir: &PathBuf| {
            let list = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
            list.split_ascii_whitespace().any(|found| found == name)
        };
        let dirs: Vec<PathBuf> = places(mount, own_path(own, None)).into_iter().filter(enabled).collect();
        let found = dirs.iter().find(|dir| writable(dir)).or_else(|| dirs.first());
        found.map(|dir| (2, dir.clone()))
    });
    let v1 = || {
        let holds =
            |mount: &&Mount| mount.v1.as_ref().is_some_and(|list| list.iter().any(|found| found == name));
        let mount = mounts.iter().find(holds)?;
        candidates(mount, own_path(own, Some(name))).into_iter().find(|dir| dir.is_dir()).map(|dir| (1, dir))
    };
    let found = v2.or_else(v1);
    let writable = found.as_ref().is_some_and(|(_, dir)| writable(dir));
    Controller {
        name: name.to_owned(),
        version: found.as_ref().map(|(version, _)| *version),
        path: found.map(|(_, dir)| dir),
        writable,
    }
}

fn writable(dir: &PathBuf) -> bool {
    access(dir, Access::WRITE_OK).is_ok()
}

/// Where cgroups are made in v2, as the container does it: in the mount's root, else beside our own.
fn places(mount: &Mount, own: Option<&str>) -> Vec<PathBuf> {
    let point = PathBuf::from(&mount.point);
    let own = candidates(mount, own).into_iter().next().filter(|own| *own != point);
    let beside = own.and_then(|own| own.parent().map(Path::to_owned)).filter(|dir| *dir != point);
    [point].into_iter().chain(beside).collect()
}

/// Our own cgroup as seen through the mount, then the mount's root.
fn candidates(mount: &Mount, own: Option<&str>) -> Vec<PathBuf> {
    let point = Path::new(&mount.point);
    let inside = own.and_then(|path| path.strip_prefix(mount.root.trim_end_matches('/')));
    let inside = inside.map(|path| path.trim_start_matches('/')).filter(|path| !path.is_empty());
    let own = inside.map(|path| point.join(path)).filter(|dir| dir.is_dir());
    own.into_iter().chain([point.to_owned()]).collect()
}

/// Our path in the v2 hierarchy, or in the v1 hierarchy of a controller.
fn own_path<'a>(own: &'a str, v1: Option<&str>) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, list, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match v1 {
            None => id == "0" && list.is_empty(),
            Some(name) => list.split(',').any(|found| found == name),
        };
        ours.then_some(path)
    })
}

/// A line of mountinfo, if it is a cgroup mount.
fn mount(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(3);
    let (root, point) = (front.next()?, front.next()?);
    let mut back = back.split(' ');
    let (kind, _, options) = (back.next()?, back.next()?, back.next()?);
    let v1 = match kind {
        "cgroup2" => None,
        "cgroup" => Some(options.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some(Mount { root: root.to_owned(), point: point.to_owned(), v1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 23 0:26 / /nonexistent/cg rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /nonexistent/cg/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 /docker/x /nonexistent/cg/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /nonexistent/cg/unified rw,relatime - cgroup2 cgroup2 rw
broken line";

    #[test]
    fn reads_cgroup_mounts_of_both_versions() {
        let mounts: Vec<Mount> = HYBRID.lines().filter_map(mount).collect();
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].v1.as_ref().unwrap(), &["rw", "cpu", "cpuacct"]);
        assert_eq!(mounts[1].root, "/docker/x");
        assert_eq!(mounts[2].v1, None);
    }

    #[test]
    fn finds_own_paths() {
        let own = "9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/c\n0::/user.slice/x:y\n";
        assert_eq!(own_path(own, Some("memory")), Some("/a/b"));
        assert_eq!(own_path(own, Some("cpuacct")), Some("/c"));
        assert_eq!(own_path(own, Some("pids")), None);
        assert_eq!(own_path(own, None), Some("/user.slice/x:y"), "a path may hold a colon");
        assert_eq!(own_path("", None), None);
    }

    #[test]
    fn controllers_that_are_not_there_are_listed_as_such() {
        let found = controllers(HYBRID, "");
        assert_eq!(found.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), WANTED);
        assert!(found.iter().all(|c| c.version.is_none() && !c.writable), "{found:?}");
    }

    #[test]
    fn v2_counts_where_it_is_enabled_and_v1_otherwise() {
        let dir = std::env::temp_dir().join(format!("isolab-doctor-{}", std::process::id()));
        fs::create_dir_all(dir.join("v2/slice/own")).unwrap();
        fs::create_dir_all(dir.join("v1")).unwrap();
        fs::write(dir.join("v2/cgroup.controllers"), "cpu memory\n").unwrap();
        fs::write(dir.join("v2/slice/cgroup.controllers"), "pids\n").unwrap();
        let (v1, v2) = (dir.join("v1"), dir.join("v2"));
        let mountinfo = format!(
            "1 1 0:1 / {} rw - cgroup2 none rw\n2 1 0:2 / {} rw - cgroup none rw,memory\n",
            v2.display(),
            v1.display()
        );
        let found = controllers(&mountinfo, "0::/slice/own\n3:memory:/\n");
        let only_v1 = controllers(mountinfo.lines().nth(1).unwrap(), "3:memory:/\n");
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found[2].path.as_deref(), Some(v2.join("slice").as_path()), "beside our own");
        assert_eq!(found[0].path.as_deref(), Some(v2.as_path()), "in the root where that offers it");
        assert!(found.iter().all(|c| c.version == Some(2) && c.writable), "{found:?}");
        assert_eq!((only_v1[0].version, only_v1[1].version), (Some(1), None));
    }
}
