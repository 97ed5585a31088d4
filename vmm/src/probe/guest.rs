//! The guest of the probe: long mode, sixteen pages, one loop, at ring 0 on one vCPU and at ring 3 on another.
//!
//! The guest reads its round count from memory, counts it down and writes one byte to a port, again and again. So
//! nothing but that count changes between two runs: no register is set while a port write is half done.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use rustix::time::{ClockId, clock_gettime};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

use super::stats::Counters;
use super::sys::{VmWithMemory, stats_file};

/// Sixteen pages, all mapped one to one.
const MEMORY_LEN: usize = 0x1_0000;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT: u64 = 0x4000;
const GDT: u64 = 0x5000;
const TSS: u64 = 0x6000;
const COUNT: u64 = 0x7000;
const CODE: u64 = 0x8000;
const REAL_MODE_TSS: usize = 0xfffb_d000;
const PORT: u16 = 0xf0;

/// `mov rcx, [COUNT]; 1: dec rcx; jnz 1b; out PORT, al; jmp` to the start.
const PROGRAM: [u8; 17] = [
    0x48, 0x8b, 0x0c, 0x25, 0x00, 0x70, 0x00, 0x00, // mov rcx, [0x7000]
    0x48, 0xff, 0xc9, // dec rcx
    0x75, 0xfb, // jnz -5
    0xe6, 0xf0, // out 0xf0, al
    0xeb, 0xef, // jmp -17
];

/// A step of the probe that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum GuestError {
    /// Create the VM.
    #[error("create a VM: {0}")]
    Vm(kvm_ioctls::Error),
    /// Map or fill guest memory.
    #[error("give the probe's guest its memory: {0}")]
    Memory(String),
    /// Create or set up a vCPU.
    #[error("{step} at ring {ring}: {errno}")]
    Vcpu {
        /// Which step.
        step: &'static str,
        /// Privilege level.
        ring: u8,
        /// Why.
        errno: kvm_ioctls::Error,
    },
    /// `KVM_RUN` itself failed.
    #[error("run the guest at ring {ring}: {errno}")]
    Run {
        /// Privilege level.
        ring: u8,
        /// Why.
        errno: kvm_ioctls::Error,
    },
    /// The guest stopped in another way than by its port write.
    #[error("the guest's loop at ring {ring} ended with {exit}")]
    Exit {
        /// Privilege level.
        ring: u8,
        /// How.
        exit: String,
    },
    /// Told to stop.
    #[error("the guest at ring {ring} did not answer in time")]
    Timeout {
        /// Privilege level.
        ring: u8,
    },
}

/// Processor time of this thread: what others run in between is not in it.
pub(super) fn thread_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
}

/// The machine without vCPUs.
#[derive(Debug)]
pub(super) struct Machine(VmWithMemory);

impl Machine {
    /// Creates the VM with page tables and the loop in its memory.
    pub(super) fn new(kvm: &Kvm) -> Result<Self, GuestError> {
        Self::with(kvm, &PROGRAM)
    }

    /// The same with another program that reads what [`Vcpu::round`] gives it from [`COUNT`] and writes to [`PORT`].
    pub(super) fn with(kvm: &Kvm, program: &[u8]) -> Result<Self, GuestError> {
        let vm = kvm.create_vm().map_err(GuestError::Vm)?;
        // Old Intel processors need three pages for real mode before the first run, though this guest has none; other
        // backends refuse or ignore it, which is as well.
        let _ = vm.set_tss_address(REAL_MODE_TSS);
        let memory = MmapRegion::new(MEMORY_LEN).map_err(|e| GuestError::Memory(e.to_string()))?;
        // Present, writable, user. Ring 0 runs the same pages: SMEP is off.
        let entry = |address: u64| address | 0b111;
        let tables = [(PML4, entry(PDPT)), (PDPT, entry(PD)), (PD, entry(PT))];
        let leaves = (0..MEMORY_LEN as u64 / 4096).map(|page| (PT + page * 8, entry(page * 4096)));
        let slice = memory.as_volatile_slice();
        let write = |at: u64, bytes: &[u8]| {
            let at = usize::try_from(at).map_err(|e| GuestError::Memory(e.to_string()))?;
            slice.write_slice(bytes, at).map_err(|e| GuestError::Memory(e.to_string()))
        };
        for (at, value) in tables.into_iter().chain(leaves) {
            write(at, &value.to_le_bytes())?;
        }
        write(CODE, program)?;
        VmWithMemory::new(vm, memory).map(Self).map_err(|e| GuestError::Memory(e.to_string()))
    }

