//! Compiles the tables of system calls to the filters that `src/filter.rs` embeds.

#[path = "src/filter/table.rs"]
mod table;

use std::path::Path;

use isolab_bpf::{ALLOW, Insn, KILL, argument, if_equal, mask};
use table::{OF_DEVICES, OF_PROCESSOR, conditions};

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=src/filter/table.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let out =
        std::env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
    let write = |name: &str, filter: Vec<u8>| std::fs::write(Path::new(&out).join(name), filter);
    write("processor.bpf", filter(OF_PROCESSOR))?;
    write("devices.bpf", filter(&[OF_PROCESSOR, OF_DEVICES].concat()))
}

/// Allows these calls under their conditions; any other ends the process.
fn filter(calls: &[i64]) -> Vec<u8> {
    let verdict = |number: u32| {
        let call = i64::from(number);
        calls.contains(&call).then(|| conditions(call))
    };
    isolab_bpf::compile(verdict, |verdict| verdict.map_or_else(|| vec![KILL], leaf))
}

fn leaf(conditions: &[(u32, u32, u32)]) -> Vec<Insn> {
    let mut code = Vec::new();
    for &(number, bits, value) in conditions {
        code.extend([argument(number), mask(bits), if_equal(value, 0, 1), ALLOW]);
    }
    code.push(if conditions.is_empty() { ALLOW } else { KILL });
    code
}
