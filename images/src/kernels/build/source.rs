//! The source tree out of its package: an xz-compressed tar inside of a Debian package.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::super::compressed;
use super::super::package::{self, KernelPackageError};
use super::{BuildKernel, BuildStep};

/// Most files and bytes unpacked; 6.12 has 87 000 files of 1.5 GB, of which half the files are needed.
const MAX_FILES: u64 = 200_000;
const MAX_BYTES: u64 = 4 << 30;
/// Files between two words of progress.
const STEP: u64 = 500;

/// The source can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not a package.
    #[error(transparent)]
    Package(#[from] KernelPackageError),
    /// No source in it.
    #[error("no usr/src/linux-source-*.tar.xz in the package")]
    NoSource,
    /// A damaged archive, or a file that can't be written.
    #[error("read or write a file of the source")]
    Unpack(#[source] io::Error),
    /// Over a limit.
    #[error("the source is over the limit of {limit} {what}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// As asked for.
    #[error("the build was stopped")]
    Stopped,
}

/// Unpacks what the build needs below `dir`; returns the root of the source.
pub(super) fn unpack(
    deb: &[u8],
    dir: &Path,
    how: &BuildKernel<'_>,
    progress: &mut dyn FnMut(&BuildStep),
) -> Result<PathBuf, SourceError> {
    let mut outer = tar::Archive::new(package::data(deb)?);
    for entry in outer.entries().map_err(SourceError::Unpack)? {
        let entry = entry.map_err(SourceError::Unpack)?;
        if is_source(&String::from_utf8_lossy(&entry.path_bytes())) {
            return unpack_tree(compressed::xz(entry), dir, how, progress);
        }
    }
    Err(SourceError::NoSource)
}

fn is_source(path: &str) -> bool {
    let file = path.trim_start_matches("./").strip_prefix("usr/src/");
    file.is_some_and(|file| file.starts_with("linux-source-") && file.ends_with(".tar.xz"))
}

fn unpack_tree(
    stream: impl Read,
    dir: &Path,
    how: &BuildKernel<'_>,
    progress: &mut dyn FnMut(&BuildStep),
) -> Result<PathBuf, SourceError> {
    let mut tree = tar::Archive::new(stream);
    let (mut files, mut bytes, mut root) = (0, 0, None);
    for entry in tree.entries().map_err(SourceError::Unpack)? {
        let mut entry = entry.map_err(SourceError::Unpack)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (top, below) = path.split_once('/').unwrap_or((&path, ""));
        root.get_or_insert_with(|| top.to_owned());
        if !is_needed(below) {
            continue;
        }
        if files % STEP == 0 {
            progress(&BuildStep::Unpacking { files });
            if how.is_stopped() {
                return Err(SourceError::Stopped);
            }
        }
        files += 1;
        bytes += entry.size();
        if files > MAX_FILES {
            return Err(SourceError::TooLarge { what: "files", limit: MAX_FILES });
        }
        if bytes > MAX_BYTES {
            return Err(SourceError::TooLarge { what: "bytes", limit: MAX_BYTES });
        }
        // By itself, it refuses hard links and paths that lead out of the directory, and skips names that would. The package is
        // signed, and its scripts are executed.
        entry.unpack_in(dir).map_err(SourceError::Unpack)?;
    }
    let root = dir.join(root.ok_or(SourceError::NoSource)?);
    fs::metadata(root.join("Makefile")).map_err(SourceError::Unpack)?;
    Ok(root)
}

/// Whether the build looks at this path of the source: not at other processors, nor at drivers that a guest can't have. The
/// rules of the configuration are read whole.
fn is_needed(path: &str) -> bool {
    /// Most of the source by size.
    const SKIPPED: &[&str] = &[
        "Documentation/",
        "drivers/gpu/",
        "drivers/infiniband/",
        "drivers/media/",
        "drivers/net/ethernet/",
        "drivers/net/wireless/",
        "drivers/scsi/",
        "drivers/staging/",
        "sound/",
        "tools/perf/",
        "tools/testing/",
    ];
    let file = path.rsplit('/').next().unwrap_or(path);
    let is_rule = file.starts_with("Kconfig") || file.starts_with("Makefile") || file == "Kbuild";
    let other_processor = path
        .strip_prefix("arch/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(processor, _)| processor != "x86");
    is_rule || !(other_processor || SKIPPED.iter().any(|skipped| path.starts_with(skipped)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::super::samples::{ar, tar, xz};
    use super::*;

    fn deb(tree: &[(&str, &[u8])]) -> Vec<u8> {
        let source = xz(&tar(tree));
        let data = tar(&[("./usr/share/doc/x", b"text"), ("./usr/src/linux-source-6.12.tar.xz", &source)]);
        ar(&[("debian-binary", b"2.0\n"), ("data.tar.xz", &xz(&data))])
    }

    fn unpacked(deb: &[u8], stop: impl AsFd) -> (tempfile::TempDir, Result<PathBuf, SourceError>) {
        let dir = tempfile::tempdir().unwrap();
        let how = BuildKernel { jobs: 1, stop: stop.as_fd() };
        let root = unpack(deb, dir.path(), &how, &mut |_| {});
        (dir, root)
    }

    const TREE: &[(&str, &[u8])] = &[
        ("linux-source-6.12/Makefile", b"all:\n"),
        ("linux-source-6.12/arch/x86/Kconfig", b"config X86\n"),
        ("linux-source-6.12/arch/arm64/boot/head.S", b"nop\n"),
        ("linux-source-6.12/drivers/gpu/drm/Kconfig", b"config DRM\n"),
        ("linux-source-6.12/drivers/gpu/drm/drm.c", b"int drm;\n"),
    ];

    #[test]
    fn unpacks_what_the_build_looks_at() {
        let (never, _open) = io::pipe().unwrap();
        let (_dir, root) = unpacked(&deb(TREE), never);
        let root = root.unwrap();
        assert!(root.join("arch/x86/Kconfig").is_file() && root.join("drivers/gpu/drm/Kconfig").is_file());
        assert!(!root.join("arch/arm64").exists() && !root.join("drivers/gpu/drm/drm.c").exists());
    }

    #[test]
    fn stops_when_asked() {
        let (asked, _) = io::pipe().unwrap();
        let (_dir, root) = unpacked(&deb(TREE), asked);
        assert!(matches!(root, Err(SourceError::Stopped)));
    }

    #[test]
    fn a_package_without_source_or_cut_short_is_refused() {
        let (never, _open) = io::pipe().unwrap();
        let none = ar(&[("data.tar.xz", &xz(&tar(&[("./usr/bin/tool", b"x")])))]);
        assert!(matches!(unpacked(&none, &never).1, Err(SourceError::NoSource)));
        let whole = deb(TREE);
        unpacked(&whole[..whole.len() - 100], &never).1.unwrap_err();
    }
}
