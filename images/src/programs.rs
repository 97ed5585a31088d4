//! The programs that the binary carries, built by `build.rs`: two that run inside of every level, static executables
//! without a libc that run on any x86-64 Linux, the probe program, and the registry client.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{Errno, retry_on_intr};

/// Process 1 of a container (argument `container`) and of a guest (`/init` of its initramfs).
pub static INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/isolab-init"));

/// SHA-256 of [`INIT`], in hexadecimal: a guest that continues from a template continues in this program.
pub const INIT_DIGEST: &str = include_str!(concat!(env!("OUT_DIR"), "/isolab-init.sha256"));

/// The workloads; also the whole content of the built-in image `demo`.
pub static WORK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/isolab-work"));

/// SHA-256 of [`WORK`], in hexadecimal: known when isolab is built, and asked for at every start.
pub const WORK_DIGEST: &str = include_str!(concat!(env!("OUT_DIR"), "/isolab-work.sha256"));

/// What `isolab probe` executes at every level, by descriptor: it is part of no image.
pub static PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/isolab-probe"));

/// SHA-256 of [`PROBE`], in hexadecimal.
pub const PROBE_DIGEST: &str = include_str!(concat!(env!("OUT_DIR"), "/isolab-probe.sha256"));

/// The registry client (`pull`). Not read, and so not in memory, until it is started.
pub(crate) static PULL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/isolab-pull"));

/// A program in a sealed memory file, to execute by descriptor: nothing of the host can be reached or changed through its
/// process's `/proc/PID/exe`.
#[derive(Debug)]
pub struct Sealed(OwnedFd);

/// A program could not be put into a sealed memory file.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct SealError {
    step: &'static str,
    source: Errno,
}

impl Sealed {
    /// Copies the program into a memory file of that name and seals it. Closed by exec.
    ///
    /// # Errors
    /// The step that failed.
    pub fn new(name: &CStr, program: &[u8]) -> Result<Self, SealError> {
        let fail = |step| move |source| SealError { step, source };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 know no MFD_EXEC and make every memory file executable.
        let file = memfd_create(name, flags | MemfdFlags::EXEC)
            .or_else(|_| memfd_create(name, flags))
            .map_err(fail("create"))?;
        let mut rest = program;
        while !rest.is_empty() {
            let n = retry_on_intr(|| rustix::io::write(&file, rest)).map_err(fail("write"))?;
            rest = &rest[n..];
        }
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, seals).map_err(fail("seal"))?;
        Ok(Self(file))
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::{INIT, PROBE, PULL, WORK};

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

    #[test]
    fn the_probe_program_is_a_fixed_address_x86_64_executable_of_modest_size() {
        assert_eq!(header(PROBE), (b"\x7fELF".as_slice(), [2, 0, 62, 0]));
        assert!(PROBE.len() < 2 << 20, "{} bytes", PROBE.len());
    }

    #[test]
    fn the_registry_client_is_position_independent_and_not_much_larger_than_its_libraries() {
        assert_eq!(header(PULL), (b"\x7fELF".as_slice(), [3, 0, 62, 0]));
        assert!(PULL.len() < 8 << 20, "{} bytes", PULL.len());
    }
}
