//! Facts of the machine that are cheap to read, recorded with every run (measured numbers mean nothing without).
//!
//! Everything comes from `/proc` and `/sys` under a root that tests replace; what can't be read is `null`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What the machine is, to the VM levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostClass {
    /// KVM with hardware support on bare metal.
    Hardware,
    /// KVM with hardware support inside another VM.
    Nested,
    /// KVM without second-level page tables.
    Shadow,
    /// KVM that interprets guest kernel code.
    Software,
    /// No KVM.
    None,
    /// The emulated lab machine.
    EmulatedLab,
}

/// What the time stamps count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockKind {
    /// Time.
    Monotonic,
    /// Instructions of the emulated CPU: each moves the clock by [`NS_PER_INSTRUCTION`].
    Instructions,
}

/// Nanoseconds of lab time per instruction (`-icount shift=1`).
pub const NS_PER_INSTRUCTION: u32 = 2;

/// The machine that was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What it is to the VM levels.
    pub class: HostClass,
    /// What the stamps count.
    pub clock: ClockKind,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Architecture.
    pub arch: String,
    /// Name of the CPU.
    pub cpu_model: Option<String>,
    /// Microcode revision.
    pub microcode: Option<String>,
    /// CPUs that run.
    pub cpus_online: Option<u32>,
    /// Several threads per core.
    pub smt: Option<bool>,
    /// NUMA nodes.
    pub numa_nodes: Option<u32>,
    /// RAM.
    pub mem_total_bytes: Option<u64>,
    /// Swap.
    pub swap_bytes: Option<u64>,
    /// The CPU says that a hypervisor runs it.
    pub hypervisor_bit: Option<bool>,
    /// Clock source of the kernel.
    pub clocksource: Option<String>,
    /// Frequency governor of CPU 0.
    pub governor: Option<String>,
    /// Frequency boost allowed.
    pub turbo: Option<bool>,
    /// Transparent huge pages.
    pub thp: Option<String>,
    /// Page merging: content of `ksm/run`.
    pub ksm_run: Option<u32>,
    /// Which cgroup hierarchy has which controller.
    pub cgroup: Cgroup,
    /// CPU weaknesses and what the kernel does about them.
    pub vulnerabilities: BTreeMap<String, String>,
    /// Command line of the kernel.
    #[serde(default)]
    pub cmdline: Option<String>,
    /// Parameters of KVM's modules that change what a guest costs, as `module.name`.
    #[serde(default)]
    pub kvm_parameters: BTreeMap<String, String>,
    /// Load average over a minute before and after the measuring, in thousandths of a task.
    #[serde(default)]
    pub load_milli: Option<[u64; 2]>,
    /// Load around the measuring.
    pub noise: Noise,
}

/// Versions of the controllers that give numbers: `v1`, `v2` or absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Memory controller.
    pub memory: Option<String>,
    /// CPU controller.
    pub cpu: Option<String>,
    /// The v2 mount (or the v1 memory mount) has `favordynmods`.
    pub favordynmods: Option<bool>,
}

/// What else the machine did while it was measured on; filled by [`Noise::since`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noise {
    /// Time that a hypervisor gave to others, all CPUs, in clock ticks.
    pub steal_ticks: Option<u64>,
    /// Time in which some task waited for a CPU.
    pub psi_cpu_some_us: Option<u64>,
    /// Pages read from swap.
    pub swapped_in_pages: Option<u64>,
    /// Time in which some task waited for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psi_memory_some_us: Option<u64>,
    /// Time in which some task waited for a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psi_io_some_us: Option<u64>,
    /// Switches from one task to another, all CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_switches: Option<u64>,
    /// How long that was, in microseconds.
    #[serde(default)]
    pub elapsed_us: Option<u64>,
    /// Time of a fixed loop of the processor, before and after all runs, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_loop_ns: Option<[u64; 2]>,
}

