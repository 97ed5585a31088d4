//! The account of an instance at one moment: what its cgroup is charged, what its processes say, what KVM counted.
//!
//! Read while the workload waits. Order: `/proc` of each process, whose reading costs the reader and not the instance; the
//! cgroup is settled, so that its counters say what is used; the charge and its parts are read.

use isolab_wire::trace::{Counter, Trace, When};

use crate::cgroup::{Cgroup, CgroupError, MemoryReading};
use crate::processes::Processes;

/// Numbers by the record's key.
pub type Numbers = Vec<(&'static str, u64)>;

/// The account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The charge and its parts; nothing without a memory controller.
    pub memory: Option<MemoryReading>,
    /// CPU time in nanoseconds.
    pub cpu_ns: Numbers,
    /// Counters.
    pub counters: Numbers,
}

impl Account {
    /// Reads it. `child`: the instance's first process, of which it consists where there is no cgroup; `trace`: where a VMM
    /// published its guest RAM. `settled`: the workload waits, so that the cgroup may be settled.
    ///
    /// # Errors
    /// Settling left the cgroup other than it was.
    pub fn read(
        cgroup: Option<&Cgroup>,
        child: i32,
        trace: Option<&Trace>,
        settled: bool,
    ) -> Result<Self, CgroupError> {
        let pids = cgroup.map(Cgroup::pids).filter(|pids| !pids.is_empty()).unwrap_or_else(|| vec![child]);
        let ram: Vec<(u64, u64)> = trace.into_iter().flat_map(Trace::ram).collect();
        let of_cgroup = cgroup.and_then(Cgroup::cpu_ns);
        let processes = Processes::read(&pids, child, &ram);
        if let Some(cgroup) = cgroup.filter(|_| settled) {
            cgroup.settle()?;
        }
        let mut memory = cgroup.and_then(|cgroup| cgroup.read_memory().ok().flatten());
        if let Some(memory) = &mut memory {
            memory.parts.extend(parts(&processes, memory));
        }
        let cpu_ns = [
            ("instance", of_cgroup.or(processes.cpu_ns)),
            ("tasks", processes.cpu_ns),
            ("kernel_threads", processes.kernel_cpu_ns),
        ];
        let counters = [
            ("minflt", processes.minflt),
            ("majflt", processes.majflt),
            ("nvcsw", processes.nvcsw),
            ("nivcsw", processes.nivcsw),
            ("processes", Some(processes.processes)),
            ("threads", Some(processes.threads)),
        ];
        Ok(Self {
            memory,
            cpu_ns: known(&cpu_ns),
            counters: known(&counters).into_iter().chain(of_kvm(trace, When::Ready)).collect(),
        })
    }

    /// Adds what was counted up to the guest's last mark: by KVM from the moment on when it was ready, and accesses to no device in all.
    pub fn add_end(&mut self, trace: Option<&Trace>) {
        let at = |when, counter| trace?.counter(when, counter);
        let [before, io] = [When::Ready, When::End].map(|when| at(when, Counter::IoExits));
        let after = io.zip(before).and_then(|(io, before)| io.checked_sub(before));
        self.counters.extend(after.map(|n| ("io_exits_after_ready", n)));
        self.counters.retain(|(key, _)| *key != Counter::Unowned.key());
        self.counters.extend(at(When::End, Counter::Unowned).map(|n| (Counter::Unowned.key(), n)));
    }

    /// Adds what the kernel inside says of its RAM, in KiB: all of it, and what is free. In an instance that shares the
    /// host's kernel that is the host's RAM, whatever its limit.
    pub fn add_claims(&mut self, [ram, free]: [Option<u32>; 2]) {
        let bytes = |kib: Option<u32>| kib.map(|kib| u64::from(kib) << 10);
        if let Some(memory) = &mut self.memory {
            memory.parts.extend(known(&[("claimed_ram", bytes(ram)), ("claimed_free", bytes(free))]));
        }
    }
}

fn known(numbers: &[(&'static str, Option<u64>)]) -> Numbers {
    numbers.iter().filter_map(|(key, n)| Some((*key, (*n)?))).collect()
}

/// What KVM counted.
fn of_kvm(trace: Option<&Trace>, when: When) -> impl Iterator<Item = (&'static str, u64)> {
    Counter::ALL.iter().filter_map(move |c| Some((c.key(), trace?.counter(when, *c)?)))
}

/// What the processes add to the parts of a charge.
fn parts(processes: &Processes, memory: &MemoryReading) -> Numbers {
    let has = |key| memory.parts.iter().any(|(known, _)| *known == key);
    let tables = processes.page_tables.filter(|_| !has("host_page_tables"));
    let other = processes.guest_ram.zip(memory.anon_bytes).and_then(|(ram, anon)| anon.checked_sub(ram));
    known(&[
        ("rss", processes.rss),
        ("pss", processes.pss),
        ("uss", processes.uss),
        ("host_page_tables", tables),
        ("guest_ram_resident", processes.guest_ram),
        ("vmm_anon", other),
    ])
}
