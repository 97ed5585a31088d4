//! Every raw system call of this crate, behind safe signatures.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, ReadVolatile, VolatileMemoryError, VolatileSlice};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::GuestRam;

/// An event descriptor, borrowed for `poll`.
pub(crate) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: demands an open descriptor for the whole lifetime and not -1: the returned lifetime is that of
    // `event`, which owns the descriptor and closes it only when dropped.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Gives a region of RAM to the guest.
pub(crate) fn register_ram(vm: &VmFd, slot: u32, ram: &GuestRam, index: usize) -> io::Result<()> {
    let region = ram.iter().nth(index).ok_or(io::ErrorKind::InvalidInput)?;
    let host = ram.get_host_address(region.start_addr()).map_err(io::Error::other)?;
    let memory = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: region.start_addr().0,
        memory_size: region.len(),
        userspace_addr: host as u64,
    };
    // SAFETY: demands that the host range stays mapped while the guest can run: each processor's thread holds the
    // bus, whose devices hold clones of `ram`; and that regions do not overlap: those of one `GuestRam` never do.
    unsafe { vm.set_user_memory_region(memory) }.map_err(io::Error::from)
}

/// Which internal error KVM ran into; only after an exit of that kind.
pub(crate) fn internal_error(vcpu: &mut VcpuFd) -> u32 {
    let run = vcpu.get_kvm_run();
    // SAFETY: demands that the union's bytes are a valid `internal`: it is plain integers, for which any bytes
    // are valid.
    unsafe { run.__bindgen_anon_1.internal.suberror }
}

/// Keeps guest RAM out of core dumps and away from page merging, which is a side channel between guests.
pub(crate) fn advise_ram(ram: &GuestRam) -> io::Result<()> {
    for region in ram.iter() {
        let host = ram.get_host_address(region.start_addr()).map_err(io::Error::other)?;
        let len = usize::try_from(region.len()).map_err(io::Error::other)?;
        for advice in [libc::MADV_DONTDUMP, libc::MADV_UNMERGEABLE, libc::MADV_NOHUGEPAGE] {
            // SAFETY: demands a mapped range: `host` and `len` are one whole region of `ram`. No advice
            // changes what the memory holds.
            let result = unsafe { libc::madvise(host.cast(), len, advice) };
            let error = io::Error::last_os_error();
            // EINVAL: a host without KSM or huge pages has nothing to switch off.
            if result != 0 && error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Reads a file at an offset without its cursor, which other processes may share.
#[derive(Debug)]
pub(crate) struct FileAt<'a> {
    file: &'a File,
    position: u64,
    len: u64,
}

impl<'a> FileAt<'a> {
    /// A reader from `position` on, for a file of `len` bytes.
    pub(crate) const fn new(file: &'a File, position: u64, len: u64) -> Self {
        Self { file, position, len }
    }
}

impl Read for FileAt<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for FileAt<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl ReadVolatile for FileAt<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let offset = i64::try_from(self.position)
            .map_err(|_| VolatileMemoryError::IOError(io::ErrorKind::InvalidInput.into()))?;
        let guard = buf.ptr_guard_mut();
        // SAFETY: demands `buf.len()` writable bytes at the pointer: that is what a `VolatileSlice` is, and the
        // guard keeps it mapped. The guest may write there too; nothing here reads it back as a reference.
        let n = unsafe { libc::pread(self.file.as_raw_fd(), guard.as_ptr().cast(), buf.len(), offset) };
        let n = usize::try_from(n).map_err(|_| VolatileMemoryError::IOError(io::Error::last_os_error()))?;
        self.position += n as u64;
        Ok(n)
    }
}
