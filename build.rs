//! Has the linker lay the binary out for its start, which is page by page, by faults: two fifths of what level `process` costs before
//! the workload runs.
//!
//! * Relocations are packed, where the C library that is linked in can unpack them: a static position-independent program relocates
//!   itself, and the table of 650 KiB need not be read.
//! * What a start executes lies together, in the order of `start.order` (made by `make start-order`; names that are gone are left
//!   out): 14 windows of 64 KiB instead of 67.
//! * Functions and tables with the same bytes are there once: a quarter less to relocate. Nothing here compares their addresses.

use std::process::Command;

/// First glibc whose static start-up code knows `DT_RELR`. An older one would start the program unrelocated.
const FIRST: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=start.order");
    if installed().is_some_and(|version| version >= FIRST) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    println!("cargo::rustc-link-arg-bins=-Wl,--symbol-ordering-file=start.order,--no-warn-symbol-ordering");
    println!("cargo::rustc-link-arg-bins=-Wl,--icf=all,--ignore-data-address-equality");
}

/// The installed glibc, which is also the one that is linked in.
fn installed() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
