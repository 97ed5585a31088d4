#![no_std]
#![no_main]
//! x
#[allow(unsafe_code)]
mod entry { isolab_bare::entry!(super::main); }
fn main(start: isolab_bare::start::Start) -> ! { let _ = start.tsc; isolab_bare::sys::process::exit(3) }
