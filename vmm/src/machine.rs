//! The boot sequence.

use std::io;
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};

use isolab_images::kernels::Discovery;
use isolab_wire::fault::StageFailed;
use isolab_wire::mark::{Clock, Code, Exit, Mark};
use isolab_wire::trace::{Subphase, Tracer};
use kvm_bindings::{
    KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap,
};
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::arch::{self, ArchError, acpi, boot_params, cpuid, mptable, msr, regs};
use crate::boot::initramfs::{self, InitramfsError};
use crate::boot::kernel::{self, KernelError};
use crate::cmdline;
use crate::config::{Begin, MAX_CPUS, VmConfig};
use crate::devices::VirtioDevice;
use crate::devices::balloon::Balloon;
use crate::devices::block::Block;
use crate::devices::bus::Bus;
use crate::devices::console::{Console, Ends};
use crate::devices::marks::{Marks, now_ns};
use crate::devices::mmio::VirtioMmio;
use crate::devices::registers::offset;
use crate::devices::rng::Rng;
use crate::devices::serial::DebugPort;
use crate::filter::{self, FilterError, Kind};
use crate::jail::{self, JailError};
use crate::layout;
use crate::memory::{self, GuestRam, MemoryError};
use crate::service::Devices;
use crate::statistics::Statistics;
use crate::sys;
use crate::template::{self, MachineState, Processor, TemplateError};
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
    /// Its thread could not be confined, and never ran it.
    #[error("cpu {cpu}")]
    Unconfined {
        /// Which processor.
        cpu: u8,
        /// Why.
        #[source]
        why: FilterError,
    },
    /// A test's fault.
    #[error(transparent)]
    Stage(StageFailed),
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
    /// A template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// What it does not need any more can't be given up.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The system calls of its threads can't be confined.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A test's fault.
    #[error(transparent)]
    Stage(#[from] StageFailed),
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

/// Runs a guest to its last mark, from nothing or from where a template waits, or to where a template is made of it. Call it
/// in a process of its own and end that process afterwards: threads of other processors may still be in the guest.
///
/// # Errors
/// [`VmError`] where the guest can't be started or ends without its last mark; the mark is not sent then.
pub fn run(config: VmConfig) -> Result<(), VmError> {
    // What can be refused is refused before anything is made, or while it is.
    if !(1..=MAX_CPUS).contains(&config.cpus) {
        return Err(VmError::Cpus { cpus: config.cpus });
    }
    let memory_bytes = config.memory_bytes & !0xfff;
    let tracer = config.tracer;
    // Up to Linux 6.11 KVM waits for a grace period while it makes a machine, some milliseconds (the thread that looks after its large
    // pages joins our cgroup: `docs/lab.md`); its memory is filled meanwhile.
    let (filled, made) = thread::scope(|scope| {
        let filler = thread::Builder::new().spawn_scoped(scope, || fill(&config, memory_bytes))?;
        let made = create_machine();
        Ok((filler.join(), made))
    })
    .map_err(host::<io::Error>("start a thread"))?;
    let (content, ram) = filled.map_err(|_| host("fill guest memory")(io::Error::other("panic")))??;
    let (kvm_fd, vm) = made?;
    tracer.end(Subphase::CreateVm)?;
    memory::register(&vm, &ram)?;
    if let Some(trace) = tracer.trace() {
        trace.set_ram(memory::host_ranges(&ram));
    }
    tracer.end(Subphase::RamRegister)?;
    create_interrupt_controllers(&vm)?;
    tracer.end(Subphase::Irqchip)?;

    // Its devices.
    let ends =
        Ends { control: config.control, stdin: config.stdin, stdout: config.stdout, stderr: config.stderr };
    let block = Block::open(config.image).map_err(host("measure image"))?;
    let devices = Devices {
        console: attach(&vm, 0, Console::new(ends), &ram)?,
        block: attach(&vm, 1, block, &ram)?,
        rng: attach(&vm, 2, Rng, &ram)?,
        balloon: config.free_page_reporting.then(|| attach(&vm, 3, Balloon, &ram)).transpose()?,
        ram,
    };
    tracer.end(Subphase::Devices)?;

    // Its processors: prepared all, then started, the first one last.
    let end = Arc::new(End::new(EventFd::new(EFD_NONBLOCK).map_err(host("create event"))?));
    let processors = create_processors(&kvm_fd, &vm, config.cpus)?;
    let done = match &content {
        Content::Kernel { entry } => {
            for (cpu, processor) in (0..).zip(&processors) {
                arch::regs::set_up(&processor.vcpu, cpu, *entry)?;
            }
            Subphase::Vcpus
        }
        Content::Template(state) => {
            state.check_features(&kvm_fd, &processors)?;
            state.give(&vm, &processors)?;
            state.give_devices(&devices)?;
            Subphase::RestoreState
        }
    };
    let vcpus: Vec<VcpuFd> = processors.into_iter().map(|processor| processor.vcpu).collect();
    let statistics = Statistics::open(&vcpus, tracer);
    tracer.end(done)?;
    // What else it began with is closed, and KVM itself.
    let making = match config.begin {
        Begin::Boot(boot) => boot.template.map(|files| (files, kvm_fd)),
        Begin::Restore(files) => {
            drop((files, kvm_fd));
            None
        }
    };
    let bus = Arc::new(Bus {
        devices: devices.on_bus(),
        marks: Marks::new(config.marks, config.hold, statistics, making.is_some()),
        debug: DebugPort::new(config.console_log),
    });
    match config.jail {
        Some(jail) => jail::enter(jail, sys::borrow(&end.event))?,
        None => jail::give_up_privileges().map_err(host("give up capabilities"))?,
    }
    filter::of(Kind::Start).apply()?;
    // No guest's instruction before the last thread is confined.
    let confined = Arc::new(Barrier::new(1 + usize::from(config.cpus)));
    let mut threads = Vec::new();
    for (cpu, vcpu) in (0..config.cpus).zip(vcpus).rev() {
        let shared = Shared { bus: Arc::clone(&bus), end: Arc::clone(&end), confined: Arc::clone(&confined) };
        threads.push(start(vcpu, cpu, shared, tracer)?);
    }
    filter::of(if making.is_some() { Kind::TemplatesDevices } else { Kind::Devices }).apply()?;
    confined.wait();

    // Its life and its end.
    let ending = devices.serve(&end).map_err(host("wait for devices"))?;
    let mark = match (ending, making) {
        (Ending::Template, Some((files, kvm_fd))) => {
            let vcpus = vcpu::stop_all(threads, &end).map_err(host("stop the cpus"))?;
            template::make(&kvm_fd, &vm, &vcpus, &devices, &files)?;
            Mark { code: Code::Exit, clock: Clock::Monotonic, value: Exit::Code(0).encode(), stamp: now_ns() }
        }
        (Ending::Mark(mark), _) => mark,
        (Ending::Stopped(stop), _) => {
            devices.drain().map_err(host("write out the guest's output"))?;
            return Err(VmError::Stopped { stop, last_words: bus.debug.last_words() });
        }
        // Its mark is listened to only where a template is made.
        (Ending::Template, None) => return Ok(()),
    };
    devices.drain().map_err(host("write out the guest's output"))?;
    bus.marks.send(mark).map_err(host("send the last mark"))
}

/// What its memory was filled with.
enum Content {
    /// A kernel that starts here.
    Kernel {
        entry: u64,
    },
    Template(Box<MachineState>),
}

/// Checks what a machine begins with, and fills its memory.
fn fill(config: &VmConfig, memory_bytes: u64) -> Result<(Content, GuestRam), VmError> {
    let (tracer, cpus) = (config.tracer, config.cpus);
    match &config.begin {
        Begin::Boot(boot) => {
            let info = kernel::check_kernel(&boot.kernel)?;
            let placed = initramfs::place(&info, memory_bytes, boot.initramfs.len()?)?;
            let ram = memory::map(memory_bytes)?;
            tracer.end(Subphase::Ram)?;
            let header = kernel::load(&ram, &boot.kernel, &info)?;
            tracer.end(Subphase::KernelLoad)?;
            initramfs::load(&ram, &boot.initramfs, placed)?;
            tracer.end(Subphase::InitramfsLoad)?;
            regs::write_tables(&ram)?;
            let windows = windows(config.free_page_reporting);
            let wanted = cmdline::Wanted {
                discovery: boot.discovery,
                console_log: config.console_log,
                free_page_reporting: config.free_page_reporting,
            };
            let told = boot_params::Told {
                header,
                cmdline: &cmdline::line(wanted, &windows),
                initramfs: placed,
                acpi_root: describe(&ram, boot.discovery, cpus, &windows)?,
                memory_bytes,
            };
            boot_params::write(&ram, &told)?;
            tracer.end(Subphase::BootParams)?;
            Ok((Content::Kernel { entry: info.entry }, ram))
        }
        Begin::Restore(files) => {
            let state = template::read(&files.state)?;
            state.check(memory_bytes, cpus)?;
            let ram = template::map(memory_bytes, &state.pieces, &files.memory)?;
            tracer.end(Subphase::TemplateRead)?;
            Ok((Content::Template(Box::new(state)), ram))
        }
    }
}

/// Opens KVM and has it make a machine.
fn create_machine() -> Result<(Kvm, VmFd), VmError> {
    let kvm_fd = Kvm::new().map_err(VmError::OpenKvm)?;
    let vm = kvm_fd.create_vm().map_err(kvm("create virtual machine"))?;
    Ok((kvm_fd, vm))
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
    Ok(msr::filter(vm)?)
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
fn describe(
    ram: &GuestRam,
    discovery: Discovery,
    cpus: u8,
    windows: &[acpi::Window],
) -> Result<Option<GuestAddress>, ArchError> {
    match discovery {
        Discovery::Acpi => acpi::write(ram, cpus, windows).map(Some),
        Discovery::CommandLine => mptable::write(ram, cpus, windows).map(|()| None),
    }
}

/// Registers and interrupts of the virtio devices: three, and the balloon as the fourth.
fn windows(balloon: bool) -> Vec<acpi::Window> {
    let window = |(index, gsi)| acpi::Window {
        address: u32::try_from(register_address(index)).unwrap_or_default(),
        gsi,
    };
    (0..).zip(layout::VIRTIO_GSI).map(window).take(if balloon { 4 } else { 3 }).collect()
}

const fn register_address(index: u64) -> u64 {
    layout::VIRTIO.start + index * layout::VIRTIO_STRIDE
}

/// Puts a device on the bus: KVM itself rings its doorbell and raises its interrupt, without an exit.
fn attach<D: VirtioDevice>(
    vm: &VmFd,
    index: u8,
    device: D,
    ram: &GuestRam,
) -> Result<Arc<VirtioMmio<D>>, VmError> {
    let device = VirtioMmio::new(device, ram.clone()).map_err(host("create device events"))?;
    let doorbell = IoEventAddress::Mmio(register_address(u64::from(index)) + offset::QUEUE_NOTIFY);
    vm.register_ioevent(&device.doorbell, &doorbell, NoDatamatch)
        .map_err(kvm("connect a device's doorbell"))?;
    vm.register_irqfd(&device.irq, layout::VIRTIO_GSI[usize::from(index)])
        .map_err(kvm("connect a device's interrupt"))?;
    Ok(Arc::new(device))
}

fn create_processors(kvm_fd: &Kvm, vm: &VmFd, cpus: u8) -> Result<Vec<Processor>, VmError> {
    let of_host = cpuid::of_host(kvm_fd).map_err(kvm("read supported cpu features"))?;
    let mut processors = Vec::new();
    for cpu in 0..cpus {
        let vcpu = vm.create_vcpu(u64::from(cpu)).map_err(kvm("create cpu"))?;
        let features = of_host.table(cpu, cpus)?;
        vcpu.set_cpuid2(&features).map_err(kvm("set cpu features"))?;
        processors.push(Processor { vcpu, features });
    }
    Ok(processors)
}

/// What a processor's thread has in common with the others.
struct Shared {
    bus: Arc<Bus>,
    end: Arc<End>,
    /// Passed when all are confined.
    confined: Arc<Barrier>,
}

fn start(vcpu: VcpuFd, cpu: u8, shared: Shared, tracer: Tracer) -> Result<JoinHandle<VcpuFd>, VmError> {
    /// A processor's thread needs little: its exits are served without recursion.
    const STACK: usize = 64 << 10;
    let body = move || {
        let Shared { bus, end, confined } = shared;
        let filter = filter::of(Kind::Processor).apply();
        confined.wait();
        if let Err(why) = filter {
            end.report(Ending::Stopped(Stop::Unconfined { cpu, why }));
            return vcpu;
        }
        if cpu == 0 {
            let begun = tracer.fault(Subphase::VcpuStart).and_then(|()| {
                let begin = Mark { code: Code::RunBegin, clock: Clock::Monotonic, value: 0, stamp: now_ns() };
                // A launcher that is gone takes this process with it.
                let _gone = bus.marks.send(begin);
                tracer.fault(Subphase::GuestKernel)
            });
            if let Err(failed) = begun {
                end.report(Ending::Stopped(Stop::Stage(failed)));
                return vcpu;
            }
        }
        vcpu::run(vcpu, cpu, &bus, &end)
    };
    thread::Builder::new()
        .name(format!("vcpu{cpu}"))
        .stack_size(STACK)
        .spawn(body)
        .map_err(host("start a cpu's thread"))
}
