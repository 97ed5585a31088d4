//! Measuring: the port that every level implements, samples, reports.
#![forbid(unsafe_code)]

pub mod port;
