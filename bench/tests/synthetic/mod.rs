//! A record of invented numbers, clearly so, for tests and for looking at the page: a fake executor with seeded jitter.

use std::collections::BTreeMap;
use std::path::Path;

use isolab_bench::conditions::Conditions;
use isolab_bench::environment::{ClockKind, Host, HostClass};
use isolab_bench::measure::{ExecuteError, Executor, Unobserved, measure};
use isolab_bench::plan::Plan;
use isolab_bench::port::MemoryReading;
use isolab_bench::record::{Arm, Record, Run, Tool, Workload};
use isolab_bench::run_report::{Detail, EndReport, RunReport};
use isolab_bench::sample::Execution;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Invents runs.
pub(crate) struct Invented {
    rng: ChaCha8Rng,
    now_ns: u64,
    jitter_permille: u64,
}

impl Invented {
    /// Steps of each level in microseconds: main, run begin, init, exec, work, ready, exit, clean.
    fn steps(arm: &str) -> [u64; 8] {
        match arm {
            "process" => [310, 140, 0, 90, 160, 40, 120, 60],
            "container" => [310, 590, 410, 380, 170, 45, 150, 900],
            _ => [315, 3_900, 84_000, 2_600, 240, 60, 350, 3_600],
        }
    }

    fn memory(arm: &str) -> MemoryReading {
        let mib = |n: u64| n << 10;
        let (anon, file, kernel, rest) = match arm {
            "process" => (96, 140, 180, 4),
            "container" => (230, 140, 520, 10),
            _ => (38_300, 900, 1_750, 200),
        };
        MemoryReading {
            source: "v2".to_owned(),
            current_bytes: mib(anon + file + kernel + rest),
            anon_bytes: Some(mib(anon)),
            file_bytes: Some(mib(file)),
            kernel_bytes: Some(mib(kernel)),
            peak_bytes: mib((anon + file + kernel + rest) * 9 / 8),
            parts: BTreeMap::new(),
        }
    }
}

impl Executor for Invented {
    fn execute(&mut self, arm: &str) -> Result<Execution, ExecuteError> {
        let request_ns = self.now_ns;
        let mut at = request_ns;
        let mut moments = Self::steps(arm).map(|us| {
            // Mostly near zero, now and then large: like start-up times.
            let tail_permille =
                self.rng.random_range(0_u64..100).pow(4) / 100_000 * self.jitter_permille / 1000;
            at += us * (1000 + tail_permille);
            at
        });
        let clean_ns = std::mem::take(&mut moments[7]);
        self.now_ns = clean_ns + 5_000_000;
        let letters = ['B', 'I', 'E', 'W', 'R', 'X'];
        let stamps = letters.into_iter().zip(moments[1..7].iter().copied());
        let detail = Detail {
            image_digest: Some(format!("sha256:{}", "7e57".repeat(16))),
            lower_fs: Some("erofs".to_owned()),
            lower_via: Some(if arm == "vm" { "virtio-blk" } else { "file" }.to_owned()),
            kernel: Some(if arm == "vm" { "6.1.0-synthetic-guest" } else { "6.12.0-synthetic" }.to_owned()),
            limits_not_enforced: vec![],
            start: None,
        };
        let report = RunReport {
            level: arm.to_owned(),
            main_ns: moments[0],
            stamps: stamps.filter(|(letter, _)| arm != "process" || *letter != 'I').collect(),
            subphases: vec![],
            end: EndReport::Exited(0),
            status: 0,
            memory: Some(Self::memory(arm)),
            cpu_ns: BTreeMap::new(),
            counters: BTreeMap::new(),
            clean_ns,
            detail,
        };
        let digest = "7e57".repeat(16);
        Ok(Execution {
            request_ns,
            report,
            stdout_sha256: digest.clone(),
            stderr_sha256: digest,
            complaint: None,
            conditions: Conditions::default(),
        })
    }
}

/// A record of these arms.
pub(crate) fn record(
    arms: &[&str],
    pairs: u32,
    class: HostClass,
    clock: ClockKind,
    jitter_permille: u64,
) -> Record {
    let names: Vec<String> = arms.iter().map(|arm| (*arm).to_owned()).collect();
    let plan = Plan::new(names.clone(), pairs, 1, 42).expect("a plan of known levels").with_control();
    let mut executor = Invented { rng: ChaCha8Rng::seed_from_u64(7), now_ns: 1_000_000_000, jitter_permille };
    let samples = measure(&plan, &mut executor, &mut Unobserved).samples;
    let mut host = Host::read(Path::new("/nonexistent"), class, clock);
    host.kernel = Some("6.12.0-synthetic".to_owned());
    host.cpu_model = Some("SYNTHETIC TEST DATA, no real machine".to_owned());
    host.cpus_online = Some(1);
    host.mem_total_bytes = Some(2 << 30);
    host.clocksource = Some("tsc".to_owned());
    host.cgroup.memory = Some("v2".to_owned());
    host.vulnerabilities.insert("spectre_v2".to_owned(), "Mitigation: Retpolines".to_owned());
    let tool = Tool {
        name: "isolab".to_owned(),
        version: "0.0.0-test".to_owned(),
        git: None,
        dirty: None,
        profile: "debug".to_owned(),
        digest: None,
    };
    let argv = ["isolab", "compare", "test-data"].map(str::to_owned).to_vec();
    let workload = Workload {
        name: "null".to_owned(),
        version: "0.0.0-test".to_owned(),
        binary_digest: None,
        image: "test-data".to_owned(),
        args: vec!["/isolab-work".to_owned(), "null".to_owned()],
        times_files: None,
    };
    let limited = |name: &String| {
        let mut arm = Arm::new(name);
        if name != "process" {
            (arm.cpus, arm.mem_limit_bytes) = (Some(1), Some(128 << 20));
        }
        (name.clone(), arm)
    };
    let arms: BTreeMap<String, Arm> = names.iter().map(limited).collect();
    let run = Run::starting_now(tool, argv, plan).expect("the kernel gives random bytes");
    Record::new(run, host, arms, workload, samples)
}
