//! The programs and headers that the kernel's build uses.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::KernelBuildError;

/// What is needed, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
enum Need {
    Program(&'static str, &'static str),
    Header(&'static str, &'static str),
}

const NEEDS: &[Need] = &[
    Need::Program("gcc", "gcc"),
    Need::Program("ld", "binutils"),
    Need::Program("make", "make"),
    Need::Program("flex", "flex"),
    Need::Program("bison", "bison"),
    Need::Program("bc", "bc"),
    Need::Program("perl", "perl"),
    Need::Header("stdio.h", "libc6-dev"),
    // Of objtool, which prepares the mitigations.
    Need::Header("gelf.h", "libelf-dev"),
];

impl Need {
    fn is_there(self) -> bool {
        match self {
            Self::Program(name, _) => find(name).is_some(),
            Self::Header(name, _) => compiles(name),
        }
    }

    const fn names(self) -> (&'static str, &'static str) {
        let (Self::Program(name, package) | Self::Header(name, package)) = self;
        (name, package)
    }
}

/// Checks that all are there.
pub(super) fn check() -> Result<(), KernelBuildError> {
    missing(Need::is_there)
}

fn missing(is_there: impl Fn(Need) -> bool) -> Result<(), KernelBuildError> {
    let missing: Vec<_> = NEEDS.iter().filter(|need| !is_there(**need)).map(|need| need.names()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (names, packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    Err(KernelBuildError::Tools { what: names.join(", "), packages: packages.join(" ") })
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

fn compiles(header: &str) -> bool {
    let mut command = Command::new("gcc");
    command.args(["-fsyntax-only", "-include", header, "-x", "c", "/dev/null"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_that_brings_it() {
        let error = missing(|need| !matches!(need.names().0, "flex" | "gelf.h")).unwrap_err().to_string();
        assert!(error.starts_with("building a kernel needs flex, gelf.h; run `apt-get install"), "{error}");
        assert!(error.contains(" flex libelf-dev`"), "{error}");
    }

    #[test]
    fn a_program_that_nobody_has_is_not_found() {
        assert_eq!(find("isolab-no-such-program"), None);
        assert!(!compiles("isolab-no-such-header.h"));
    }
}
