//! What must hold for any text that the kernel or the administrator's files say. The property tests and the fuzz targets (`fuzz/`,
//! `docs/fuzzing.md`) call these; compiled for the two only.

use std::path::{Component, Path};

use crate::cgroup::{Controller, Host, kernel_parts};
use crate::idmap::{LENGTH, root_extent, subordinate};
use crate::orphans::parent_in;
use crate::processes::{kib, run_time, within};

/// Every reader over any texts ends; what it makes of them stays in its range.
pub fn any_texts_are_read(one: &str, other: &str, numbers: &[(u64, u64)]) {
    let host = Host::parse(one, other);
    for (point, dir) in host.dirs() {
        assert!(dir.starts_with(point), "{dir:?} is not below {point:?}");
        assert!(!dir.components().any(|part| part == Component::ParentDir), "{dir:?} leads out of {point:?}");
    }
    let _ = (within(one, numbers), kib(one, "Rss"), run_time(one), kernel_parts(one), parent_in(one));
    if let Some(extent) = subordinate(one, 1000, Some("ann".into())) {
        assert!(extent.inside == 1 && (1..LENGTH).contains(&extent.length), "{extent:?}");
    }
    let extent = root_extent(one, 3);
    assert!(extent.inside == 0 && extent.length <= LENGTH, "{extent:?}");
    assert!(extent.outside.checked_add(extent.length.saturating_sub(1)).is_some(), "{extent:?}");
}

/// A process's parent is read behind any name.
pub fn the_parent_behind_any_name(pid: i32, name: &str, parent: i32) {
    assert_eq!(parent_in(&format!("{pid} ({name}) S {parent} 12 12 0 -1")), Some(parent));
}

/// Our own directory is found wherever the hierarchy is mounted: the kernel writes blanks, tabs, line ends and backslashes of a
/// path as octal numbers.
pub fn our_directory_is_found_at_any_place(point: &str, own: &str) {
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let (point, own) = (format!("/{}", clean(point)), format!("/{}", clean(own)));
    if Path::new(&own).components().any(|part| part == Component::ParentDir) {
        return;
    }
    let escaped = point.replace('\\', "\\134").replace(' ', "\\040").replace('#', "\\043");
    let mounts = format!("32 30 0:28 / {escaped} rw shared:9 - cgroup cgroup rw,memory\n");
    let host = Host::parse(&mounts, &format!("4:memory:{own}\n"));
    let places = host.places(Controller::Memory).expect("a place");
    let wanted = Path::new(&point).join(own.trim_start_matches('/'));
    assert_eq!(places.first().map(|place| place.base.components().eq(wanted.components())), Some(true));
}
