//! The isolab command.
#![forbid(unsafe_code)]
mod cli;
mod config;
mod signals;
mod stdio;
mod supervise;
mod terminal;
mod units;

fn main() {}
