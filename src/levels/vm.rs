//! Level `vm`: a KVM guest with its own Linux kernel, in a VMM process of its own.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use isolab_bench::port::{HostStdio, Level, Running, StartError, Unavailable};
use isolab_bench::run_report::{Detail, SNAPSHOT};
use isolab_container::cgroup::{Cgroup, Limits};
use isolab_container::child::{SpawnOptions, keep_only, namespace, spawn, told};
use isolab_container::clock::ClockPair;
use isolab_container::idmap::Singles;
use isolab_container::instance::{ExitFrom, Instance, Parts, mark_pipe};
use isolab_container::{panics, trace};
use isolab_images::initramfs;
use isolab_images::job::{BlockOptions, Job};
use isolab_images::kernels::{KernelEntry, KernelInfo, KernelStore, ModuleSet, STOCK, TUNED};
use isolab_images::programs::INIT;
use isolab_images::snapshots::OpenSnapshot;
use isolab_images::store::Store;
use isolab_vmm::probe;
use isolab_vmm::{
    Begin, Boot, Initramfs, Jail, TemplateFiles, VmConfig, VmError, check_kernel, least_memory,
};
use isolab_wire::GUEST_PROGRAM;
use isolab_wire::mark::Failure;
use isolab_wire::restore::{BLOCK_LEN, Restore, SEED_LEN};
use isolab_wire::trace::Subphase;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::geteuid;
use rustix::rand::{GetRandomFlags, getrandom};

use super::started::Started;
use super::{Setup, explained, namespaces};
use crate::hint::{self, Hint};
use crate::snapshot;

/// Its name.
pub(super) const NAME: &str = "vm";
/// Memory of the VMM process beside the guest's RAM that its cgroup allows: devices, page tables, KVM's own.
const VMM_BYTES: u64 = 64 << 20;

/// The level.
#[derive(Debug)]
pub(super) struct Vm(Setup);

impl Vm {
    pub(super) const fn new(setup: Setup) -> Self {
        Self(setup)
    }

    fn kernel(&self) -> Result<KernelEntry, StartError> {
        guest_kernel(self.0.kernel.as_deref())
    }
}

/// The kernel of this name, or the default one.
pub(super) fn guest_kernel(asked: Option<&str>) -> Result<KernelEntry, StartError> {
    let store = KernelStore::new(Store::home()?.join("kernels"));
    let name = asked.unwrap_or_else(|| store.default_name());
    match store.get(name) {
        Err(_) if asked.is_none() && name == STOCK => Err(refusal(hint::no_guest_kernel(STOCK))),
        entry => Ok(entry?),
    }
}

/// Whether a kernel can tell its host of free pages.
///
/// # Errors
/// With the command that makes an entry which can.
fn reports(entry: &KernelEntry) -> Result<(), StartError> {
    let KernelInfo { name, reporting_modules, .. } = entry.info();
    let remedy = match name.as_str() {
        _ if reporting_modules.is_some() => return Ok(()),
        STOCK => "fetch it anew: `isolab kernel fetch`",
        TUNED => "build it anew: `isolab kernel build`",
        _ => "add it with its virtio_balloon: `isolab kernel add PATH --name NAME --modules DIR`",
    };
    Err(format!("guest kernel {name} has no driver for --free-page-reporting in its entry; {remedy}").into())
}

fn refusal(hint: Hint) -> StartError {
    format!("{}; {}", hint.reason, hint.remedy).into()
}

impl Level for Vm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), Unavailable> {
        // The lab was started because its KVM runs guests; asking again would be part of what is measured.
        if hint::in_lab() {
            return Ok(());
        }
        if self.0.knobs.jail {
            namespaces()?;
        }
        hint::vm_on_host(probe::quick()).map_or(Ok(()), |hint| Err(hint.into()))
    }

    fn start(&self, job: &Job, stdio: HostStdio) -> Result<Box<dyn Running>, StartError> {
        let entry = self.kernel()?;
        let (begin, restore) = if self.0.from_snapshot {
            let reporting = self.0.free_page_reporting;
            let subject = snapshot::subject(&self.0.image_name, job, entry.info(), reporting);
            let OpenSnapshot { state, memory } = snapshot::store()?.open(&subject)?;
            self.0.tracer.end(Subphase::TemplateOpen)?;
            (Begin::Restore(TemplateFiles { state, memory }), true)
        } else {
            (Begin::Boot(self.boot(&entry, job, None)?), false)
        };
        let fault = trace::fault_inside(&self.0.tracer);
        let program = self.0.program.is_some();
        let block = job.encode(&BlockOptions { fault, program, ..BlockOptions::default() })?;
        let vmm_bytes = job.memory_bytes + VMM_BYTES;
        Ok(Box::new(self.launch(job, stdio, Machine { begin, restore, block, entry: &entry, vmm_bytes })?))
    }
}

