//! The trace of a measured start: one page that launcher, child and VMM share, and stamp with plain stores.
//!
//! Whoever ends a [`Subphase`] stores the time; nothing is sent and nobody is woken. Who is not measured has no page, and
//! then [`Tracer::end`] is one branch.

use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::fault::{Fault, StageFailed};

macro_rules! subphases {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $key:literal;)*) => {
        /// A piece of a start. Those that a mark ends are not stamped; they are here to be named.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Subphase { $($(#[doc = $doc])+ $name = $number,)* }

        impl Subphase {
            /// Every one, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its key in records.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }

            /// What happens in it, for a reader.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

subphases! {
    /// start of the isolab process itself
    ExecSelf = 0, "exec_self";
    /// command line read, image found, opened and verified
    ImageOpen = 1, "image_open";
    /// job resolved against the image, level checked, standard streams connected
    Job = 2, "job";
    /// guest kernel found, initramfs put together
    KernelFiles = 3, "kernel_files";
    /// cgroup made, limits set and read back
    Cgroup = 4, "cgroup";
    /// image mounted, attached to no path
    ImageMount = 5, "image_mount";
    /// pipes, descriptors and argument lists made
    Channels = 6, "channels";
    /// child process made
    Clone = 7, "clone";
    /// ids of the user namespace written
    IdMap = 8, "idmap";
    /// program of process 1 put into a sealed memory file
    InitProgram = 9, "init_program";
    /// job encoded and sent
    JobBlock = 10, "job_block";
    /// what the child's namespaces and its release took beyond the launcher's work beside them
    Namespaces = 11, "namespaces";
    /// child in its cgroup and cgroup namespace
    CgroupJoin = 12, "cgroup_join";
    /// child's ids, session, signals and descriptors
    Identity = 13, "identity";
    /// execve of process 1
    ExecInit = 14, "exec_init";
    /// process 1 reads its job
    InitJob = 15, "init_job";
    /// image and writable overlay mounted
    RootMounts = 16, "root_mounts";
    /// /proc, /sys and /dev mounted
    KernelMounts = 17, "dev_proc";
    /// root changed, the old one put aside
    Pivot = 18, "pivot";
    /// kernel paths masked and write-protected
    Masks = 19, "masks";
    /// host name, working directory, standard streams
    Workspace = 20, "workspace";
    /// workload's process, limits, user, capabilities, system call filter
    Privileges = 21, "caps_seccomp";
    /// guest kernel checked, guest RAM mapped
    Ram = 22, "ram";
    /// what KVM took to make the virtual machine beyond the VMM's work beside it
    CreateVm = 23, "create_vm";
    /// guest RAM given to the machine
    RamRegister = 24, "ram_register";
    /// interrupt controllers made
    Irqchip = 25, "irqchip";
    /// guest kernel copied into guest RAM
    KernelLoad = 26, "kernel_load";
    /// initramfs copied into guest RAM
    InitramfsLoad = 27, "initramfs_load";
    /// page tables, ACPI tables and boot parameters written
    BootParams = 28, "boot_params";
    /// virtio devices made and connected
    Devices = 29, "devices";
    /// processors made, CPUID and registers set
    Vcpus = 30, "vcpus";
    /// processors' threads started, up to the first entry into the guest
    VcpuStart = 31, "vcpu_start";
    /// guest kernel boots, up to process 1
    GuestKernel = 32, "guest_kernel";
    /// process 1 of the guest: drivers, channels, mounts, privileges
    GuestInit = 33, "guest_init";
    /// execve of the workload, up to its first instruction
    Exec = 34, "exec";
    /// workload, until it is ready
    WorkloadReady = 35, "workload_ready";
    /// the ready workload waits while isolab reads its account: not part of any result
    Reading = 36, "reading";
    /// workload, until its end is known
    WorkloadRun = 37, "workload_run";
    /// processes reaped, memory and cgroup freed
    Teardown = 38, "teardown";
    /// template found, its files opened and checked
    TemplateOpen = 39, "template_open";
    /// state of a template read and checked, guest RAM mapped, while the virtual machine is made
    TemplateRead = 40, "template_read";
    /// processors made, their state and that of the interrupt controllers and clock set
    RestoreState = 41, "restore_state";
    /// guest goes on where its template waits: first faults, job read, random numbers and clock set
    Resume = 42, "resume";
}

impl Subphase {
    /// What process 1 of a container or a guest does.
    pub const OF_INIT: [Self; 9] = [
        Self::GuestInit,
        Self::InitJob,
        Self::RootMounts,
        Self::KernelMounts,
        Self::Pivot,
        Self::Masks,
        Self::Workspace,
        Self::Privileges,
        Self::Exec,
    ];

    /// The one of a number.
    #[must_use]
    pub fn from_number(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }

    /// The one of a key.
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.key() == key)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $stat:literal, $key:literal;)*) => {
        /// What KVM and the monitor counted, of a machine and all its processors.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Counter { $($(#[doc = $doc])+ $name = $number,)* }

        impl Counter {
            /// Every one, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name among KVM's binary statistics; none: the monitor counts it.
            #[must_use]
            pub const fn statistic(self) -> &'static str {
                match self { $(Self::$name => $stat,)* }
            }

            /// Its key in records.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }
        }
    };
}

