//! The boot sequence.

use std::io;
use std::sync::Arc;
use std::thread;

use isolab_images::kernels::Discovery;
use isolab_wire::mark::{Clock, Code, Mark};
use isolab_wire::trace::{Subphase, Tracer};
use kvm_bindings::{
    KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM_CAP_PMU_CAPABILITY, KVM_MAX_CPUID_ENTRIES, KVM_PMU_CAP_DISABLE,
    kvm_enable_cap,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::arch::{self, ArchError, acpi, boot_params, cpuid, mptable, regs};
use crate::boot::initramfs::{self, InitramfsError};
use crate::boot::kernel::{self, KernelError};
use crate::cmdline;
use crate::config::{MAX_CPUS, VmConfig};
use crate::devices::VirtioDevice;
use crate::devices::block::Block;
use crate::devices::bus::Bus;
use crate::devices::console::{Console, Ends};
use crate::devices::marks::{Marks, now_ns};
use crate::devices::mmio::VirtioMmio;
use crate::devices::registers::offset;
use crate::devices::rng::Rng;
use crate::devices::serial::DebugPort;
use crate::layout;
use crate::memory::{self, GuestRam, MemoryError};
use crate::probe::hypervisor_signature;
use crate::service::Devices;
use crate::statistics::Statistics;
use crate::vcpu::{self, End, Ending};

/// How a guest ended without saying so.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// A reset or a triple fault: what a panic or a reboot comes to.
    #[error("guest kernel reset the machine (a panic or a reboot)")]
    Reset,
    /// ACPI power off.
    #[error("guest kernel switched the machine off")]
    PowerOff,
    /// The processor could not enter the guest.
    #[error("cpu {cpu} failed to enter the guest, hardware reason {reason:#x}")]
    EntryFailed {
        /// Which processor.
        cpu: u8,
        /// The hardware's word.
        reason: u64,
    },
    /// KVM could not go on.
    #[error("kvm internal error {suberror} on cpu {cpu}")]
    Internal {
        /// Which processor.
        cpu: u8,
        /// `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
    },
    /// An exit that this machine never asks for.
    #[error("unexpected exit of cpu {cpu}: {exit}")]
    Unexpected {
        /// Which processor.
        cpu: u8,
        /// The exit.
        exit: String,
    },
    /// `KVM_RUN` itself failed.
    #[error("run cpu {cpu}")]
    Run {
        /// Which processor.
        cpu: u8,
        /// Why.
        source: kvm_ioctls::Error,
    },
}

