//! What is behind `/dev/kvm`, by behaviour.
//!
//! The device and its API version prove nothing: some hosts offer a KVM that interprets guest kernel code. So a guest of
//! sixteen pages counts down in a loop at ring 0 and at ring 3, and the same loop runs on the host; the two ratios,
//! a few hundred port writes and KVM's own counters tell the class.
//!
//! The guest runs in a thread of its own on processor time, not wall time, so a busy machine gives the same
//! answer. Round counts grow from 64 until a run takes about a millisecond, so an interpreted ring 0 costs
//! milliseconds too. A KVM that does not answer is interrupted by a signal after `HANG`.

mod classify;
mod guest;
mod stats;
#[allow(unsafe_code)]
mod sys;

use std::ffi::{CStr, c_int, c_void};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler, unblock_signal};

use self::classify::classify;
use self::guest::{GuestError, Machine, Vcpu};
pub(crate) use self::stats::value as stats_value;
pub(crate) use self::sys::stats_file;

/// Wall time after which the probe gives up: far over what it needs on a loaded machine.
const HANG: Duration = Duration::from_millis(1500);
/// How much to measure.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// A timed run is long enough at this processor time.
    long_enough: Duration,
    /// Timed runs of each loop; the shortest counts.
    repeats: u32,
    /// Ring 3 and the port writes too.
    whole: bool,
}

/// For reports.
const FULL: Effort = Effort { long_enough: Duration::from_micros(900), repeats: 3, whole: true };
/// For one yes or no: interpreted code is a hundred times slower, so a coarse ratio does.
const QUICK: Effort = Effort { long_enough: Duration::from_micros(40), repeats: 1, whole: false };
/// Port writes.
const EXITS: usize = 256;
/// Version of the KVM interface since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// What runs guest kernel code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmClass {
    /// VT-x or SVM of the processor, with its second level of page tables.
    Hardware,
    /// The same, offered by a hypervisor below.
    Nested,
    /// Processor support without second-level paging: KVM keeps shadow page tables.
    Shadow,
    /// Software: guest kernel code is interpreted, or the processor itself is emulated.
    Software,
    /// No KVM that could be used.
    None,
}

impl KvmClass {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Nested => "nested",
            Self::Shadow => "shadow",
            Self::Software => "software",
            Self::None => "none",
        }
    }
}

/// Whether `/dev/kvm` opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmAccess {
    /// It answers.
    Usable,
    /// There is no such device, or no driver behind it.
    Missing,
    /// No permission.
    Denied,
    /// Another hypervisor holds the processor's support.
    Busy,
    /// It opened or answered in no way that KVM does.
    Broken,
}

impl KvmAccess {
    /// From the error of opening the device or creating a VM.
    fn from_errno(errno: i32) -> Self {
        match Errno::from_raw_os_error(errno) {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => Self::Missing,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::BUSY => Self::Busy,
            _ => Self::Broken,
        }
    }
}

/// What the probe saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvmReport {
    /// The class.
    pub class: KvmClass,
    /// Why this class, one sentence.
    pub reason: String,
    /// Whether the device could be used.
    pub access: KvmAccess,
    /// A guest loop at ring 0 ran about as fast as on the host: a guest kernel can boot here.
    pub runs_guest_kernel: bool,
    /// The loaded backend: `kvm_intel`, `kvm_amd`, `kvm_pvm`.
    pub module: Option<String>,
    /// Second-level page tables (`ept`, `npt`); unknown where the backend has no such parameter.
    pub two_dimensional_paging: Option<bool>,
    /// The processor says that it is a virtual one.
    pub hypervisor_bit: bool,
    /// Signature of the hypervisor below (`KVMKVMKVM`, `TCGTCGTCGTCG`, ...).
    pub hypervisor: Option<String>,
    /// `vmx` or `svm` among the processor's flags.
    pub virt_flag: Option<String>,
    /// Guest loop at ring 3, time by the host's loop.
    pub alu_ratio_user: Option<f64>,
    /// Guest loop at ring 0, time by the host's loop.
    pub alu_ratio_kernel: Option<f64>,
    /// Port write to the VMM and back, median.
    pub exit_roundtrip_ns_p50: Option<u64>,
    /// Instructions that KVM interpreted for each port write.
    pub insn_emulation_per_exit: Option<f64>,
    /// Instructions that KVM interpreted for each instruction of the ring 0 loop.
    pub insn_emulation_per_kernel_insn: Option<f64>,
    /// `KVM_GET_API_VERSION`.
    pub api_version: Option<i32>,
    /// How long the probe took.
    pub elapsed_ns: u64,
}

/// The measured part.
#[derive(Debug, Default)]
struct Measured {
    access: Option<KvmAccess>,
    api_version: Option<i32>,
    ratio_user: Option<f64>,
    ratio_kernel: Option<f64>,
    exit_ns_p50: Option<u64>,
    emulation_per_exit: Option<f64>,
    emulation_per_insn: Option<f64>,
    failed: Option<String>,
}

