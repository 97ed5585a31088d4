//! `regex-lite` under the name of `regex`, for the dependencies that want the latter (`Cargo.toml`, `[patch]`).
//!
//! They match image references and CPU lists: ASCII. The Unicode tables of `regex` are 190 KiB of pointers, which a static
//! position-independent program has to relocate at each start: 46 pages to copy, a tenth of what isolab's own start costs.
#![forbid(unsafe_code)]

pub use regex_lite::*;
