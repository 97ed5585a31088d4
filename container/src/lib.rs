//! The namespace container, and the bare process that it is compared with.
//!
//! Order of events ([`launch`]): cgroup and its limits ([`cgroup`]); the image as a detached mount ([`root`]); pipes for
//! marks and control; `clone3` into new namespaces ([`child`]); the parent maps ids ([`idmap`]) and the mount's ids,
//! sets resource limits, writes the job block, releases the child; the child puts its descriptors where `isolab-init` expects them, closes
//! all others and executes it from a sealed memfd. From there on [`instance`] waits: marks, memory charge, the end.
//!
//! What it refuses: a limit that the host can't enforce, an image that the kernel does not take as EROFS, a user
//! mapping that it did not write. The launcher must be single-threaded when it starts something.
#![deny(unsafe_code)]

pub mod account;
pub mod bare;
pub mod cgroup;
pub mod check;
pub mod child;
pub mod clock;
pub mod idmap;
pub mod instance;
#[cfg(any(test, fuzzing))]
pub mod invariants;
pub mod knobs;
pub mod launch;
mod orphans;
pub mod page_cache;
pub mod panics;
mod processes;
mod rlimits;
pub mod root;
pub mod seccomp;
mod sharing;
mod sys;
pub mod trace;

pub use sys::{copy_of_inherited, has_borrowed_rights};
