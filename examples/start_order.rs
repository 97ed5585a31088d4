//! Functions in the order in which a start first executes them, for the linker (`build.rs`): `start_order ISOLAB > start.order`.
//!
//! Programs start page by page. What a run executes is a tenth of the binary's code, and spread over all of it: ordered, it lies in a
//! seventh of the pages that the kernel maps otherwise. QEMU tells which code it translates while isolab runs the levels in its
//! lab, whose kernel gives each process the same addresses.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSegment, ObjectSymbol};

const QEMU: &str = "qemu-system-x86_64";
/// Where mappings end in the lab (`norandmaps`): below the stack's random part, which is none, and its guard gap.
const MAPPINGS_END: u64 = 0x7fff_f7ff_f000;
const PAGE: u64 = 4096;

/// What one lab runs, measured, since that is more: from the most to the least usual start, so that what each of them needs lies together.
const STARTS: &str = r#"{"args": ["run", "--report-fd", "1", "--level", "process", "demo"]}
{"args": ["run", "--report-fd", "1", "--level", "container", "demo"]}
{"args": ["run", "--report-fd", "1", "--level", "vm", "demo"]}
{"args": ["snapshot", "demo"]}
{"args": ["run", "--report-fd", "1", "--level", "vm", "--from-snapshot", "demo"]}
"#;

fn main() -> Result<()> {
    let program = std::env::args().nth(1).context("usage: start_order ISOLAB")?;
    let functions = Functions::of(&program)?;
    let mut seen = HashSet::new();
    let log = translated(Path::new(&program))?;
    for name in log.lines().filter_map(block).filter_map(|address| functions.at(address)) {
        if seen.insert(name) {
            println!("{name}");
        }
    }
    Ok(())
}

/// The functions of the program at their addresses in the lab.
struct Functions(Vec<(u64, u64, String)>);

impl Functions {
    fn of(program: &str) -> Result<Self> {
        let bytes = fs::read(program).with_context(|| format!("read {program}"))?;
        let file = object::File::parse(&*bytes).context("read its headers")?;
        let end = file.segments().map(|segment| segment.address() + segment.size()).max();
        let base = MAPPINGS_END - end.context("no segments")?.next_multiple_of(PAGE);
        let mut functions: Vec<_> = file
            .symbols()
            .filter(|symbol| symbol.is_definition() && symbol.kind() == object::SymbolKind::Text)
            .filter_map(|symbol| {
                Some((base + symbol.address(), symbol.size(), symbol.name().ok()?.to_owned()))
            })
            .collect();
        functions.sort();
        ensure!(!functions.is_empty(), "{program} has no symbols");
        Ok(Self(functions))
    }

    fn at(&self, address: u64) -> Option<&str> {
        let next = self.0.partition_point(|&(start, ..)| start <= address);
        let (start, size, name) = self.0.get(next.checked_sub(1)?)?;
        (address < start + size).then_some(name)
    }
}

/// What QEMU tells of the programs that it translates while isolab makes the starts.
fn translated(program: &Path) -> Result<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let qemu = std::env::split_paths(&path).map(|dir| dir.join(QEMU)).find(|file| file.exists());
    let qemu = qemu.context("QEMU is missing")?;
    let dir = tempfile::tempdir().context("make a directory")?;
    let (log, script) = (dir.path().join("log"), dir.path().join(QEMU));
    let telling = format!("-d in_asm -dfilter 0x7fff00000000..0x7fffffffffff -D {}", log.display());
    let text = format!(
        "#!/bin/sh\ncase \" $* \" in *' -kernel '*) exec {0} \"$@\" {telling};; esac\nexec {0} \"$@\"\n",
        qemu.display()
    );
    fs::write(&script, text).context("write the script")?;
    fs::set_permissions(&script, Permissions::from_mode(0o755)).context("make it executable")?;
    let paths = std::iter::once(dir.path().to_owned()).chain(std::env::split_paths(&path));
    let mut command = Command::new(program);
    command.args(["lab", "--", "batch"]).env("PATH", std::env::join_paths(paths)?);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start isolab")?;
    child.stdin.take().context("its input")?.write_all(STARTS.as_bytes()).context("ask for the starts")?;
    let output = child.wait_with_output().context("wait for isolab")?;
    let answers = String::from_utf8_lossy(&output.stdout);
    let good = answers.lines().filter(|line| line.starts_with("{\"status\":0,")).count();
    ensure!(good == STARTS.lines().count(), "not all starts succeeded: {answers}");
    fs::read_to_string(&log).context("read what QEMU told")
}

/// The address in a line of QEMU's log.
fn block(line: &str) -> Option<u64> {
    u64::from_str_radix(line.strip_prefix("0x")?.split_once(':')?.0, 16).ok()
}
