//! What `isolab-init` and `isolab-work` need to run straight on the kernel: an [entry](entry!) that takes the time
//! at its first instruction, the memory functions that the compiler calls, safe [system calls](sys), [marks](mark)
//! and [numbers as text](text). No libc, no allocation, nothing that runs before `main`.
//!
//! All unsafe code of the two programs is in `cell`, `mem`, `start`, `sys` and `vdso` of this package.
#![no_std]

#[allow(unsafe_code)]
pub mod cell;
pub mod mark;
#[allow(unsafe_code)]
mod mem;
#[allow(unsafe_code)]
pub mod start;
#[allow(unsafe_code)]
pub mod sys;
pub mod text;
#[allow(unsafe_code)]
pub mod vdso;
