//! Where this host has which controller, and where below we may make directories.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, access};

use super::reading::slurp;
use super::{CgroupError, Version};

/// A kind of limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Memory.
    Memory,
    /// CPU time.
    Cpu,
    /// Processes.
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Pids];

    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }
}

impl std::fmt::Display for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A controller, and where a run would make a cgroup for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which one.
    pub controller: Controller,
    /// Version of its hierarchy (1 or 2) and the directory below which the cgroup would be made; nothing where it is not there.
    pub place: Option<(u8, PathBuf)>,
    /// This user may make cgroups there.
    pub writable: bool,
}

/// What the hierarchies that are mounted offer to this user: of each controller the first place that he may write to, else the best.
///
/// # Errors
/// The list of mounts or of our own cgroups can't be read.
pub fn offers() -> Result<Vec<Offer>, CgroupError> {
    Ok(Host::discover()?.offers())
}

/// A directory below which an instance's directory can be made.
#[derive(Debug)]
pub(crate) struct Place<'h> {
    pub(crate) base: &'h Path,
    /// Of the v2 tree.
    v2: Option<&'h Base>,
}

impl Place<'_> {
    pub(super) const fn version(&self) -> Version {
        if self.v2.is_some() { Version::V2 } else { Version::V1 }
    }

    /// Makes the controller available to children of the place.
    pub(super) fn enable(&self, controller: Controller) -> Result<(), CgroupError> {
        let Some(Base { dir, enabled, .. }) = self.v2 else { return Ok(()) };
        let path = dir.join("cgroup.subtree_control");
        let seen = match enabled.get() {
            Some(seen) => seen,
            None => {
                let read = slurp(&path).map_err(|source| CgroupError::Read { path: path.clone(), source })?;
                enabled.get_or_init(|| read)
            }
        };
        if names(seen, controller) {
            return Ok(());
        }
        let value = format!("+{controller}");
        fs::write(&path, &value).map_err(|source| CgroupError::NotEnforceable {
            controller,
            reason: format!(
                "{} can't be given the controller ({source}); run as root, or have it delegated: \
                 systemd-run --user --scope -p Delegate=yes isolab ...",
                dir.display()
            ),
        })
    }
}

/// A directory of the v2 tree that may have groups with controllers below it, as it was when it was first looked at.
#[derive(Debug)]
struct Base {
    dir: PathBuf,
    /// `cgroup.controllers`.
    offered: String,
    /// `cgroup.subtree_control`.
    enabled: OnceCell<String>,
}

/// Whether a controller is in such a list.
fn names(list: &str, controller: Controller) -> bool {
    list.split_whitespace().any(|name| name == controller.name())
}

/// The cgroup hierarchies that we are in.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// v1: controller names, mount point and the directory of our own cgroup.
    v1: Vec<(Vec<String>, PathBuf, PathBuf)>,
    /// v2: mount point and the directory of our own cgroup.
    v2: Option<(PathBuf, PathBuf)>,
    /// v2: where groups can be made, best first.
    bases: OnceCell<Vec<Base>>,
}

impl Host {
    /// Reads the mounts and our own place in them.
    pub(super) fn discover() -> Result<Self, CgroupError> {
        let read = |path: &'static str| {
            slurp(Path::new(path)).map_err(|source| CgroupError::Discover { path, source })
        };
        Ok(Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub(crate) fn parse(mounts: &str, own: &str) -> Self {
        let mut host = Self::default();
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
            let (Some(root), Some(point)) = (left.next(), left.next()) else { continue };
            let (Some(kind), Some(options)) = (right.next(), right.nth(1)) else { continue };
            let (root, point) = (unescaped(root), unescaped(point));
            let here = |path: &str| inside(Path::new(&*point), &root, path);
            match kind {
                "cgroup2" if host.v2.is_none() => {
                    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else { continue };
                    host.v2 = here(path).map(|dir| (PathBuf::from(&*point), dir));
                }
                "cgroup" => {
                    let options: Vec<&str> = options.split(',').collect();
                    let found = own.lines().find_map(|line| {
                        let (names, path) = line.split_once(':')?.1.split_once(':')?;
                        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
                        names.iter().all(|name| options.contains(&name.as_str())).then_some((names, path))
                    });
                    if let Some((names, path)) = found
                        && let Some(dir) = here(path)
                        && !host.v1.iter().any(|(seen, ..)| *seen == names)
                    {
                        host.v1.push((names, PathBuf::from(&*point), dir));
                    }
                }
                _ => {}
            }
        }
        host
    }