impl Host {
    /// Reads the facts under `root` (`/` but for tests); class and clock are the caller's knowledge.
    #[must_use]
    pub fn read(root: &Path, class: HostClass, clock: ClockKind) -> Self {
        let files = Files(root);
        let cpuinfo = files.text("proc/cpuinfo").unwrap_or_default();
        let meminfo = files.text("proc/meminfo").unwrap_or_default();
        let cpu = |key| field(&cpuinfo, key).map(str::to_owned);
        let kib = |key| Some(field(&meminfo, key)?.strip_suffix(" kB")?.parse::<u64>().ok()? * 1024);
        Self {
            class,
            clock,
            kernel: files.line("proc/sys/kernel/osrelease"),
            arch: std::env::consts::ARCH.to_owned(),
            cpu_model: cpu("model name"),
            microcode: cpu("microcode"),
            cpus_online: files.line("sys/devices/system/cpu/online").and_then(|l| count(&l)),
            smt: files.line("sys/devices/system/cpu/smt/active").map(|l| l == "1"),
            numa_nodes: files.line("sys/devices/system/node/online").and_then(|l| count(&l)),
            mem_total_bytes: kib("MemTotal"),
            swap_bytes: kib("SwapTotal"),
            hypervisor_bit: field(&cpuinfo, "flags").map(|f| f.split(' ').any(|f| f == "hypervisor")),
            clocksource: files.line("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            governor: files.line("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            turbo: files.turbo(),
            thp: files.line("sys/kernel/mm/transparent_hugepage/enabled").and_then(|l| chosen(&l)),
            ksm_run: files.line("sys/kernel/mm/ksm/run").and_then(|l| l.parse().ok()),
            cgroup: files.cgroup(),
            vulnerabilities: files.vulnerabilities(),
            cmdline: files.line("proc/cmdline"),
            kvm_parameters: files.kvm_parameters(),
            load_milli: files.load().map(|load| [load, load]),
            noise: Noise::default(),
        }
    }

    /// After the measuring: what was added to the noise, and the load now.
    pub fn finish(&mut self, root: &Path, before: &Noise) {
        self.noise = Noise::now(root).since(before);
        if let (Some([_, after]), Some(load)) = (&mut self.load_milli, Files(root).load()) {
            *after = load;
        }
    }
}

impl Noise {
    /// The counters as they stand.
    #[must_use]
    pub fn now(root: &Path) -> Self {
        let files = Files(root);
        let stat = files.text("proc/stat").unwrap_or_default();
        let vmstat = files.text("proc/vmstat").unwrap_or_default();
        let some = |what: &str| {
            let text = files.text(&format!("proc/pressure/{what}"))?;
            text.lines().find(|l| l.starts_with("some "))?.rsplit_once("total=")?.1.parse().ok()
        };
        Self {
            steal_ticks: stat.lines().next().and_then(|l| l.split_whitespace().nth(8)?.parse().ok()),
            psi_cpu_some_us: some("cpu"),
            psi_memory_some_us: some("memory"),
            psi_io_some_us: some("io"),
            context_switches: stat.lines().find_map(|l| l.strip_prefix("ctxt ")?.parse().ok()),
            swapped_in_pages: vmstat.lines().find_map(|l| l.strip_prefix("pswpin ")?.parse().ok()),
            elapsed_us: files.text("proc/uptime").and_then(|t| uptime_us(&t)),
            fixed_loop_ns: None,
        }
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(self, before: &Self) -> Self {
        let grown = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?);
        Self {
            steal_ticks: grown(self.steal_ticks, before.steal_ticks),
            psi_cpu_some_us: grown(self.psi_cpu_some_us, before.psi_cpu_some_us),
            psi_memory_some_us: grown(self.psi_memory_some_us, before.psi_memory_some_us),
            psi_io_some_us: grown(self.psi_io_some_us, before.psi_io_some_us),
            context_switches: grown(self.context_switches, before.context_switches),
            swapped_in_pages: grown(self.swapped_in_pages, before.swapped_in_pages),
            elapsed_us: grown(self.elapsed_us, before.elapsed_us),
            fixed_loop_ns: None,
        }
    }
}

struct Files<'a>(&'a Path);

impl Files<'_> {
    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok()
    }

    fn line(&self, path: &str) -> Option<String> {
        Some(self.text(path)?.trim().to_owned()).filter(|l| !l.is_empty())
    }

    /// The average over a minute, in thousandths.
    fn load(&self) -> Option<u64> {
        let text = self.text("proc/loadavg")?;
        let (whole, hundredths) = text.split(' ').next()?.split_once('.')?;
        Some(
            whole.parse::<u64>().ok()?.checked_mul(1000)?
                + hundredths.parse::<u64>().ok()?.checked_mul(10)?,
        )
    }

    fn kvm_parameters(&self) -> BTreeMap<String, String> {
        let named = [
            ("kvm", "halt_poll_ns"),
            ("kvm", "nx_huge_pages"),
            ("kvm", "tdp_mmu"),
            ("kvm_intel", "ept"),
            ("kvm_intel", "nested"),
            ("kvm_amd", "npt"),
            ("kvm_amd", "nested"),
            ("kvm_amd", "avic"),
        ];
        let read = |(module, name)| {
            Some((format!("{module}.{name}"), self.line(&format!("sys/module/{module}/parameters/{name}"))?))
        };
        named.into_iter().filter_map(read).collect()
    }

    fn turbo(&self) -> Option<bool> {
        let intel = self.line("sys/devices/system/cpu/intel_pstate/no_turbo").map(|l| l == "0");
        intel.or_else(|| self.line("sys/devices/system/cpu/cpufreq/boost").map(|l| l == "1"))
    }

    fn vulnerabilities(&self) -> BTreeMap<String, String> {
        let names = fs::read_dir(self.0.join("sys/devices/system/cpu/vulnerabilities"));
        let paths: Vec<PathBuf> = names.map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).ok()?;
            Some((path.file_name()?.to_str()?.to_owned(), text.trim().to_owned()))
        };
        paths.into_iter().filter_map(read).collect()
    }

    fn cgroup(&self) -> Cgroup {
        let mounts = self.text("proc/self/mounts").unwrap_or_default();
        let mut cgroup = Cgroup::default();
        for mount in mounts.lines() {
            let [_, target, kind, options, ..] = mount.split(' ').collect::<Vec<_>>()[..] else { continue };
            let options: Vec<&str> = options.split(',').collect();
            let controllers = match kind {
                "cgroup" => options.join(" "),
                "cgroup2" => {
                    let file = format!("{}/cgroup.controllers", target.trim_start_matches('/'));
                    self.line(&file).unwrap_or_default()
                }
                _ => continue,
            };
            let version = if kind == "cgroup" { "v1" } else { "v2" };
            let has = |name| controllers.split(' ').any(|c| c == name);
            if has("memory") {
                cgroup.memory = Some(version.to_owned());
                cgroup.favordynmods = Some(options.contains(&"favordynmods"));
            }
            if has("cpu") {
                cgroup.cpu = Some(version.to_owned());
            }
        }
        cgroup
    }
}

