//! The three calls of the probe that the compiler can't check.

use std::arch::asm;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use kvm_bindings::{KVMIO, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::MmapRegion;
use vmm_sys_util::ioctl::ioctl;
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);

/// The loop of the guest, on the host: `n` times `dec; jnz`.
pub(super) fn host_loop(n: u64) {
    if n == 0 {
        return;
    }
    // SAFETY: the block changes one register, which is declared, and the flags, which are not declared as kept;
    // it reads and writes no memory and no stack; `n` is not 0, so it ends after `n` rounds.
    unsafe {
        asm!("2:", "dec {n}", "jnz 2b", n = inout(reg) n => _, options(nomem, nostack));
    }
}

/// The statistics file of a vCPU.
pub(crate) fn stats_file(vcpu: &VcpuFd) -> io::Result<File> {
    // SAFETY: `vcpu` is an open descriptor for the length of the call, and the request takes no argument, so the
    // kernel touches no memory of ours.
    let raw = unsafe { ioctl(vcpu, KVM_GET_STATS_FD()) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nobody else has its number.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // KVM makes it without close-on-exec.
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(File::from(fd))
}

/// A VM with its memory: the memory is unmapped only after the VM is gone.
#[derive(Debug)]
pub(super) struct VmWithMemory {
    // Declared first, so dropped first: the kernel forgets the range before it is unmapped.
    vm: VmFd,
    memory: MmapRegion,
}

impl VmWithMemory {
    /// Gives `vm` the memory as its physical memory from address 0.
    pub(super) fn new(vm: VmFd, memory: MmapRegion) -> Result<Self, kvm_ioctls::Error> {
        let slot = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory.size() as u64,
            userspace_addr: memory.as_ptr() as u64,
        };
        // SAFETY: the range is one whole mapping of `memory`, which is page-aligned; `Self` owns it and keeps it
        // until after `vm` is closed (field order; vCPUs, which keep the VM alive, borrow from `Self`); the
        // program reads and writes it only through `MmapRegion`'s volatile slices.
        unsafe { vm.set_user_memory_region(slot) }?;
        Ok(Self { vm, memory })
    }

    /// The VM.
    pub(super) const fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// Its memory.
    pub(super) const fn memory(&self) -> &MmapRegion {
        &self.memory
    }
}