    /// Whether the controller, if it is anywhere, is in the v2 tree.
    pub(super) fn is_v2(&self, controller: Controller) -> bool {
        self.v2.is_some() && self.v1_dir(controller).is_none()
    }

    /// The directory of our own cgroup in the v2 tree.
    pub(super) fn own_v2(&self) -> Option<&Path> {
        self.v2.as_ref().map(|(_, own)| own.as_path())
    }

    fn v1_dir(&self, controller: Controller) -> Option<&PathBuf> {
        let has = |names: &[String]| names.iter().any(|name| name == controller.name());
        self.v1.iter().find(|(names, ..)| has(names)).map(|(_, _, dir)| dir)
    }

    /// Where an instance's directory for the controller can be tried, best first.
    pub(crate) fn places(&self, controller: Controller) -> Result<Vec<Place<'_>>, CgroupError> {
        if let Some(dir) = self.v1_dir(controller) {
            return Ok(vec![Place { base: dir, v2: None }]);
        }
        let Some((point, own)) = &self.v2 else { return Err(self.missing(controller)) };
        let bases = self.bases.get_or_init(|| bases(point, own));
        let offering = bases.iter().filter(|base| names(&base.offered, controller));
        Ok(offering.map(|base| Place { base: &base.dir, v2: Some(base) }).collect())
    }

    fn offers(&self) -> Vec<Offer> {
        let offer = |controller| {
            let places = self.places(controller).unwrap_or_default();
            let writable = |place: &&Place<'_>| access(place.base, Access::WRITE_OK).is_ok();
            let found = places.iter().find(writable);
            let best = found.or_else(|| places.iter().find(|place| place.base.is_dir()));
            let place = best.map(|place| (place.version().number(), place.base.to_owned()));
            Offer { controller, place, writable: found.is_some() }
        };
        Controller::ALL.map(offer).into()
    }

    /// No place has the controller.
    pub(super) fn missing(&self, controller: Controller) -> CgroupError {
        let reason = match (&self.v2, self.v1.is_empty()) {
            (None, true) => "no cgroup hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup)",
            (None, false) => "no mounted v1 hierarchy has the controller",
            (Some(_), _) => {
                "neither a v1 hierarchy nor the part of the v2 tree that isolab may use has the controller"
            }
        };
        CgroupError::NotEnforceable { controller, reason: reason.into() }
    }

    /// Mount point and our own directory of each hierarchy.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn dirs(&self) -> impl Iterator<Item = (&Path, &Path)> {
        let v1 = self.v1.iter().map(|(_, point, dir)| (point.as_path(), dir.as_path()));
        v1.chain(self.v2.iter().map(|(point, dir)| (point.as_path(), dir.as_path())))
    }

    /// Mount points below which stale groups can be.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        let ours =
            |names: &[String]| Controller::ALL.iter().any(|c| names.iter().any(|name| name == c.name()));
        let v1 = self.v1.iter().filter(move |(names, ..)| ours(names)).map(|(_, point, _)| point.as_path());
        v1.chain(self.v2.iter().map(|(point, _)| point.as_path()))
    }
}

/// Processes may live beside groups with controllers only in the root: so the root, else our group's parent.
fn bases(point: &Path, own: &Path) -> Vec<Base> {
    let parent = own.parent().filter(|parent| parent.starts_with(point) && *parent != point);
    let dirs = std::iter::once(point).chain(parent);
    dirs.filter_map(|dir| {
        let offered = slurp(&dir.join("cgroup.controllers")).ok()?;
        Some(Base { dir: dir.to_owned(), offered, enabled: OnceCell::new() })
    })
    .collect()
}