/// What a VMM process is started with.
struct Machine<'a> {
    begin: Begin,
    /// The guest has waited for its job: it needs fresh random numbers and the time first.
    restore: bool,
    block: Vec<u8>,
    entry: &'a KernelEntry,
    /// Memory that its cgroup allows.
    vmm_bytes: u64,
}

impl Vm {
    /// Starts a guest that is stored in these files when it waits for its job; `job` says what each of its jobs has in common. Its
    /// standard streams stay open to the end.
    pub(super) fn start_template(
        &self,
        job: &Job,
        stdio: HostStdio,
        files: TemplateFiles,
    ) -> Result<Box<dyn Running>, StartError> {
        let entry = self.kernel()?;
        let begin = Begin::Boot(self.boot(&entry, job, Some(files))?);
        let block = job.encode(&BlockOptions { template: true, ..BlockOptions::default() })?;
        // What the files hold is charged as well, as long as it is only in memory.
        let vmm_bytes = 2 * job.memory_bytes + VMM_BYTES;
        let machine = Machine { begin, restore: false, block, entry: &entry, vmm_bytes };
        Ok(Box::new(self.launch(job, stdio, machine)?))
    }

    /// What a guest boots from.
    fn boot(
        &self,
        entry: &KernelEntry,
        job: &Job,
        template: Option<TemplateFiles>,
    ) -> Result<Boot, StartError> {
        // The ELF kernel where there is one: a bzImage unpacks itself in the guest first.
        let kernel = File::open(entry.vmlinux().unwrap_or_else(|| entry.kernel()))?;
        let modules = if self.0.free_page_reporting {
            reports(entry)?;
            ModuleSet::ReportingGuest
        } else {
            ModuleSet::Guest
        };
        let mut archive = initramfs::start(entry, INIT, modules)?;
        if let Some(program) = self.0.program {
            archive.file(GUEST_PROGRAM.to_str()?.trim_start_matches('/'), 0o755, program)?;
        }
        let initramfs = Initramfs::Bytes(archive.finish()?);
        let least = least_memory(&check_kernel(&kernel)?, &initramfs)?;
        if job.memory_bytes < least {
            let (asked, least) = (job.memory_bytes >> 20, least.div_ceil(1 << 20));
            let kernel = &entry.info().name;
            return Err(format!(
                "guest kernel {kernel} does not fit into {asked} MiB; give --memory {least}M or more"
            )
            .into());
        }
        self.0.tracer.end(Subphase::KernelFiles)?;
        Ok(Boot { kernel, discovery: entry.info().discovery, initramfs, template })
    }

    fn launch(&self, job: &Job, stdio: HostStdio, machine: Machine<'_>) -> Result<Started, StartError> {
        let Machine { begin, restore, block, entry, vmm_bytes } = machine;
        let tracer = self.0.tracer;
        tracer.end(Subphase::JobBlock)?;
        let limits = Limits { memory_bytes: Some(vmm_bytes), cpus: Some(job.cpus), pids: None };
        let cgroup = match Cgroup::create(&limits) {
            // The machine itself holds the guest to its RAM and vCPUs; the cgroup is a second wall where we may build it.
            Err(_) if !geteuid().is_root() => None,
            cgroup => cgroup?,
        };
        tracer.end(Subphase::Cgroup)?;
        let (marks_read, marks) = mark_pipe()?;
        let (control_read, control) = pipe_with(PipeFlags::CLOEXEC)?;
        // The whole block fits, so that sending it never waits for the guest.
        fcntl_setpipe_size(&control, (BLOCK_LEN + block.len()).next_power_of_two())?;
        let (complaint, complain) = pipe_with(PipeFlags::CLOEXEC)?;
        let (held, hold) =
            if job.marks { Some(pipe_with(PipeFlags::CLOEXEC)?).unzip() } else { (None, None) };
        let config = VmConfig {
            memory_bytes: job.memory_bytes,
            cpus: u8::try_from(job.cpus)?,
            begin,
            free_page_reporting: self.0.free_page_reporting,
            image: self.0.image.try_clone()?,
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            control: control_read,
            marks: marks.as_fd().try_clone_to_owned()?,
            hold: held,
            jail: None,
            tracer,
            console_log: self.0.guest_console,
        };
        let ids = if self.0.knobs.jail { Ids::choose()? } else { Ids::Ours };
        let start = ClockPair::read();
        let report = Some(marks.as_fd());
        // Made with the process: later, when a thread of it has ended, the kernel may not have noticed yet, and refuses.
        let namespaces = if matches!(ids, Ids::Nobodys) { namespace::USER } else { 0 };
        let options = SpawnOptions { namespaces, cgroup: cgroup.as_ref(), report, tracer };
        tracer.end(Subphase::Channels)?;
        let held = spawn(&options, |_handed| machine_process(config, ids, complain));
        let held = held.map_err(|error| explained(error.into()))?;
        drop(marks);
        if restore {
            // It goes on as soon as it has this.
            send(&control, &[&renewal()?[..], &block].concat())?;
        }
        let child = held.release(cgroup.as_ref(), &[]).map_err(|error| match told(&marks_read) {
            // A child that failed at its half has said why; what we ran into because of that says less.
            Some(Failure { step, errno }) => {
                let why = std::io::Error::from_raw_os_error(i32::from(errno));
                StartError::from(format!("start the monitor, step {step:?}: {why}"))
            }
            None => Box::new(error),
        })?;
        if !restore {
            match send(&control, &block) {
                // It has ended already; how, says why.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                sent => sent?,
            }
        }
        let instance = Instance::new(Parts {
            child,
            marks: marks_read,
            control: Some(control),
            hold,
            cgroup,
            ids: None,
            start,
            begin_ns: None,
            exit_from: ExitFrom::Marks,
            measured: job.marks,
            tracer,
        });
        let detail = Detail {
            image_digest: Some(job.image.clone()),
            lower_fs: Some("erofs".into()),
            lower_via: Some("virtio-blk".into()),
            kernel: Some(entry.info().version.clone()),
            limits_not_enforced: vec![],
            start: restore.then(|| SNAPSHOT.to_owned()),
        };
        Ok(Started::new(instance, None, detail).with_complaint(File::from(complaint)))
    }
}