counters! {
    /// Exits from the guest.
    Exits = 0, "exits", "kvm_exits";
    /// Instructions that KVM interpreted.
    InsnEmulation = 1, "insn_emulation", "kvm_insn_emulation";
    /// Exits to the VMM for a port.
    IoExits = 2, "io_exits", "io_exits";
    /// Exits to the VMM for device memory.
    MmioExits = 3, "mmio_exits", "mmio_exits";
    /// Exits for a halted processor.
    HaltExits = 4, "halt_exits", "halt_exits";
    /// Exits for an interrupt of the host.
    IrqExits = 5, "irq_exits", "irq_exits";
    /// Faults of the second-level tables that were mended.
    PageFaults = 6, "pf_fixed", "kvm_pf_fixed";
    /// Reads and writes of ports and addresses that belong to no device.
    Unowned = 7, "", "unowned_accesses";
}

/// Room for ends of subphases.
const SLOTS: usize = 64;
/// When each subphase ended.
pub type Ends = [u64; SLOTS];
/// How many ranges of guest RAM can be told.
pub const RANGES: usize = 4;
/// A counter that this KVM does not have.
const UNKNOWN: u64 = u64::MAX;

/// The page; all zero is one in which nothing was stamped.
#[derive(Debug)]
#[repr(C)]
pub struct Trace {
    ends: [AtomicU64; SLOTS],
    faults: [AtomicU16; SLOTS],
    ram: [[AtomicU64; 2]; RANGES],
    counters: [[AtomicU64; 16]; 2],
}