/// Probes `/dev/kvm`, once in a process: later calls return the first answer.
#[must_use]
pub fn probe() -> &'static KvmReport {
    static REPORT: OnceLock<KvmReport> = OnceLock::new();
    REPORT.get_or_init(|| probe_at(c"/dev/kvm"))
}

/// Whether a guest kernel can run, in about a millisecond: ring 0 only. Where it can't, the whole [`probe`]'s
/// answer, so that the reason is the same everywhere.
#[must_use]
pub fn quick() -> &'static KvmReport {
    static REPORT: OnceLock<KvmReport> = OnceLock::new();
    let report = REPORT.get_or_init(|| probe_with(c"/dev/kvm", QUICK));
    if report.runs_guest_kernel { report } else { probe() }
}

/// Probes the KVM device at `path`.
#[must_use]
pub fn probe_at(path: &'static CStr) -> KvmReport {
    probe_with(path, FULL)
}

fn probe_with(path: &'static CStr, effort: Effort) -> KvmReport {
    let begin = Instant::now();
    let measured = watched(HANG, move |stop| measure(path, effort, stop));
    let mut report = describe(&measured);
    let flags = fs::read_to_string("/proc/cpuinfo").map(|text| cpu_flags(&text)).unwrap_or_default();
    let has = |name: &str| flags.iter().any(|flag| flag == name);
    report.virt_flag = ["vmx", "svm"].into_iter().find(|flag| has(flag)).map(str::to_owned);
    report.hypervisor_bit = has("hypervisor");
    report.hypervisor = if report.hypervisor_bit { hypervisor_signature() } else { None };
    report.module = ["kvm_pvm", "kvm_intel", "kvm_amd"]
        .into_iter()
        .find(|module| fs::exists(format!("/sys/module/{module}")).unwrap_or(false))
        .map(str::to_owned);
    report.two_dimensional_paging = ["kvm_intel/parameters/ept", "kvm_amd/parameters/npt"]
        .into_iter()
        .find_map(|path| fs::read_to_string(format!("/sys/module/{path}")).ok())
        .map(|value| matches!(value.trim(), "Y" | "1"));
    classify(&mut report, measured.failed.as_deref());
    report.elapsed_ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    report
}

/// The flags of the first processor in `/proc/cpuinfo`.
#[must_use]
pub fn cpu_flags(cpuinfo: &str) -> Vec<String> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "flags")
        .map(|(_, flags)| flags.split_ascii_whitespace().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// The signature that a hypervisor leaves in CPUID leaf `0x4000_0000`.
pub(crate) fn hypervisor_signature() -> Option<String> {
    let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
    let bytes: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx].into_iter().flat_map(u32::to_le_bytes).collect();
    let text: String = bytes.into_iter().take_while(u8::is_ascii_graphic).map(char::from).collect();
    (!text.is_empty()).then_some(text)
}

/// Interrupts `KVM_RUN`; the call's return is all that is wanted.
extern "C" fn interrupt(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}

