//! Writes the reports of invented numbers into a folder, to look at the design: `synthetic_report FOLDER`.

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use isolab_bench::environment::{ClockKind, HostClass};
use isolab_bench::report::{html, text};

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = std::env::args_os().nth(1).ok_or("name a folder")?.into();
    let levels = ["process", "container", "vm"];
    let records = [
        ("lab", synthetic::record(&levels, 5, HostClass::EmulatedLab, ClockKind::Instructions, 20)),
        ("host", synthetic::record(&levels, 60, HostClass::Hardware, ClockKind::Monotonic, 600)),
        ("two", synthetic::record(&levels[..2], 10, HostClass::Software, ClockKind::Monotonic, 600)),
        ("refused", synthetic::record(&levels, 10, HostClass::Software, ClockKind::Monotonic, 600)),
    ];
    for (name, record) in records {
        fs::write(folder.join(format!("{name}.json")), record.to_json()?)?;
        fs::write(folder.join(format!("{name}.html")), html::render(&record)?)?;
        let text = text::render(&record, text::TextStyle::default());
        println!("{text}\n");
    }
    Ok(())
}