    /// The VM.
    #[cfg(test)]
    pub(super) fn vm(&self) -> &kvm_ioctls::VmFd {
        self.0.vm()
    }

    /// The vCPU of a ring (0 or 3), about to run the program.
    pub(super) fn vcpu(&self, kvm: &Kvm, ring: u8) -> Result<Vcpu<'_>, GuestError> {
        let failed = |step| move |errno| GuestError::Vcpu { step, ring, errno };
        let fd = self.0.vm().create_vcpu(u64::from(ring)).map_err(failed("create a vCPU"))?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("read the CPUID table"))?;
        // Before the registers: long mode is refused as long as CPUID does not offer it.
        fd.set_cpuid2(&cpuid).map_err(failed("set CPUID"))?;
        let mut sregs = fd.get_sregs().map_err(failed("read system registers"))?;
        long_mode(&mut sregs, ring);
        fd.set_sregs(&sregs).map_err(failed("enter long mode"))?;
        // Bit 1 is always set; I/O privilege level 3, so that ring 3 may write the port.
        let regs = kvm_regs { rip: CODE, rflags: 0x3002, ..kvm_regs::default() };
        fd.set_regs(&regs).map_err(failed("set registers"))?;
        let stats = stats_file(&fd).ok();
        Ok(Vcpu { fd, ring, stats, machine: self })
    }
}

/// Flat segments with their descriptors' cached parts, paging on.
fn long_mode(sregs: &mut kvm_sregs, ring: u8) {
    let selector = |index: u16| index << 3 | u16::from(ring);
    let data = kvm_segment {
        limit: u32::MAX,
        selector: selector(2),
        type_: 3,
        present: 1,
        dpl: ring,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cs = kvm_segment { selector: selector(1), type_: 11, db: 0, l: 1, ..data };
    // A busy 64-bit task segment: VT-x refuses to enter without one.
    sregs.tr = kvm_segment {
        base: TSS,
        limit: 0x67,
        selector: 3 << 3,
        type_: 11,
        present: 1,
        ..kvm_segment::default()
    };
    sregs.ldt = kvm_segment { unusable: 1, ..kvm_segment::default() };
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, 0x2f);
    // No interrupt table: any exception is a triple fault, which ends the run.
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
    sregs.cr3 = PML4;
    // PAE, OSFXSR, OSXMMEXCPT.
    sregs.cr4 = 0x620;
    // PG, WP, NE, ET, MP, PE.
    sregs.cr0 = 0x8001_0033;
    // LMA, LME.
    sregs.efer = 0x500;
}

/// One vCPU of the probe.
#[derive(Debug)]
pub(super) struct Vcpu<'a> {
    fd: VcpuFd,
    ring: u8,
    stats: Option<File>,
    machine: &'a Machine,
}

impl Vcpu<'_> {
    /// Lets the guest do `n` rounds and its port write.
    pub(super) fn round(&mut self, n: u64, stop: &AtomicBool) -> Result<(), GuestError> {
        let ring = self.ring;
        let at = usize::try_from(COUNT).map_err(|e| GuestError::Memory(e.to_string()))?;
        let memory = self.machine.0.memory().as_volatile_slice();
        memory.write_obj(n.to_le(), at).map_err(|e| GuestError::Memory(e.to_string()))?;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(GuestError::Timeout { ring });
            }
            match self.fd.run() {
                Ok(VcpuExit::IoOut(PORT, _)) => return Ok(()),
                Ok(exit) => return Err(GuestError::Exit { ring, exit: format!("{exit:?}") }),
                Err(e)
                    if [rustix::io::Errno::INTR, rustix::io::Errno::AGAIN]
                        .iter()
                        .any(|retry| retry.raw_os_error() == e.errno()) => {}
                Err(errno) => return Err(GuestError::Run { ring, errno }),
            }
        }
    }

    /// Processor time of one [`Vcpu::round`].
    pub(super) fn timed(&mut self, n: u64, stop: &AtomicBool) -> Result<Duration, GuestError> {
        let begin = thread_time();
        self.round(n, stop)?;
        Ok(thread_time().saturating_sub(begin))
    }

    /// Its statistics, where this kernel has them.
    pub(super) fn counters(&self) -> Option<Counters> {
        self.stats.as_ref().and_then(Counters::read)
    }
}
