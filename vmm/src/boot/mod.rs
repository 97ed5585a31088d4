//! From a kernel file and an initramfs to guest memory that is ready to run.

pub(crate) mod initramfs;
pub(crate) mod kernel;
pub(crate) mod large;
mod sparse;
