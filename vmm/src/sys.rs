//! Every raw system call of this crate, behind safe signatures.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::ptr;
use std::thread::JoinHandle;

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET};
use kvm_bindings::{KVMIO, kvm_device_attr, kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{VcpuFd, VmFd};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MmapRegion, ReadVolatile, VolatileMemoryError,
    VolatileSlice,
};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::memory::GuestRam;

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);

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

/// Lays a piece of a file over guest RAM, as a private copy: the guest's writes never reach the file.
pub(crate) fn overlay(
    ram: &GuestRam,
    at: GuestAddress,
    len: usize,
    file: &File,
    offset: u64,
) -> io::Result<()> {
    let page = |n: u64| n.is_multiple_of(4096);
    let host = ram.get_slice(at, len).map_err(io::Error::other)?.ptr_guard_mut().as_ptr();
    let from = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    if len == 0 || !page(at.0) || !page(len as u64) || !page(offset) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: MAP_FIXED demands that what is mapped there may be replaced: the range lies in one region of `ram` (`get_slice`
    // succeeded) and consists of whole pages, nobody holds a reference into it, and the range stays mapped as
    // long as `ram` has it, whatever it is made of. The descriptor is open for the length of the call.
    let mapped = unsafe { libc::mmap(host.cast(), len, protection, flags, file.as_raw_fd(), from) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives this process a mount namespace of its own, a copy of the one that it was in.
pub(crate) fn unshare_mounts() -> rustix::io::Result<()> {
    // SAFETY: demands that no thread relies on another one's table of descriptors: this leaves the table as it is.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
}

/// The host's time stamp counter.
pub(crate) fn host_tsc() -> u64 {
    // SAFETY: every x86-64 CPU has it, and Linux leaves it open to programs.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// What KVM adds to the host's time stamp counter for a guest. KVM has this since Linux 5.16.
pub(crate) fn tsc_offset(vcpu: &VcpuFd) -> io::Result<u64> {
    let mut offset = 0_u64;
    let attribute = tsc_attribute(&raw mut offset as u64);
    // SAFETY: demands an argument of the request's type, and room for the value at its address: KVM writes 8 bytes there, and
    // `offset` has 8 and lives until the call has returned.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_GET_DEVICE_ATTR(), &attribute) };
    if result == 0 { Ok(offset) } else { Err(io::Error::last_os_error()) }
}

/// Sets it.
pub(crate) fn set_tsc_offset(vcpu: &VcpuFd, offset: u64) -> io::Result<()> {
    let attribute = tsc_attribute(&raw const offset as u64);
    // SAFETY: demands an argument of the request's type, and a value at its address: KVM reads 8 bytes there, and `offset` has 8
    // and lives until the call has returned.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attribute) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn tsc_attribute(addr: u64) -> kvm_device_attr {
    kvm_device_attr { flags: 0, group: KVM_VCPU_TSC_CTRL, attr: KVM_VCPU_TSC_OFFSET.into(), addr }
}

/// Sets the extended state.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: demands that no feature is enabled whose state is larger than `kvm_xsave`: those have to be asked for
    // (ARCH_REQ_XCOMP_GUEST_PERM), which this process never does, and the guest's CPUID has none of them.
    unsafe { vcpu.set_xsave(xsave) }
}

/// Makes the signal that [`interrupt`] sends harmless to its receiver.
pub(crate) fn catch_interrupts() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), nothing).map_err(io::Error::from)
}

/// Gets a thread out of a system call that waits.
pub(crate) fn interrupt<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    thread.kill(SIGRTMIN()).map_err(io::Error::from)
}

/// What the host is asked to do with guest RAM. None of it changes what the RAM holds.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(crate) enum Advice {
    /// Keep it out of core dumps.
    NoDump = libc::MADV_DONTDUMP,
    /// Never merge its pages with others of the same content.
    NoMerging = libc::MADV_UNMERGEABLE,
    /// Small pages.
    SmallPages = libc::MADV_NOHUGEPAGE,
}

