//! The two programs that run inside of every level, built by `build.rs` and carried in the binary: static
//! executables without a libc that run on any x86-64 Linux.

/// Process 1 of a container (argument `container`) and of a guest (`/init` of its initramfs).
pub static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/isolab-init"));

/// The workloads; also the whole content of the built-in image `demo`.
pub static WORK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/isolab-work"));

/// SHA-256 of [`WORK`], in hexadecimal: known when isolab is built, and asked for at every start.
pub const WORK_DIGEST: &str = include_str!(concat!(env!("OUT_DIR"), "/isolab-work.sha256"));

#[cfg(test)]
mod tests {
    use super::{INIT, WORK};

    /// Type and machine of an ELF file's header.
    fn header(elf: &[u8]) -> (&[u8], [u8; 4]) {
        (&elf[..4], [elf[16], elf[17], elf[18], elf[19]])
    }

    #[test]
    fn programs_are_fixed_address_x86_64_executables_of_modest_size() {
        for program in [INIT, WORK] {
            assert_eq!(header(program), (b"\x7fELF".as_slice(), [2, 0, 62, 0]));
            assert!(program.len() < 64 * 1024, "{} bytes", program.len());
        }
    }
}
