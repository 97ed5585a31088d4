//! What to run: images and kernels, and the vocabulary of a run ([`job::Job`]).
//!
//! An image enters as an OCI layout, a `docker save` archive, a tar or a directory, becomes one tree in memory
//! and leaves as one EROFS file named by its digest; every level mounts that same file. No name that an image
//! chose ever reaches a host path call.
#![forbid(unsafe_code)]

pub mod budget;
pub mod config;
pub mod digest;
pub mod directory;
pub mod erofs;
pub mod escape;
pub mod export;
pub mod initramfs;
#[cfg(any(test, fuzzing))]
pub mod invariants;
pub mod job;
pub mod kernels;
pub mod layer;
pub mod oci;
pub mod probe;
pub mod programs;
pub mod pull;
pub mod recipes;
pub mod report;
pub mod snapshots;
pub mod source;
mod spool;
mod staging;
pub mod store;
pub mod tree;
pub mod unpack;
pub mod users;