/// Microseconds of `20738.64 19275.02`, seconds with two decimals.
fn uptime_us(text: &str) -> Option<u64> {
    let (seconds, hundredths) = text.split(' ').next()?.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(hundredths.parse::<u64>().ok()?.checked_mul(10_000)?)
}

/// Value of the first `key : value` line.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}

/// Members of a list such as `0-3,8`.
fn count(list: &str) -> Option<u32> {
    list.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
        })
        .sum()
}

/// The choice of `always [madvise] never`.
fn chosen(line: &str) -> Option<String> {
    Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lists_and_finds_choices() {
        assert_eq!(count("0-3,8"), Some(5));
        assert_eq!((count("0"), count(""), count("3-1"), count("0-4294967295")), (Some(1), None, None, None));
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(field("model name\t: A: B\nflags\t\t: x hypervisor", "model name"), Some("A: B"));
    }

    #[test]
    fn this_machine_says_at_least_what_every_linux_says() {
        let host = Host::read(Path::new("/"), HostClass::None, ClockKind::Monotonic);
        assert!(host.kernel.is_some() && host.mem_total_bytes > Some(1 << 20) && host.cpus_online >= Some(1));
    }

    #[test]
    fn a_hybrid_machine_is_read_as_it_is() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hybrid");
        let host = Host::read(&root, HostClass::Software, ClockKind::Monotonic);
        assert_eq!(host.kernel.as_deref(), Some("6.18.0-fixture"));
        assert_eq!(host.cpu_model.as_deref(), Some("Fixture CPU: 2 cores"));
        assert_eq!((host.cpus_online, host.smt, host.numa_nodes), (Some(2), Some(false), Some(1)));
        assert_eq!((host.mem_total_bytes, host.swap_bytes), (Some(24_684_088 * 1024), Some(0)));
        assert_eq!((host.hypervisor_bit, host.turbo), (Some(true), Some(false)));
        assert_eq!((host.thp.as_deref(), host.ksm_run), (Some("madvise"), Some(0)));
        let (memory, cpu) = (Some("v1".to_owned()), Some("v2".to_owned()));
        assert_eq!(host.cgroup, Cgroup { memory, cpu, favordynmods: Some(true) });
        assert_eq!(host.vulnerabilities["meltdown"], "Not affected");
        let noise = Noise::now(&root);
        let expected = Noise {
            steal_ticks: Some(77),
            psi_cpu_some_us: Some(1234),
            psi_memory_some_us: None,
            psi_io_some_us: None,
            context_switches: None,
            swapped_in_pages: Some(9),
            elapsed_us: Some(20_738_640_000),
            fixed_loop_ns: None,
        };
        assert_eq!(noise, expected);
    }

    #[test]
    fn a_machine_that_says_nothing_gives_unknowns() {
        let host = Host::read(Path::new("/proc/self/fdinfo"), HostClass::None, ClockKind::Monotonic);
        assert_eq!((host.kernel, host.mem_total_bytes, host.hypervisor_bit), (None, None, None));
        assert_eq!(host.cgroup, Cgroup::default());
    }

    #[test]
    fn noise_is_the_growth_of_counters() {
        let at = |n| Noise {
            steal_ticks: Some(n),
            elapsed_us: Some(n),
            context_switches: Some(n * 2),
            swapped_in_pages: Some(5),
            ..Noise::default()
        };
        let expected = Noise {
            steal_ticks: Some(4),
            elapsed_us: Some(4),
            context_switches: Some(8),
            swapped_in_pages: Some(0),
            ..Noise::default()
        };
        assert_eq!(at(9).since(&at(5)), expected);
    }
}