/// What a guest gets that must not be that of its template.
fn renewal() -> Result<[u8; BLOCK_LEN], StartError> {
    let mut seed = [0; SEED_LEN];
    let mut rest = &mut seed[..];
    while !rest.is_empty() {
        let n = getrandom(&mut *rest, GetRandomFlags::empty())?;
        rest = &mut rest[n..];
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Restore { realtime_ns: u64::try_from(now.as_nanos())?, seed }.encode())
}

/// Whose the VMM process is when its guest runs.
#[derive(Clone, Copy, Debug)]
enum Ids {
    /// A user's that nobody else is.
    Own(Singles),
    /// Nobody's of a user namespace without ids.
    Nobodys,
    /// The user's who starts it.
    Ours,
}

impl Ids {
    fn choose() -> Result<Self, StartError> {
        Ok(Singles::of_root()?.map_or(Self::Nobodys, Self::Own))
    }

    /// In that process.
    fn jail(self) -> Option<Jail> {
        match self {
            Self::Own(singles) => singles.of(std::process::id()).map(|(uid, gid)| Jail::Own { uid, gid }),
            Self::Nobodys => Some(Jail::UserNamespace),
            Self::Ours => None,
        }
    }
}

/// What helps where a VMM process can't be confined.
const WITHOUT_JAIL: &str = "isolab needs CAP_SYS_ADMIN or a user namespace for that; `--knob jail=off` leaves it out, and a monitor that its \
                            guest takes over has then the user who started it";

/// The VMM process: runs the guest; says why where there is no result.
fn machine_process(config: VmConfig, ids: Ids, complain: OwnedFd) -> i32 {
    let Err(error) = machine(config, ids, &complain) else { return 0 };
    let mut text = format!("{error:#}");
    if matches!(error.downcast_ref(), Some(VmError::Jail(_))) {
        text = format!("{text}; {WITHOUT_JAIL}");
    }
    // The launcher reports the plain end where even this fails.
    let _ = File::from(complain).write_all(text.as_bytes());
    1
}

fn machine(mut config: VmConfig, ids: Ids, complain: &OwnedFd) -> anyhow::Result<()> {
    config.jail = ids.jail();
    let pipe = complain.try_clone().context("share a pipe")?;
    // With a copy of the launcher's own ends the VMM would never see the end of the launcher.
    let kept: Vec<_> = config.descriptors().into_iter().chain([complain.as_fd(), pipe.as_fd()]).collect();
    keep_only(&kept).context("close what belongs to the launcher")?;
    panics::tell(File::from(pipe));
    Ok(isolab_vmm::run(config)?)
}

/// The job block, whole: the VMM reads it as the guest takes it.
fn send(control: &OwnedFd, block: &[u8]) -> std::io::Result<()> {
    File::from(control.try_clone()?).write_all(block)
}
