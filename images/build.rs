//! Builds the two programs that run without a libc, `isolab-init` and `isolab-work`, for embedding
//! (`src/programs.rs`).
//!
//! They need other flags than the crates around them, so a cargo of their own builds them, in a target directory of
//! their own, without a network (they depend on nothing but this repository) and without anything of the outer build's
//! environment that would change the result.

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use sha2::{Digest, Sha256};

/// Static, at a fixed address (nothing to relocate at start), without the C runtime's start files, and running on every
/// x86-64 CPU.
const FLAGS: &[&str] = &[
    "-Crelocation-model=static",
    "-Ctarget-cpu=x86-64",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--build-id=none",
];
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() -> ExitCode {
    for part in ["bare", "init", "work", "wire"] {
        for name in ["src", "Cargo.toml", "Cargo.lock"] {
            let path = format!("{part}/{name}");
            // A name that does not exist would make every build run this script again.
            if Path::new(&path).exists() {
                println!("cargo::rerun-if-changed={path}");
            }
        }
    }
    for program in ["init", "work"] {
        if let Err(why) = build(program) {
            println!("cargo::error=isolab-{program}: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn build(program: &str) -> Result<(), String> {
    let get = |name: &str| env::var_os(name).ok_or_else(|| format!("{name} is not set"));
    let out = get("OUT_DIR")?;
    let out = Path::new(&out);
    let target_dir = out.join("bare");
    let mut cargo = Command::new(get("CARGO")?);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign =
            ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_CFG_", "CARGO_FEATURE_", "RUSTC_"];
        if foreign.iter().any(|prefix| text.starts_with(prefix)) || text == "RUSTFLAGS" {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .args(["build", "--release", "--locked", "--offline", "--quiet", "--target", TARGET])
        .arg("--manifest-path")
        .arg(Path::new(&get("CARGO_MANIFEST_DIR")?).join(program).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .status()
        .map_err(|e| format!("start cargo: {e}"))?;
    if !status.success() {
        return Err(format!("cargo ended with {status}"));
    }
    let name = format!("isolab-{program}");
    let built = target_dir.join(TARGET).join("release").join(&name);
    let program = std::fs::read(&built).map_err(|e| format!("read {}: {e}", built.display()))?;
    let digest: String = Sha256::digest(&program).iter().map(|byte| format!("{byte:02x}")).collect();
    for (file, content) in [(name.clone(), program), (format!("{name}.sha256"), digest.into_bytes())] {
        std::fs::write(out.join(&file), content).map_err(|e| format!("write {file}: {e}"))?;
    }
    Ok(())
}
