//! Compiles the table of system calls to the filter that `src/seccomp.rs` embeds.

#[path = "src/seccomp/compile.rs"]
mod compile;
#[path = "src/seccomp/rules.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "written for the library")]
mod rules;

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=src/seccomp");
    println!("cargo::rerun-if-changed=build.rs");
    let out =
        std::env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
    std::fs::write(std::path::Path::new(&out).join("seccomp.bpf"), compile::filter())
}
