//! Builds the programs that the binary carries (`src/programs.rs`), each with a cargo of its own and without anything of the
//! outer build's environment that would change the result.
//!
//! `isolab-init` and `isolab-work` run without a libc and need other flags than the crates around them; they depend on
//! nothing but this repository. `isolab-pull`, the registry client, and `isolab-probe` have dependencies of their own, which
//! are downloaded; their target directories are inside of the workspace's, so that they are built once for all profiles.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use sha2::{Digest, Sha256};

/// What distinguishes the builds of two programs.
struct Program {
    name: &'static str,
    flags: &'static [&'static str],
    /// Arguments to cargo.
    more: &'static [&'static str],
    /// Said where the build fails.
    hint: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program { name: "init", flags: BARE, more: &["--offline"], hint: "" },
    Program { name: "work", flags: BARE, more: &["--offline"], hint: "" },
    Program {
        name: "pull",
        flags: &["-Ctarget-feature=+crt-static"],
        more: &[],
        hint: " (without a network: `cargo fetch --locked --manifest-path images/pull/Cargo.toml` where there is one)",
    },
    Program {
        name: "probe",
        flags: &["-Ctarget-feature=+crt-static", "-Crelocation-model=static", "-Ctarget-cpu=x86-64"],
        more: &[],
        hint: " (without a network: `cargo fetch --locked --manifest-path images/probe/Cargo.toml` where there is one)",
    },
];

/// Static, at a fixed address (nothing to relocate at start), without the C runtime's start files, and running on every
/// x86-64 CPU.
const BARE: &[&str] = &[
    "-Crelocation-model=static",
    "-Ctarget-cpu=x86-64",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--build-id=none",
];
/// What variables of the outer build begin with.
const FOREIGN: &[&str] = &[
    "CARGO_PROFILE_",
    "CARGO_BUILD_",
    "CARGO_TARGET_",
    "CARGO_CFG_",
    "CARGO_FEATURE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "RUSTC_",
];
/// Others of it. Some dependencies of the programs ask to be built anew when these change, and they are others in each profile.
const OF_THIS_SCRIPT: &[&str] =
    &["DEBUG", "HOST", "NUM_JOBS", "OPT_LEVEL", "OUT_DIR", "PROFILE", "RUSTDOC", "RUSTFLAGS", "TARGET"];
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() -> ExitCode {
    for part in ["bare", "init", "probe", "pull", "regex", "wire", "work"] {
        for name in ["src", "Cargo.toml", "Cargo.lock"] {
            let path = format!("{part}/{name}");
            // A name that does not exist would make every build run this script again.
            if Path::new(&path).exists() {
                println!("cargo::rerun-if-changed={path}");
            }
        }
    }
    println!("cargo::rerun-if-changed=src/probe.rs");
    println!("cargo::rerun-if-changed=src/pull/protocol.rs");
    println!("cargo::rerun-if-changed=build.rs");
    for program in PROGRAMS {
        if let Err(why) = build(program) {
            println!("cargo::error=isolab-{}: {why}{}", program.name, program.hint);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set"))
}

fn build(program: &Program) -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target_dir = if program.flags == BARE { out.join("bare") } else { shared(&out, program.name)? };
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if FOREIGN.iter().any(|prefix| text.starts_with(prefix)) || OF_THIS_SCRIPT.contains(&&*text) {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .args(["build", "--release", "--locked", "--quiet", "--target", TARGET])
        .args(program.more)
        .arg("--manifest-path")
        .arg(Path::new(&variable("CARGO_MANIFEST_DIR")?).join(program.name).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", program.flags.join("\x1f"))
        .status()
        .map_err(|e| format!("start cargo: {e}"))?;
    if !status.success() {
        return Err(format!("cargo ended with {status}"));
    }
    let name = format!("isolab-{}", program.name);
    let built = target_dir.join(TARGET).join("release").join(&name);
    let program = std::fs::read(&built).map_err(|e| format!("read {}: {e}", built.display()))?;
    let digest: String = Sha256::digest(&program).iter().map(|byte| format!("{byte:02x}")).collect();
    for (file, content) in [(name.clone(), program), (format!("{name}.sha256"), digest.into_bytes())] {
        std::fs::write(out.join(&file), content).map_err(|e| format!("write {file}: {e}"))?;
    }
    Ok(())
}

/// A directory in the workspace's target directory, of which `OUT_DIR` is `[TARGET/]PROFILE/build/PACKAGE/out`; one for each
/// program, because with the other's flags everything would be built anew each time.
fn shared(out: &Path, name: &str) -> Result<PathBuf, String> {
    let above = out.ancestors().nth(4).ok_or("OUT_DIR is not in a target directory")?;
    let target_dir = if above.ends_with(TARGET) { above.parent().unwrap_or(above) } else { above };
    Ok(target_dir.join(format!("isolab-{name}")))
}
