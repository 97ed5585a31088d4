//! The system calls that are left to the monitor's threads once the guest may run. Whoever gets into one of them through a device
//! finds no other: any other call ends the process. No new program, no file, no socket, no memory that can be executed.
//!
//! The tables (`filter/table.rs`) are compiled when isolab is built: no start pays for that.

use seccompiler::{BpfProgram, sock_filter};

pub(crate) mod table;

/// A filter can't be installed.
#[derive(Debug, thiserror::Error)]
#[error("confine the monitor's system calls")]
pub struct FilterError(#[source] seccompiler::Error);

/// One thread's filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter(&'static [u8]);

/// Of the device thread, and of the threads that it starts.
pub(crate) const OF_DEVICES: Filter = Filter(include_bytes!(concat!(env!("OUT_DIR"), "/devices.bpf")));

/// Of a processor's thread, which has that one already.
pub(crate) const OF_PROCESSOR: Filter = Filter(include_bytes!(concat!(env!("OUT_DIR"), "/processor.bpf")));

impl Filter {
    /// Confines the calling thread.
    pub(crate) fn apply(self) -> Result<(), FilterError> {
        seccompiler::apply_filter(&self.program()).map_err(FilterError)
    }

    /// The instructions in the kernel's form.
    fn program(self) -> BpfProgram {
        let insns = self.0.as_chunks::<8>().0.iter();
        insns
            .map(|&[c0, c1, jt, jf, k @ ..]| sock_filter {
                code: u16::from_le_bytes([c0, c1]),
                jt,
                jf,
                k: u32::from_le_bytes(k),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, UdpSocket};
    use std::process::Command;
    use std::thread;

    use rustix::io::{Errno, FdFlags};
    use vm_memory::mmap::MmapRegionError;
    use vm_memory::{GuestAddress, MmapRegion};

    use super::*;
    use crate::sys;

    #[test]
    fn what_is_left_of_arguments_is_what_the_headers_call_so() {
        let of = |call| table::conditions(call).iter().map(|&(_, _, value)| value).collect::<Vec<_>>();
        let known = |numbers: &[i32]| numbers.iter().map(|n| n.unsigned_abs()).collect::<Vec<_>>();
        let fionread = u32::try_from(libc::FIONREAD).unwrap();
        assert_eq!(of(libc::SYS_ioctl), [kvm_bindings::KVMIO << 8, fionread]);
        assert_eq!(table::conditions(libc::SYS_mmap), [(2, libc::PROT_EXEC.unsigned_abs(), 0)]);
        assert_eq!(of(libc::SYS_prctl), known(&[libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS]));
        assert_eq!(of(libc::SYS_fcntl), known(&[libc::F_GETFL]));
        assert_eq!(of(libc::SYS_madvise)[..2], known(&[libc::MADV_DONTNEED, libc::MADV_HUGEPAGE]));
    }

    #[test]
    fn each_call_is_answered_by_the_table() {
        const ALLOWED: u32 = 0x7fff_0000;
        const KILLED: u32 = 0x8000_0000;
        let all = [table::OF_PROCESSOR, table::OF_DEVICES].concat();
        for (filter, calls) in [(OF_PROCESSOR, table::OF_PROCESSOR), (OF_DEVICES, &all)] {
            // The 32-bit table's numbers mean other calls.
            assert_eq!(isolab_bpf::answer(filter.0, 0x4000_0003, 1, [0; 6]), Some(KILLED));
            for number in 0..1200 {
                let call = i64::from(number);
                let answer = |args| isolab_bpf::answer(filter.0, isolab_bpf::ARCH, number, args);
                let conditions = table::conditions(call);
                if !calls.contains(&call) {
                    assert_eq!(answer([0; 6]), Some(KILLED), "{call}");
                } else if conditions.is_empty() {
                    assert_eq!(answer([u32::MAX; 6]), Some(ALLOWED), "{call}");
                }
                for &(argument, bits, value) in conditions.iter().filter(|_| calls.contains(&call)) {
                    let mut args = [u32::MAX; 6];
                    assert_eq!(answer(args), Some(KILLED), "{call}");
                    args[usize::try_from(argument).unwrap()] = value | !bits;
                    assert_eq!(answer(args), Some(ALLOWED), "{call}");
                }
            }
        }
    }

    /// In a thread with this filter, in which other calls fail instead of ending the tests.
    fn confined<T: Send + 'static>(filter: Filter, body: impl FnOnce() -> T + Send + 'static) -> T {
        const RETURN: u16 = 0x06;
        let refused = 0x5_0000 | Errno::PERM.raw_os_error().unsigned_abs();
        let mut program = filter.program();
        let kills = |insn: &&mut sock_filter| insn.code == RETURN && insn.k == 0x8000_0000;
        program.iter_mut().filter(kills).for_each(|insn| insn.k = refused);
        let thread = thread::spawn(move || {
            seccompiler::apply_filter(&program).unwrap();
            body()
        });
        thread.join().unwrap()
    }

    fn map(protection: i32) -> std::io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        match MmapRegion::<()>::build(None, 4096, protection, flags) {
            Ok(_) => Ok(()),
            Err(MmapRegionError::Mmap(e)) => Err(e),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn no_file_no_program_no_socket_and_no_code_for_any_thread() {
        for filter in [OF_PROCESSOR, OF_DEVICES] {
            confined(filter, || {
                let refused = [
                    File::open("/dev/null").map(drop),
                    TcpListener::bind("127.0.0.1:0").map(drop),
                    UdpSocket::bind("127.0.0.1:0").map(drop),
                    Command::new("/bin/true").status().map(drop),
                    std::fs::remove_file("/nonexistent"),
                    std::os::unix::fs::chroot("/"),
                    map(libc::PROT_READ | libc::PROT_EXEC),
                ];
                for result in refused {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
                }
                map(libc::PROT_READ | libc::PROT_WRITE).unwrap();
            });
        }
    }

    #[test]
    fn of_requests_to_devices_only_those_to_kvm_pass() {
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(b"abc").unwrap();
        confined(OF_DEVICES, move || {
            assert_eq!(rustix::io::ioctl_fionread(&read), Ok(3));
            assert_eq!(rustix::io::ioctl_fionbio(&read, true), Err(Errno::PERM));
            assert_eq!(rustix::io::fcntl_setfd(&read, FdFlags::empty()), Err(Errno::PERM));
        });
    }

    #[test]
    fn of_advice_on_memory_only_that_it_can_go_passes() {
        let ram = crate::memory::map(1 << 20).unwrap();
        confined(OF_DEVICES, move || {
            sys::discard(&ram, GuestAddress(0), 0x1000).unwrap();
            assert_eq!(
                sys::advise(&ram, sys::Advice::NoDump).unwrap_err().kind(),
                ErrorKind::PermissionDenied
            );
        });
    }

    #[test]
    fn a_processors_thread_starts_no_other() {
        let spawned = confined(OF_PROCESSOR, || thread::Builder::new().spawn(|| ()).map(drop));
        assert_eq!(spawned.unwrap_err().kind(), ErrorKind::PermissionDenied);
        let spawned = confined(OF_DEVICES, || thread::spawn(|| 7).join().unwrap());
        assert_eq!(spawned, 7);
    }
}