/// Measures in a thread of its own, which is interrupted after `limit`.
fn watched(limit: Duration, work: impl FnOnce(&AtomicBool) -> Measured + Send + 'static) -> Measured {
    let failed = |what: String| Measured { failed: Some(what), ..Measured::default() };
    let signal = SIGRTMIN() + 7;
    if let Err(e) = register_signal_handler(signal, interrupt) {
        return failed(format!("set up the probe's signal: {e}"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let seen = Arc::clone(&stop);
    let body = move || {
        let unblocked = unblock_signal(signal);
        let measured = match unblocked {
            Ok(()) => work(&seen),
            Err(e) => failed(format!("set up the probe's signal: {e}")),
        };
        // Nobody listens any more only when this thread was given up.
        drop(sender.send(measured));
    };
    let thread = match thread::Builder::new().name("kvm-probe".to_owned()).spawn(body) {
        Ok(thread) => thread,
        Err(e) => return failed(format!("start the probe's thread: {e}")),
    };
    let mut answer = receiver.recv_timeout(limit).ok();
    stop.store(true, Ordering::Relaxed);
    // Again and again, because a signal just before KVM_RUN is lost.
    for _ in 0..20 {
        if answer.is_some() || thread.kill(signal).is_err() {
            break;
        }
        answer = receiver.recv_timeout(Duration::from_millis(5)).ok();
    }
    match answer {
        Some(measured) => {
            // It has nothing left to do but end.
            drop(thread.join());
            measured
        }
        // Stuck in the kernel: left alone, it ends with the process.
        None => failed(format!("KVM did not answer within {} ms", limit.as_millis())),
    }
}

/// Opens the device and measures; what was seen before a failure is kept.
fn measure(path: &CStr, effort: Effort, stop: &AtomicBool) -> Measured {
    let mut seen = Measured::default();
    let kvm = match Kvm::new_with_path(path) {
        Ok(kvm) => kvm,
        Err(e) => {
            seen.access = Some(KvmAccess::from_errno(e.errno()));
            seen.failed = Some(format!("open {}: {e}", path.to_string_lossy()));
            return seen;
        }
    };
    let version = kvm.get_api_version();
    if version != API_VERSION {
        seen.access = Some(KvmAccess::Broken);
        seen.failed =
            Some(format!("{} is not a KVM device of API version {API_VERSION}", path.to_string_lossy()));
        return seen;
    }
    seen.api_version = Some(version);
    seen.access = Some(KvmAccess::Usable);
    if let Err(e) = measure_guest(&kvm, effort, stop, &mut seen) {
        if let GuestError::Vm(errno) = &e {
            seen.access = Some(KvmAccess::from_errno(errno.errno()));
        }
        seen.failed = Some(e.to_string());
    }
    seen
}

/// The loops and port writes.
fn measure_guest(
    kvm: &Kvm,
    effort: Effort,
    stop: &AtomicBool,
    seen: &mut Measured,
) -> Result<(), GuestError> {
    let machine = Machine::new(kvm)?;
    if effort.whole {
        let mut user = machine.vcpu(kvm, 3)?;
        seen.ratio_user = Some(ratio(&mut user, effort, stop)?);
        let before = user.counters();
        seen.exit_ns_p50 = Some(exit_median(&mut user, stop)?);
        if let (Some(before), Some(after)) = (before, user.counters()) {
            seen.emulation_per_exit = Some(per(after.since(before).insn_emulation, EXITS as u64));
        }
    }
    let mut kernel = machine.vcpu(kvm, 0)?;
    seen.ratio_kernel = Some(ratio(&mut kernel, effort, stop)?);
    let rounds = 64;
    let before = kernel.counters();
    kernel.round(rounds, stop)?;
    if let (Some(before), Some(after)) = (before, kernel.counters()) {
        // Two instructions a round, and four around them.
        seen.emulation_per_insn = Some(per(after.since(before).insn_emulation, 2 * rounds + 4));
    }
    Ok(())
}

/// A quotient to three decimals, so that it survives JSON as it is.
fn per(part: u64, whole: u64) -> f64 {
    rounded(Duration::from_nanos(part).as_secs_f64() / Duration::from_nanos(whole.max(1)).as_secs_f64())
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Processor time of the guest's loop by that of the host's.
fn ratio(vcpu: &mut Vcpu<'_>, effort: Effort, stop: &AtomicBool) -> Result<f64, GuestError> {
    // The first entry pays for page tables; one round costs little else than the exit.
    vcpu.timed(1, stop)?;
    let mut exit = Duration::MAX;
    for _ in 0..effort.repeats {
        exit = exit.min(vcpu.timed(1, stop)?);
    }
    let mut rounds = 64_u64;
    let mut shortest = vcpu.timed(rounds, stop)?;
    while shortest < effort.long_enough && rounds < 1 << 26 {
        rounds *= 4;
        shortest = vcpu.timed(rounds, stop)?;
    }
    let mut host = Duration::MAX;
    for _ in 0..effort.repeats {
        shortest = shortest.min(vcpu.timed(rounds, stop)?);
        let begin = guest::thread_time();
        sys::host_loop(rounds);
        host = host.min(guest::thread_time().saturating_sub(begin));
    }
    let guest = shortest.saturating_sub(exit).as_secs_f64();
    Ok(rounded(guest / host.max(Duration::from_nanos(1)).as_secs_f64()))
}

/// Median wall time of a port write to the VMM and back.
fn exit_median(vcpu: &mut Vcpu<'_>, stop: &AtomicBool) -> Result<u64, GuestError> {
    let mut times = Vec::with_capacity(EXITS);
    for _ in 0..EXITS {
        let begin = Instant::now();
        vcpu.round(1, stop)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(u64::try_from(times[EXITS / 2].as_nanos()).unwrap_or(u64::MAX))
}

/// The report of what was measured, before its class.
fn describe(measured: &Measured) -> KvmReport {
    KvmReport {
        class: KvmClass::None,
        reason: String::new(),
        access: measured.access.unwrap_or(KvmAccess::Broken),
        runs_guest_kernel: false,
        module: None,
        two_dimensional_paging: None,
        hypervisor_bit: false,
        hypervisor: None,
        virt_flag: None,
        alu_ratio_user: measured.ratio_user,
        alu_ratio_kernel: measured.ratio_kernel,
        exit_roundtrip_ns_p50: measured.exit_ns_p50,
        insn_emulation_per_exit: measured.emulation_per_exit,
        insn_emulation_per_kernel_insn: measured.emulation_per_insn,
        api_version: measured.api_version,
        elapsed_ns: 0,
    }
}

#[cfg(test)]
mod tests;
