//! The isolab command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[allow(dead_code, reason = "the command line comes with the levels")]
mod lab;

fn main() -> ExitCode {
    // Process 1 of the lab and its intermediate programs are this binary, too.
    lab::take_over().map_or(ExitCode::SUCCESS, ExitCode::from)
}
