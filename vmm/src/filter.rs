//! The system calls that are left to the monitor's threads once the guest may run. Whoever gets into one of them through a device
//! finds no other: any other call ends the process. No new program, no thread, no file, no socket, no memory that can be executed.
//!
//! The tables (`filter/table.rs`) are compiled when isolab is built: no start pays for that.

use seccompiler::{BpfProgram, sock_filter};

pub(crate) use table::Kind;

pub(crate) mod table;

/// A filter can't be installed.
#[derive(Debug, thiserror::Error)]
#[error("confine the monitor's system calls")]
pub struct FilterError(#[source] seccompiler::Error);

/// One filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter(&'static [u8]);

/// That of a kind.
pub(crate) const fn of(kind: Kind) -> Filter {
    Filter(match kind {
        Kind::Start => include_bytes!(concat!(env!("OUT_DIR"), "/start.bpf")),
        Kind::Processor => include_bytes!(concat!(env!("OUT_DIR"), "/processor.bpf")),
        Kind::Devices => include_bytes!(concat!(env!("OUT_DIR"), "/devices.bpf")),
        Kind::TemplatesDevices => include_bytes!(concat!(env!("OUT_DIR"), "/templates_devices.bpf")),
    })
}

impl Filter {
    /// Confines the calling thread.
    pub(crate) fn apply(self) -> Result<(), FilterError> {
        seccompiler::apply_filter(&self.program()).map_err(FilterError)
    }

    /// The instructions in the kernel's form, for this process.
    fn program(self) -> BpfProgram {
        let own = std::process::id();
        let insns = self.0.as_chunks::<8>().0.iter();
        insns
            .map(|&[c0, c1, jt, jf, k @ ..]| sock_filter {
                code: u16::from_le_bytes([c0, c1]),
                jt,
                jf,
                k: Some(u32::from_le_bytes(k)).filter(|k| *k != table::OWN_PROCESS).unwrap_or(own),
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

    const ALL: [Kind; 4] = [Kind::Start, Kind::Processor, Kind::Devices, Kind::TemplatesDevices];
    /// Those that a running guest's threads have.
    const LAST: [Kind; 3] = [Kind::Processor, Kind::Devices, Kind::TemplatesDevices];

    #[test]
    fn what_is_left_of_arguments_is_what_the_headers_call_so() {
        let left =
            |kind, call| table::conditions(kind, call).iter().map(|&(_, _, value)| value).collect::<Vec<_>>();
        let known = |numbers: &[i32]| numbers.iter().map(|n| n.unsigned_abs()).collect::<Vec<_>>();
        let fionread = u32::try_from(libc::FIONREAD).unwrap();
        assert_eq!(left(Kind::TemplatesDevices, libc::SYS_ioctl), [kvm_bindings::KVMIO << 8, fionread]);
        assert_eq!(left(Kind::Devices, libc::SYS_ioctl), [fionread]);
        for kind in ALL {
            assert_eq!(table::conditions(kind, libc::SYS_mmap), [(2, libc::PROT_EXEC.unsigned_abs(), 0)]);
            assert_eq!(left(kind, libc::SYS_fcntl), known(&[libc::F_GETFL]));
            assert_eq!(
                left(kind, libc::SYS_madvise)[..2],
                known(&[libc::MADV_DONTNEED, libc::MADV_HUGEPAGE])
            );
        }
    }

    #[test]
    fn each_call_is_answered_by_the_table() {
        const ALLOWED: u32 = 0x7fff_0000;
        const KILLED: u32 = 0x8000_0000;
        for kind in ALL {
            let filter = of(kind);
            let calls = kind.calls();
            // The 32-bit table's numbers mean other calls.
            assert_eq!(isolab_bpf::answer(filter.0, 0x4000_0003, 1, [0; 6]), Some(KILLED));
            for number in 0..1200 {
                let call = i64::from(number);
                // The strictest counts.
                let answer = |args| {
                    let of_each = [of(Kind::Start), filter];
                    let of_each = of_each.map(|f| isolab_bpf::answer(f.0, isolab_bpf::ARCH, number, args));
                    of_each.into_iter().find(|answer| *answer != Some(ALLOWED)).unwrap_or(Some(ALLOWED))
                };
                let conditions = table::conditions(kind, call);
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

    #[test]
    fn the_only_process_that_can_be_signalled_is_its_own() {
        let places = |kind, k| of(kind).program().iter().filter(|insn| insn.k == k).count();
        assert_eq!(places(Kind::Start, table::OWN_PROCESS), 0);
        assert!(places(Kind::Start, std::process::id()) > 0);
        let parent = rustix::process::getppid().unwrap();
        confined(Kind::Devices, move || {
            let (none, thread) = (0_usize, rustix::thread::gettid());
            assert_eq!(sys::tests::tgkill(rustix::process::getpid(), thread, none), Ok(()));
            assert_eq!(sys::tests::tgkill(parent, parent, none), Err(Errno::PERM));
        });
    }

    /// In a thread with this filter over the first one, in which other calls fail instead of ending the tests.
    fn confined<T: Send + 'static>(kind: Kind, body: impl FnOnce() -> T + Send + 'static) -> T {
        const RETURN: u16 = 0x06;
        let refused = 0x5_0000 | Errno::PERM.raw_os_error().unsigned_abs();
        let programs = [Kind::Start, kind].map(|kind| {
            let mut program = of(kind).program();
            let kills = |insn: &&mut sock_filter| insn.code == RETURN && insn.k == 0x8000_0000;
            program.iter_mut().filter(kills).for_each(|insn| insn.k = refused);
            program
        });
        let thread = thread::spawn(move || {
            programs.iter().for_each(|program| seccompiler::apply_filter(program).unwrap());
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
        for kind in ALL {
            confined(kind, || {
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
        confined(Kind::TemplatesDevices, move || {
            assert_eq!(rustix::io::ioctl_fionread(&read), Ok(3));
            assert_eq!(rustix::io::ioctl_fionbio(&read, true), Err(Errno::PERM));
            assert_eq!(rustix::io::fcntl_setfd(&read, FdFlags::empty()), Err(Errno::PERM));
        });
    }

    #[test]
    fn of_advice_on_memory_only_that_it_can_go_passes() {
        let ram = crate::memory::map(1 << 20).unwrap();
        confined(Kind::Devices, move || {
            sys::discard(&ram, GuestAddress(0), 0x1000).unwrap();
            assert_eq!(
                sys::advise(&ram, sys::Advice::NoDump).unwrap_err().kind(),
                ErrorKind::PermissionDenied
            );
        });
    }

    #[test]
    fn the_first_filter_allows_what_the_others_do() {
        let first = Kind::Start.calls();
        for kind in LAST {
            assert!(kind.calls().iter().all(|call| first.contains(call)), "{kind:?}");
        }
    }

    #[test]
    fn no_thread_starts_another() {
        for kind in LAST {
            let spawned = confined(kind, || thread::Builder::new().spawn(|| ()).map(drop));
            assert_eq!(spawned.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn of_kvm_a_processors_thread_runs_its_processor_and_the_device_thread_has_nothing() {
        let Ok(kvm) = kvm_ioctls::Kvm::new() else {
            println!("skipped: kvm: no /dev/kvm");
            return;
        };
        for kind in LAST {
            let kvm = kvm_ioctls::Kvm::new().unwrap();
            let version = confined(kind, move || kvm.get_api_version());
            assert_eq!(version > 0, kind == Kind::TemplatesDevices, "{kind:?}");
        }
        drop(kvm);
    }
}
