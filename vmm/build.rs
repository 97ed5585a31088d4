//! Compiles the tables of system calls to the filters that `src/filter.rs` embeds.

#[path = "src/filter/table.rs"]
mod table;

use std::path::Path;

use isolab_bpf::{ALLOW, Insn, KILL, argument, if_equal, mask};
use table::{Kind, conditions};

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=src/filter/table.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let out =
        std::env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
    let write = |name: &str, filter: Vec<u8>| std::fs::write(Path::new(&out).join(name), filter);
    write("start.bpf", filter(Kind::Start))?;
    write("processor.bpf", filter(Kind::Processor))?;
    write("devices.bpf", filter(Kind::Devices))?;
    write("templates_devices.bpf", filter(Kind::TemplatesDevices))
}

/// Allows this kind's calls under their conditions; any other ends the process. What the first filter refuses, or asks for, no other one
/// has to: those are as short as that makes them.
fn filter(kind: Kind) -> Vec<u8> {
    let first = Kind::Start.calls();
    let lowest = first.iter().copied().min().unwrap_or_default();
    let calls = kind.calls();
    let verdict = |number: u32| {
        let mut call = i64::from(number);
        if kind != Kind::Start {
            call = (lowest..=call).rev().find(|call| first.contains(call)).unwrap_or(lowest);
        }
        let conditions = conditions(kind, call);
        let known = kind != Kind::Start && conditions == table::conditions(Kind::Start, call);
        calls.contains(&call).then_some(if known { &[] } else { conditions })
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
