//! Two monitors start the same guest, in turns, and one clock judges both: `isolab run --level vm` and QEMU's microvm.
//!
//! Runs inside the lab (`bench/figures guest` puts it and QEMU there). Both monitors get the same kernel file, the same
//! initramfs, the same job for process 1, the same image as a block device and the same command line (QEMU's has one word
//! more, the number of the first console port).
//!
//! A sample begins before the monitor's process is made and ends when the first byte that the workload writes on
//! standard output arrives here. Prints one line of JSON for each sample and then a table in Markdown.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use isolab_bench::run_report::RunReport;
use isolab_bench::statistics::{median, quantile};
use isolab_images::initramfs;
use isolab_images::job::{BlockOptions, Job, Stdio as JobStdio, User};
use isolab_images::kernels::{KernelStore, ModuleSet, STOCK};
use isolab_images::programs::INIT;
use isolab_images::store::Store;
use isolab_wire::mark::Code;
use isolab_wire::port;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};

const USAGE: &str = "usage: guest_start QEMU-DIR PAIRS";
const ISOLAB: &str = "/lab/isolab";
const IMAGE: &str = "demo";
const WORKLOAD: [&str; 3] = ["/isolab-work", "echo", "x"];
const MEMORY_MIB: u64 = 128;
/// Not counted: the first start of each monitor reads its files from the initramfs into no cache of its own.
const WARM_UPS: usize = 1;

/// How QEMU is started; the machine options besides the type.
struct Microvm {
    name: &'static str,
    machine: &'static str,
    firmware: Option<&'static str>,
}

/// The host's, less what hangs guests on QEMU's emulation of SVM (`vmm/src/arch/x86_64/cpuid.rs` says why).
const CPU: &str = "host,-kvm-pv-eoi";

/// As it comes; with a clock chip, whose absence costs a stock kernel more than a second of looking for it; and with the
/// chip, the quicker firmware and without the rest. ACPI stays on: a stock kernel finds virtio-mmio devices no other way.
const MICROVMS: [Microvm; 3] = [
    Microvm { name: "qemu microvm", machine: "microvm,acpi=on", firmware: None },
    Microvm { name: "qemu microvm, rtc", machine: "microvm,acpi=on,rtc=on", firmware: None },
    Microvm {
        name: "qemu microvm, rtc, qboot, least",
        machine: "microvm,acpi=on,rtc=on,pit=off,pic=off,isa-serial=off",
        firmware: Some("qboot.rom"),
    },
];

/// What both monitors start.
struct Guest {
    kernel: PathBuf,
    initramfs: PathBuf,
    image: PathBuf,
    job: Vec<u8>,
    cmdline: String,
}

/// One start.
struct Sample {
    /// Start of the monitor's process to the workload's first byte.
    output_ns: u64,
    /// Moments that only isolab tells, from the same start.
    moments: Vec<(&'static str, u64)>,
}

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (Some(qemu), Some(pairs)) = (args.next(), args.next()) else { bail!(USAGE) };
    let pairs: usize = pairs.to_str().and_then(|text| text.parse().ok()).context(USAGE)?;
    let guest = Guest::new()?;
    let names: Vec<&str> = std::iter::once("isolab").chain(MICROVMS.iter().map(|m| m.name)).collect();
    let mut samples: Vec<Vec<Sample>> = names.iter().map(|_| Vec::new()).collect();
    for round in 0..pairs + WARM_UPS {
        // Forwards and backwards in turns, so that none always follows the same other.
        let mut order: Vec<usize> = (0..names.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for arm in order {
            let sample = match arm.checked_sub(1).and_then(|index| MICROVMS.get(index)) {
                None => isolab()?,
                Some(microvm) => microvm.start(Path::new(&qemu), &guest)?,
            };
            let kept = round >= WARM_UPS;
            println!(
                "{}",
                serde_json::json!({
                    "monitor": names[arm], "round": round, "kept": kept,
                    "output_ns": sample.output_ns, "moments_ns": sample.moments,
                })
            );
            if kept {
                samples[arm].push(sample);
            }
        }
    }
    print_table(&names, &samples);
    Ok(())
}

impl Guest {
    fn new() -> Result<Self> {
        let entry = KernelStore::new(Store::home()?.join("kernels")).get(STOCK)?;
        let image = Store::open_or_create()?.resolve(IMAGE)?;
        let initramfs = PathBuf::from("/tmp/initramfs");
        std::fs::write(&initramfs, initramfs::build(&entry, INIT, ModuleSet::Guest)?)?;
        let job = Job {
            image: image.digest.clone(),
            argv: WORKLOAD.map(str::to_owned).to_vec(),
            env: image.config.env.clone(),
            workdir: "/".into(),
            user: User::default(),
            hostname: "isolab".into(),
            memory_bytes: MEMORY_MIB << 20,
            cpus: 1,
            pids: 1024,
            read_only: false,
            stdio: JobStdio::Output,
            timeout: None,
            marks: true,
        };
        Ok(Self {
            kernel: entry.vmlinux().unwrap_or_else(|| entry.kernel()),
            initramfs,
            image: image.path,
            job: job.encode(&BlockOptions::default())?,
            cmdline: format!("{} isolab_first_port=1", isolab_vmm::command_line()).replace(
                "loglevel=1",
                if std::env::var_os("DBG").is_some() { "loglevel=8" } else { "loglevel=1" },
            ),
        })
    }
}

fn isolab() -> Result<Sample> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfd(&write, FdFlags::empty())?;
    let mut command = Command::new(ISOLAB);
    command.args(["run", "--on", "host", "--level", "vm", "--kernel", STOCK]);
    command.args(["--memory", &format!("{MEMORY_MIB}M")]);
    command.args(["--report-fd", &write.as_raw_fd().to_string(), IMAGE, "--"]).args(WORKLOAD);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let start_ns = now_ns();
    let mut child = command.spawn().context("start isolab")?;
    drop(write);
    let output_ns = first_byte(&mut child.stdout.take().context("take isolab's output")?)? - start_ns;
    let mut line = Vec::new();
    File::from(read).read_to_end(&mut line)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("isolab ended with {status}");
    }
    let report = RunReport::from_line(&line)?;
    let codes = [
        ("monitor enters the guest", Code::RunBegin),
        ("process 1", Code::Init),
        ("execve", Code::Exec),
        ("workload", Code::Work),
    ];
    let mut moments = vec![("main", report.main_ns.saturating_sub(start_ns))];
    for (name, code) in codes {
        moments.extend(report.at(code).map(|at| (name, at.saturating_sub(start_ns))));
    }
    Ok(Sample { output_ns, moments })
}