/// Why there is no result from the guest.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A number out of range.
    #[error("a guest has 1 to {MAX_CPUS} cpus, not {cpus}")]
    Cpus {
        /// What was asked for.
        cpus: u8,
    },
    /// The kernel file.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The initramfs, or the memory for both.
    #[error(transparent)]
    Initramfs(#[from] InitramfsError),
    /// Guest RAM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Tables and processor state.
    #[error(transparent)]
    Arch(#[from] ArchError),
    /// `/dev/kvm` can't be opened.
    #[error("open /dev/kvm")]
    OpenKvm(#[source] kvm_ioctls::Error),
    /// KVM refused a step.
    #[error("{step}")]
    Kvm {
        /// Which step.
        step: &'static str,
        /// Why.
        source: kvm_ioctls::Error,
    },
    /// The host refused a step.
    #[error("{step}")]
    Host {
        /// Which step.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The guest ended without its last mark.
    #[error("guest stopped without a result{}", quote(.last_words))]
    Stopped {
        /// How.
        #[source]
        stop: Stop,
        /// What the guest kernel printed last.
        last_words: String,
    },
}

fn quote(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" (\"{words}\")") }
}

fn kvm(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VmError {
    move |source| VmError::Kvm { step, source }
}

fn host<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> VmError {
    move |source| VmError::Host { step, source: source.into() }
}

/// Runs a guest from nothing to its last mark. Call it in a process of its own and end that process afterwards:
/// threads of other processors may still be in the guest.
///
/// # Errors
/// [`VmError`] where the guest can't be started or ends without its last mark; the mark is not sent then.
pub fn run(config: VmConfig) -> Result<(), VmError> {
    // What can be refused is refused before anything is made.
    if !(1..=MAX_CPUS).contains(&config.cpus) {
        return Err(VmError::Cpus { cpus: config.cpus });
    }
    let memory_bytes = config.memory_bytes & !0xfff;
    let tracer = config.tracer;
    let info = kernel::check_kernel(&config.kernel)?;
    let placed = initramfs::place(&info, memory_bytes, config.initramfs.len()?)?;

    // The machine.
    let kvm_fd = Kvm::new().map_err(VmError::OpenKvm)?;
    tracer.end(Subphase::KvmOpen);
    let vm = kvm_fd.create_vm().map_err(kvm("create virtual machine"))?;
    tracer.end(Subphase::CreateVm);
    let ram = memory::map(memory_bytes)?;
    memory::register(&vm, &ram)?;
    if let Some(trace) = tracer.trace() {
        trace.set_ram(memory::host_ranges(&ram));
    }
    tracer.end(Subphase::Ram);
    create_interrupt_controllers(&vm)?;
    tracer.end(Subphase::Irqchip);

    // What is in its memory.
    let header = kernel::load(&ram, &config.kernel, &info)?;
    tracer.end(Subphase::KernelLoad);
    initramfs::load(&ram, &config.initramfs, placed)?;
    tracer.end(Subphase::InitramfsLoad);
    regs::write_tables(&ram)?;
    let acpi_root = describe(&ram, &config)?;
    let told = boot_params::Told {
        header,
        cmdline: &cmdline::line(config.discovery, &windows(), config.console_log),
        initramfs: placed,
        acpi_root,
        memory_bytes,
    };
    boot_params::write(&ram, &told)?;
    tracer.end(Subphase::BootParams);

    // Its devices.
    let ends =
        Ends { control: config.control, stdin: config.stdin, stdout: config.stdout, stderr: config.stderr };
    let block = Block::open(config.image).map_err(host("measure image"))?;
    let devices = Devices {
        console: attach(&vm, 0, Console::new(ends), &ram)?,
        block: attach(&vm, 1, block, &ram)?,
        rng: attach(&vm, 2, Rng, &ram)?,
        ram,
    };
    tracer.end(Subphase::Devices);

    // Its processors: prepared all, then started, the first one last.
    let end = Arc::new(End::new(EventFd::new(EFD_NONBLOCK).map_err(host("create event"))?));
    let vcpus = create_processors(&kvm_fd, &vm, config.cpus, info.entry)?;
    let statistics = Statistics::open(&vcpus, tracer);
    tracer.end(Subphase::Vcpus);
    let bus = Arc::new(Bus {
        devices: devices.on_bus(),
        marks: Marks::new(config.marks, config.hold, statistics),
        debug: DebugPort::new(config.console_log),
    });
    for (cpu, vcpu) in (0..config.cpus).zip(vcpus).rev() {
        start(vcpu, cpu, Arc::clone(&bus), Arc::clone(&end), tracer)?;
    }

    // Its life and its end.
    let ending = devices.serve(&end).map_err(host("wait for devices"))?;
    devices.drain().map_err(host("write out the guest's output"))?;
    match ending {
        Ending::Mark(mark) => bus.marks.send(mark).map_err(host("send the last mark")),
        Ending::Stopped(stop) => Err(VmError::Stopped { stop, last_words: bus.debug.last_words() }),
    }
}

fn create_interrupt_controllers(vm: &VmFd) -> Result<(), VmError> {
    let tss = usize::try_from(layout::TSS.start).unwrap_or_default();
    vm.set_identity_map_address(layout::IDENTITY_MAP.start).map_err(kvm("place identity map"))?;
    vm.set_tss_address(tss).map_err(kvm("place task state"))?;
    vm.create_irq_chip().map_err(kvm("create interrupt controllers"))?;
    // An instruction that KVM can't emulate ends the machine instead of an endless loop of faults.
    switch(vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1)?;
    // The first AMD counters are there without a CPUID bit.
    switch(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE.into())?;
    Ok(())
}

/// Switches an optional capability of KVM, where this host's KVM has it.
fn switch(vm: &VmFd, cap: u32, argument: u64) -> Result<(), VmError> {
    if vm.check_extension_raw(u64::from(cap)) > 0 {
        let cap = kvm_enable_cap { cap, args: [argument, 0, 0, 0], ..Default::default() };
        vm.enable_cap(&cap).map_err(kvm("switch an optional capability"))?;
    }
    Ok(())
}

/// Writes the tables that tell the kernel of its machine; returns the root of the ACPI tables where that is how.
fn describe(ram: &GuestRam, config: &VmConfig) -> Result<Option<GuestAddress>, ArchError> {
    match config.discovery {
        Discovery::Acpi => acpi::write(ram, config.cpus, &windows()).map(Some),
        Discovery::CommandLine => mptable::write(ram, config.cpus, &windows()).map(|()| None),
    }
}

/// Registers and interrupts of the three virtio devices.
fn windows() -> [acpi::Window; 3] {
    [0, 1, 2].map(|index: u32| acpi::Window {
        address: u32::try_from(register_address(u64::from(index))).unwrap_or_default(),
        gsi: layout::VIRTIO_GSI + index,
    })
}

const fn register_address(index: u64) -> u64 {
    layout::VIRTIO.start + index * layout::VIRTIO_STRIDE
}

/// Puts a device on the bus: KVM itself rings its doorbell and raises its interrupt, without an exit.
fn attach<D: VirtioDevice>(
    vm: &VmFd,
    index: u32,
    device: D,
    ram: &GuestRam,
) -> Result<Arc<VirtioMmio<D>>, VmError> {
    let device = VirtioMmio::new(device, ram.clone()).map_err(host("create device events"))?;
    let doorbell = IoEventAddress::Mmio(register_address(u64::from(index)) + offset::QUEUE_NOTIFY);
    vm.register_ioevent(&device.doorbell, &doorbell, NoDatamatch)
        .map_err(kvm("connect a device's doorbell"))?;
    vm.register_irqfd(&device.irq, layout::VIRTIO_GSI + index)
        .map_err(kvm("connect a device's interrupt"))?;
    Ok(Arc::new(device))
}

fn create_processors(kvm_fd: &Kvm, vm: &VmFd, cpus: u8, entry: u64) -> Result<Vec<VcpuFd>, VmError> {
    let supported =
        kvm_fd.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(kvm("read supported cpu features"))?;
    let supported = cpuid::supported(supported, hypervisor_signature().as_deref());
    let deadline = kvm_fd.check_extension(Cap::TscDeadlineTimer);
    let mut vcpus = Vec::new();
    for cpu in 0..cpus {
        let vcpu = vm.create_vcpu(u64::from(cpu)).map_err(kvm("create cpu"))?;
        let features = cpuid::table(&supported, cpu, cpus, deadline)?;
        vcpu.set_cpuid2(&features).map_err(kvm("set cpu features"))?;
        arch::regs::set_up(&vcpu, cpu, entry)?;
        vcpus.push(vcpu);
    }
    Ok(vcpus)
}

fn start(vcpu: VcpuFd, cpu: u8, bus: Arc<Bus>, end: Arc<End>, tracer: Tracer) -> Result<(), VmError> {
    /// A processor's thread needs little: its exits are served without recursion.
    const STACK: usize = 64 << 10;
    let body = move || {
        if cpu == 0 {
            tracer.delay(Subphase::VcpuStart);
            let begin = Mark { code: Code::RunBegin, clock: Clock::Monotonic, value: 0, stamp: now_ns() };
            // A launcher that is gone takes this process with it.
            let _gone = bus.marks.send(begin);
            tracer.delay(Subphase::GuestKernel);
        }
        vcpu::run(vcpu, cpu, &bus, &end);
    };
    thread::Builder::new()
        .name(format!("vcpu{cpu}"))
        .stack_size(STACK)
        .spawn(body)
        .map_err(host("start a cpu's thread"))?;
    Ok(())
}