/// Where the cgroup `path` is seen under a mount of `root` at `point`.
fn inside(point: &Path, root: &str, path: &str) -> Option<PathBuf> {
    // A cgroup namespace shows a root above it as "/..": such a mount does not reach our own group by its name.
    let relative = Path::new(path).strip_prefix(root).ok()?;
    if relative.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    Some(if relative.as_os_str().is_empty() { point.to_owned() } else { point.join(relative) })
}

/// A path of mountinfo, in which blanks, tabs, line ends and backslashes are octal numbers.
fn unescaped(text: &str) -> Cow<'_, str> {
    let mut parts = text.split('\\');
    let first = parts.next().unwrap_or_default();
    if first.len() == text.len() {
        return text.into();
    }
    parts
        .fold(first.to_owned(), |mut out, part| {
            let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
            let (shown, rest) = match byte.filter(u8::is_ascii) {
                Some(byte) => (char::from(byte), &part[3..]),
                None => ('\\', part),
            };
            out.push(shown);
            out.push_str(rest);
            out
        })
        .into()
}

/// Whether anything can be swapped out. Where that can't be read, it is assumed.
pub(super) fn has_swap() -> bool {
    match fs::read_to_string("/proc/swaps") {
        Ok(text) => text.lines().count() > 1,
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::{any_texts_are_read, our_directory_is_found_at_any_place};

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 30 0:30 /outer /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";

    #[test]
    fn finds_our_own_directory_in_each_hierarchy() {
        let own = "9:name=systemd:/\n5:pids:/outer/x\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/user\n";
        let host = Host::parse(HYBRID, own);
        let base = |c| host.places(c).expect("a place").remove(0).base.to_owned();
        assert_eq!(base(Controller::Memory), Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(base(Controller::Cpu), Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(base(Controller::Pids), Path::new("/sys/fs/cgroup/pids/x"));
        let (point, own) = host.v2.expect("v2");
        assert_eq!(
            (point.to_str(), own.to_str()),
            (Some("/sys/fs/cgroup/unified"), Some("/sys/fs/cgroup/unified/user"))
        );
    }

    #[test]
    fn a_mount_point_with_odd_characters_is_found_and_a_path_out_of_it_is_none() {
        for point in ["a b", "a\\040", "\\", "a\\b#c", ""] {
            our_directory_is_found_at_any_place(point, "x y/z");
        }
        let out = "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        any_texts_are_read(out, "0::/../a\n", &[]);
        assert!(Host::parse(out, "0::/../a\n").v2.is_none());
    }

    #[test]
    fn v2_is_offered_where_it_is_enabled_and_v1_otherwise() {
        let dir = tempfile::tempdir().expect("directory");
        let (v1, v2) = (dir.path().join("v1"), dir.path().join("v2"));
        fs::create_dir_all(v2.join("slice/own")).expect("directories");
        fs::create_dir(&v1).expect("directory");
        fs::write(v2.join("cgroup.controllers"), "cpu memory\n").expect("file");
        fs::write(v2.join("slice/cgroup.controllers"), "pids\n").expect("file");
        let unified = format!("1 1 0:1 / {} rw - cgroup2 none rw\n", v2.display());
        let offers = Host::parse(&unified, "0::/slice/own\n").offers();
        let places = [v2.clone(), v2.clone(), v2.join("slice")].map(|dir| Some((2, dir)));
        assert_eq!(offers.iter().map(|offer| offer.place.clone()).collect::<Vec<_>>(), places);
        assert!(offers.iter().all(|offer| offer.writable));

        let v1 = format!("2 1 0:2 / {} rw - cgroup none rw,memory\n", v1.display());
        let offers = Host::parse(&v1, "3:memory:/\n").offers();
        assert_eq!(offers[0].place.as_ref().map(|(version, _)| *version), Some(1));
        assert!(offers[1..].iter().all(|offer| offer.place.is_none() && !offer.writable));
    }

    #[test]
    fn names_the_controller_that_is_missing() {
        let host = Host::parse("", "");
        let error = host.places(Controller::Memory).expect_err("nothing is mounted");
        assert!(error.to_string().contains("memory limit can't be enforced"), "{error}");
    }
}
