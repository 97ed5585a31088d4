//! P38: memory that others may share: pages that are alike, and the page cache of the image.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::files::{beginning, open, ways};
use crate::out::Out;
use crate::protocol::Spec;
use crate::roots::IMAGE;
use crate::sys::{self, Ended};

/// Pages of the image's file that are looked for.
const PAGES: usize = 256;

/// P38: what the kernel may merge, whose file system the image is, and what of its file on the host is in memory.
pub(crate) fn shared(spec: &Spec, out: &Out<'_>) {
    merging(out);
    // Without a writable layer the image is the root itself.
    let image = if Path::new(IMAGE).is_dir() { Some(IMAGE) } else { image_is_root().then_some("/") };
    match image.map(fs::metadata) {
        Some(Ok(meta)) => {
            let device = meta.dev();
            out.told("image's pages", &format!("{}:{}", libc::major(device), libc::minor(device)));
        }
        Some(Err(error)) => out.io("image's pages", &error, ""),
        None => out.absent("image's pages", "not shown at this level"),
    }
    let mut error = None;
    for way in ways(&spec.image_file) {
        match open(&way, libc::O_NONBLOCK) {
            Ok(file) => match sys::resident(&file, PAGES) {
                Ok(n) => {
                    let said = format!("{n} of the first {PAGES} pages of {way} are in memory");
                    return out.reached("image file's pages", &said);
                }
                Err(errno) => return out.error("image file's pages", errno, &way),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => error = Some(e),
        }
    }
    match error {
        Some(error) => out.io("image file's pages", &error, ""),
        None => out.hidden("image file's pages", "no file of that name"),
    }
}

fn image_is_root() -> bool {
    const EROFS: u64 = 0xe0f5_e1e2;
    sys::statfs("/").is_ok_and(|words| words[0] == EROFS)
}

/// Whether own pages are candidates for merging with others that hold the same: all of them without having been asked,
/// those for which it is asked, or none.
fn merging(out: &Out<'_>) {
    const GET_MEMORY_MERGE: usize = 68;
    let unasked = sys::call(157, &[GET_MEMORY_MERGE, 0, 0, 0, 0]) == Ok(1) || has_mergeable();
    match sys::in_child(Duration::from_secs(3), || {
        i64::from(sys::offer_to_merge().is_ok() && has_mergeable())
    }) {
        _ if unasked => out.told("merging", "all"),
        Ended::Value(1) => out.told("merging", "asked"),
        Ended::Value(_) => out.told("merging", "none"),
        ended => out.say("merging", crate::protocol::Found::Unknown, &format!("{ended:?}")),
    }
}

/// A mapping of this process has the kernel's flag for it.
fn has_mergeable() -> bool {
    let maps = beginning("/proc/self/smaps", 1 << 20).unwrap_or_default();
    let mut flags = maps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
    flags.any(|flags| flags.split_whitespace().any(|flag| flag == "mg"))
}