/// When counters were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum When {
    /// When the workload said that it was ready.
    Ready = 0,
    /// At its last mark.
    End = 1,
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl Trace {
    /// One in which nothing was stamped.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ends: [const { AtomicU64::new(0) }; SLOTS],
            faults: [const { AtomicU16::new(0) }; SLOTS],
            ram: [const { [const { AtomicU64::new(0) }; 2] }; RANGES],
            counters: [const { [const { AtomicU64::new(0) }; 16] }; 2],
        }
    }

    /// When a subphase ended, in nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn end_of(&self, subphase: Subphase) -> Option<u64> {
        let at = self.ends.get(usize::from(subphase as u8))?.load(Ordering::Acquire);
        (at != 0).then_some(at)
    }

    /// When each subphase ended, by number; 0 for one that did not.
    #[must_use]
    pub fn ends(&self) -> Ends {
        let mut ends = [0; SLOTS];
        for (end, slot) in ends.iter_mut().zip(&self.ends) {
            *end = slot.load(Ordering::Acquire);
        }
        ends
    }

    /// Takes over what somebody else stamped.
    pub fn add(&self, ends: &Ends) {
        for (end, slot) in ends.iter().zip(&self.ends).filter(|(end, _)| **end != 0) {
            slot.store(*end, Ordering::Release);
        }
    }

    /// Makes a fault where a subphase ends: a test.
    pub fn set_fault(&self, subphase: Subphase, fault: Fault) {
        if let Some(slot) = self.faults.get(usize::from(subphase as u8)) {
            slot.store(fault.encode(), Ordering::Release);
        }
    }

    /// The fault that is to be made where a subphase ends.
    #[must_use]
    pub fn fault_of(&self, subphase: Subphase) -> Option<Fault> {
        Fault::decode(self.faults.get(usize::from(subphase as u8))?.load(Ordering::Acquire))
    }

    /// Publishes where guest RAM lies in the address space of the VMM: first address and length. Ranges beyond
    /// [`RANGES`] are left out.
    pub fn set_ram(&self, ranges: impl Iterator<Item = (u64, u64)>) {
        for ([start, len], (s, l)) in self.ram.iter().zip(ranges) {
            start.store(s, Ordering::Release);
            len.store(l, Ordering::Release);
        }
    }

    /// Where guest RAM lies in the address space of the VMM.
    pub fn ram(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let read =
            |[start, len]: &[AtomicU64; 2]| (start.load(Ordering::Acquire), len.load(Ordering::Acquire));
        self.ram.iter().map(read).filter(|(_, len)| *len > 0)
    }

    fn slot(&self, when: When, counter: Counter) -> Option<&AtomicU64> {
        self.counters.get(usize::from(when as u8))?.get(usize::from(counter as u8))
    }

    /// Stores a counter.
    pub fn set_counter(&self, when: When, counter: Counter, value: Option<u64>) {
        if let Some(slot) = self.slot(when, counter) {
            slot.store(value.map_or(UNKNOWN, |v| v.saturating_add(1).min(UNKNOWN - 1)), Ordering::Release);
        }
    }

    /// A counter, where it was read and KVM has it.
    #[must_use]
    pub fn counter(&self, when: When, counter: Counter) -> Option<u64> {
        let value = self.slot(when, counter)?.load(Ordering::Acquire);
        if value == UNKNOWN { None } else { value.checked_sub(1) }
    }
}

/// The way to the page, or to nothing where nobody measures.
#[derive(Clone, Copy, Debug)]
pub struct Tracer {
    trace: Option<&'static Trace>,
    now_ns: fn() -> u64,
    make: fn(Fault),
}

impl Default for Tracer {
    fn default() -> Self {
        Self::OFF
    }
}

impl Tracer {
    /// Nobody measures.
    pub const OFF: Self = Self { trace: None, now_ns: || 0, make: |_| {} };

    /// Into this page, with this clock and this way to make faults.
    #[must_use]
    pub const fn new(trace: &'static Trace, now_ns: fn() -> u64, make: fn(Fault)) -> Self {
        Self { trace: Some(trace), now_ns, make }
    }

    /// The page.
    #[must_use]
    pub const fn trace(&self) -> Option<&'static Trace> {
        self.trace
    }

    /// A subphase ends here.
    ///
    /// # Errors
    /// A test makes it fail.
    pub fn end(&self, subphase: Subphase) -> Result<(), StageFailed> {
        self.fault(subphase)?;
        self.stamp(subphase);
        Ok(())
    }

    /// A subphase ends here, and its fault was made before.
    pub fn stamp(&self, subphase: Subphase) {
        if let Some(slot) = self.trace.and_then(|trace| trace.ends.get(usize::from(subphase as u8))) {
            slot.store((self.now_ns)(), Ordering::Release);
        }
    }

    /// Inside a subphase: the fault that a test asks for.
    ///
    /// # Errors
    /// It is to fail.
    pub fn fault(&self, subphase: Subphase) -> Result<(), StageFailed> {
        match self.trace.and_then(|trace| trace.fault_of(subphase)) {
            None => Ok(()),
            Some(Fault::Error) => Err(StageFailed(subphase)),
            Some(fault) => {
                (self.make)(fault);
                Ok(())
            }
        }
    }
}
