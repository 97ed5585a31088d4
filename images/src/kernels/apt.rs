//! Packages by apt: what there is, and the file of one; nothing is installed.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output};

/// Largest package.
const MAX_PACKAGE: u64 = 512 << 20;

/// A step with apt that failed.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// No apt here.
    #[error(
        "{program} is not there, so no kernel can be fetched: add one with `isolab kernel add PATH --modules DIR`"
    )]
    NoApt {
        /// What was looked for.
        program: &'static str,
    },
    /// apt could not be run.
    #[error("run {program}")]
    Run {
        /// Which program.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// apt knows none of the packages.
    #[error(
        "apt knows no package {tried}: run `apt-get update`, or add a kernel with `isolab kernel add PATH --modules DIR`"
    )]
    NoPackage {
        /// What was tried.
        tried: String,
    },
    /// The download failed.
    #[error("apt-get download {package} failed: {message}")]
    Download {
        /// Which package.
        package: String,
        /// Its last words.
        message: String,
    },
    /// The downloaded file can't be read.
    #[error("read the downloaded package {package}")]
    Read {
        /// Which package.
        package: String,
        /// Why.
        source: io::Error,
    },
}

/// apt's record of a package, or nothing where it knows none.
pub(super) fn show(package: &str) -> Result<Option<String>, AptError> {
    let mut command = Command::new("apt-cache");
    command.args(["show", "--no-all-versions", "--", package]).env("LC_ALL", "C");
    let out = run("apt-cache", &mut command)?;
    Ok(out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned()))
}

/// The file of a package, downloaded into `dir`, which holds no other.
pub(super) fn download(package: &str, dir: &Path) -> Result<Vec<u8>, AptError> {
    let mut command = Command::new("apt-get");
    // apt's own user can't write into our directory; without this, it says so and downloads as root anyway.
    command.args(["-q", "-o", "APT::Sandbox::User=root", "download", "--", package]);
    command.current_dir(dir).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    let out = run("apt-get", &mut command)?;
    let read = |source| AptError::Read { package: package.into(), source };
    let mut debs = Vec::new();
    for entry in fs::read_dir(dir).map_err(read)? {
        debs.push(entry.map_err(read)?.path());
    }
    debs.retain(|path| path.extension().is_some_and(|ext| ext == "deb"));
    match debs.as_slice() {
        [deb] if out.status.success() => {
            let size = fs::metadata(deb).map_err(read)?.len();
            if size > MAX_PACKAGE {
                return Err(read(io::Error::other(format!("{size} bytes are too many"))));
            }
            fs::read(deb).map_err(read)
        }
        _ => Err(AptError::Download { package: package.into(), message: last_words(&out.stderr) }),
    }
}

fn run(program: &'static str, command: &mut Command) -> Result<Output, AptError> {
    command.output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AptError::NoApt { program },
        _ => AptError::Run { program, source },
    })
}

/// The last line that says something.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("no package came and apt gave no reason").trim().into()
}

/// A one-line field of a package record.
pub(super) fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_field_by_its_whole_name() {
        const RECORD: &str = "Package: linux-image-cloud-amd64\nVersion: 6.1.187-1\n";
        assert_eq!(field(RECORD, "Version"), Some("6.1.187-1"));
        assert_eq!(field(RECORD, "Vers"), None);
    }

    #[test]
    fn keeps_the_last_words_of_apt() {
        assert_eq!(last_words(b"W: a\nE: Unable to locate package x\n\n"), "E: Unable to locate package x");
    }
}