/// Gives the host this advice on all of guest RAM.
pub(crate) fn advise(ram: &GuestRam, advice: Advice) -> io::Result<()> {
    for region in ram.iter() {
        let host = ram.get_host_address(region.start_addr()).map_err(io::Error::other)?;
        let len = usize::try_from(region.len()).map_err(io::Error::other)?;
        // SAFETY: demands a mapped range: `host` and `len` are one whole region of `ram`. No such advice
        // changes what the memory holds.
        let result = unsafe { libc::madvise(host.cast(), len, advice as libc::c_int) };
        let error = io::Error::last_os_error();
        // EINVAL: a host without KSM or huge pages has nothing to switch off.
        if result != 0 && error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
    }
    Ok(())
}

/// Gives whole pages of guest RAM back to the host. They hold zeros after that, and what the file holds where one is laid over
/// guest RAM.
pub(crate) fn discard(ram: &GuestRam, at: GuestAddress, len: usize) -> io::Result<()> {
    let page = |n: u64| n.is_multiple_of(4096);
    let host = ram.get_slice(at, len).map_err(io::Error::other)?.ptr_guard_mut().as_ptr();
    if len == 0 || !page(at.0) || !page(len as u64) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: demands a mapped range that holds nothing but what may be lost: the range lies in one region of `ram` (`get_slice`
    // succeeded) and consists of whole pages, as each region begins with a whole page. Nobody holds a reference into guest RAM: it
    // is read and written through volatile copies, to which this is one more write that the guest asked for.
    let result = unsafe { libc::madvise(host.cast(), len, libc::MADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes of a large page.
pub(crate) const LARGE_PAGE: usize = 2 << 20;

/// Maps fresh memory that begins at a multiple of [`LARGE_PAGE`]; it stays mapped until this process ends.
pub(crate) fn map_aligned(len: usize) -> io::Result<MmapRegion> {
    let room = len.checked_add(LARGE_PAGE).ok_or(io::ErrorKind::InvalidInput)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: demands nothing: the kernel chooses the place.
    let start = unsafe { libc::mmap(ptr::null_mut(), room, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let before = start.align_offset(LARGE_PAGE);
    let aligned = start.wrapping_byte_add(before);
    // SAFETY: demands that nothing uses what is unmapped: both ranges are what this mapping has more than `len`, and nobody knows
    // of it yet.
    let cut = unsafe {
        [(start, before), (aligned.wrapping_byte_add(len), LARGE_PAGE - before)]
            .map(|(from, bytes)| bytes == 0 || libc::munmap(from, bytes) == 0)
    };
    if cut.contains(&false) {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: demands a range that is mapped like that for as long as the region lives: it is never unmapped.
    unsafe { MmapRegion::build_raw(aligned.cast(), len, protection, flags) }.map_err(io::Error::other)
}

/// Asks for large pages here; a host that has none gives small ones.
pub(crate) fn prefer_large<B: BitmapSlice>(memory: &VolatileSlice<'_, B>) {
    let place = memory.ptr_guard_mut();
    // SAFETY: demands a mapped range: a `VolatileSlice` is one. The advice does not change what it holds.
    unsafe { libc::madvise(place.as_ptr().cast(), memory.len(), libc::MADV_HUGEPAGE) };
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

    /// What it reads from, and which bytes of that are still to come.
    pub(crate) const fn rest(&self) -> (&'a File, Range<u64>) {
        (self.file, self.position..self.len)
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

#[cfg(test)]
pub(crate) mod tests {
    use rustix::io::{Errno, Result};
    use rustix::process::Pid;

    /// Asks for a thread of a process to be sent a signal; 0: asks only whether it could be.
    pub(crate) fn tgkill(process: Pid, thread: Pid, signal: usize) -> Result<()> {
        let (process, thread) = (process.as_raw_nonzero().get(), thread.as_raw_nonzero().get());
        // SAFETY: takes integers only.
        let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
        if result == 0 {
            Ok(())
        } else {
            Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
        }
    }
}
