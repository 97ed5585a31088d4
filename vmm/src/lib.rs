//! vmm
pub mod probe;