impl Microvm {
    fn start(&self, dir: &Path, guest: &Guest) -> Result<Sample> {
        let mut command = qemu(dir);
        command.args(["-M", self.machine, "-accel", "kvm", "-cpu", CPU, "-smp", "1"]);
        command.args(["-m", &format!("{MEMORY_MIB}M"), "-nodefaults", "-no-user-config"]);
        command.args(["-display", "none", "-no-reboot"]);
        if std::env::var_os("DBG").is_some() {
            command.args(["-serial", "file:/tmp/serial"]);
        }
        command.args(self.firmware.map(|file| ["-bios", file]).into_iter().flatten());
        command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initramfs);
        command.arg("-append").arg(&guest.cmdline);
        let image = guest.image.display();
        command.args(["-blockdev", &format!("host_device,node-name=image,read-only=on,filename={image}")]);
        command.args(["-device", "virtio-serial-device", "-device", "virtio-blk-device,drive=image"]);
        command.args(["-device", "virtio-rng-device"]);
        // The control port last: process 1 waits for it, and then all are open.
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for number in [port::STDIN, port::STDOUT, port::STDERR, port::CONTROL] {
            let (our, their) = UnixStream::pair()?;
            fcntl_setfd(&their, FdFlags::empty())?;
            command.args(["-chardev", &format!("socket,id=c{number},fd={}", their.as_raw_fd())]);
            let port = format!("virtserialport,nr={},chardev=c{number}", number + 1);
            command.args(["-device", &port]);
            ours.push(our);
            theirs.push(their);
        }
        let [_stdin, stdout, _stderr, control] = ours.as_mut_slice() else { bail!("no ports") };
        control.write_all(&guest.job)?;
        let start_ns = now_ns();
        let mut child = Ended(command.stdin(Stdio::null()).spawn().context("start qemu")?);
        drop(theirs);
        let output_ns = first_byte(stdout).with_context(|| format!("start {}", self.name))? - start_ns;
        // The last mark goes to a port that QEMU does not have; process 1 resets the machine then.
        let status = child.0.wait()?;
        if !status.success() {
            bail!("{} ended with {status}", self.name);
        }
        Ok(Sample { output_ns, moments: Vec::new() })
    }
}

/// A process that does not outlive us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// QEMU with its own libraries: the lab has none.
fn qemu(dir: &Path) -> Command {
    let mut command = Command::new(dir.join("ld.so"));
    let with = |name: &str| -> OsString { dir.join(name).into_os_string() };
    command.arg("--library-path").arg(with("lib")).arg(with("qemu-system-x86_64"));
    command.arg("-L").arg(with("share"));
    command
}

fn first_byte(from: &mut impl Read) -> Result<u64> {
    let mut byte = [0];
    from.read_exact(&mut byte).context("wait for the workload's first byte")?;
    let at = now_ns();
    if byte[0] != b'x' {
        bail!("the workload wrote {:?}", char::from(byte[0]));
    }
    Ok(at)
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + nanos.unwrap_or(0)
}

/// Medians in millions of instructions: the lab's clock counts 2 ns for each.
fn print_table(names: &[&str], samples: &[Vec<Sample>]) {
    let mi = |ns: f64| ns / 2e6;
    let of = |list: &[Sample]| -> Vec<f64> { list.iter().map(|s| s.output_ns as f64).collect() };
    let base = samples.first().map_or(1.0, |list| median(&of(list)));
    println!("\n| monitor | samples | to the workload's first byte, Mi | least to most | ratio to isolab |");
    println!("|---|---|---|---|---|");
    for (name, list) in names.iter().zip(samples) {
        let values = of(list);
        let (low, mid, high) = (quantile(&values, 0.0), median(&values), quantile(&values, 1.0));
        let (low, mid, high, ratio) = (mi(low), mi(mid), mi(high), mid / base);
        println!("| {name} | {} | {mid:.1} | {low:.1} to {high:.1} | {ratio:.2} |", list.len());
    }
    let Some(isolab) = samples.first().filter(|list| !list.is_empty()) else { return };
    println!("\n| isolab reaches | median, Mi from start |\n|---|---|");
    for (index, (name, _)) in isolab[0].moments.iter().enumerate() {
        let values: Vec<f64> =
            isolab.iter().filter_map(|s| s.moments.get(index)).map(|m| m.1 as f64).collect();
        println!("| {name} | {:.1} |", mi(median(&values)));
    }
}
