//! Has the linker pack the relocations of the binary, where the C library that is linked in can unpack them.
//!
//! A static position-independent program relocates itself at each start. Packed, that is a tenth of the instructions, and
//! the table of 650 KiB need not be read: about a tenth of a whole run at level `process`.

use std::process::Command;

/// First glibc whose static start-up code knows `DT_RELR`. An older one would start the program unrelocated.
const FIRST: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if installed().is_some_and(|version| version >= FIRST) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The installed glibc, which is also the one that is linked in.
fn installed() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
