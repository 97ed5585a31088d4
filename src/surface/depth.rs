//! How deep it goes, coarsely: the static tracepoints of the host's kernel that each party passes in one more run, in which all of them
//! are on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, bail};
use isolab_bench::surface::{Depth, Party, Points};
use rustix::fs::OFlags;

use super::instance::Instance;
use super::pages::{self, Known, PAGE, Passed};
use super::tally::{Launcher, Roles, Shape};

/// Not switched on: each system call once more by its name, and what the kernel's own tracers write.
const LEFT_OUT: [&str; 2] = ["syscalls", "ftrace"];
/// More pages than one processor's buffer has.
const MOST_PAGES: usize = 1 << 16;

/// The tracepoints that this kernel has.
#[derive(Debug)]
pub(super) struct Tracepoints {
    names: BTreeMap<u16, String>,
    /// The parts of the kernel that they belong to.
    systems: Vec<String>,
    known: Known,
}

impl Tracepoints {
    /// Reads them, with the numbers that their records have.
    ///
    /// # Errors
    /// The kernel's trace can't be read, or lacks those that tell whose task it is.
    pub(super) fn read(instance: &Instance) -> anyhow::Result<Self> {
        let mut names = BTreeMap::new();
        let mut systems = BTreeSet::new();
        for system in fs::read_dir(instance.dir().join("events")).context("read the tracepoints")? {
            let system = system.context("read the tracepoints")?;
            let of = system.file_name().to_string_lossy().into_owned();
            if LEFT_OUT.contains(&of.as_str()) || !system.path().is_dir() {
                continue;
            }
            for event in fs::read_dir(system.path()).context("read the tracepoints")?.flatten() {
                let Ok(number) = fs::read_to_string(event.path().join("id")) else { continue };
                let number = number.trim().parse().context("read the number of a tracepoint")?;
                names.insert(number, format!("{of}:{}", event.file_name().to_string_lossy()));
                systems.insert(of.clone());
            }
        }
        let number = |name: &str| {
            let found = names.iter().find(|(_, known)| *known == name).map(|(number, _)| *number);
            found.with_context(|| format!("the kernel has no tracepoint {name}"))
        };
        let known = Known {
            enter: number("raw_syscalls:sys_enter")?,
            exit: number("raw_syscalls:sys_exit")?,
            fork: number("task:task_newtask")?,
        };
        Ok(Self { systems: systems.into_iter().collect(), names, known })
    }

    /// Traces this thread and all that it starts from now on, by all of them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn start(&self, instance: &Instance) -> anyhow::Result<()> {
        instance.start()?;
        self.systems.iter().try_for_each(|system| instance.set(&format!("events/{system}/enable"), "1"))
    }

    /// Stops.
    ///
    /// # Errors
    /// The kernel refuses, or records were lost.
    pub(super) fn stop(&self, instance: &Instance) -> anyhow::Result<()> {
        // Each, whatever becomes of the others; the system calls with those that are on in every run.
        let systems = self.systems.iter().filter(|system| *system != "raw_syscalls");
        let off = systems.map(|system| instance.set(&format!("events/{system}/enable"), "0"));
        let off: Vec<anyhow::Result<()>> = off.collect();
        let stopped = instance.stop_without_text();
        off.into_iter().collect::<anyhow::Result<()>>().and(stopped)
    }

    /// What was passed, by party.
    ///
    /// # Errors
    /// The buffers can't be read, or don't hold the command's beginning.
    pub(super) fn passed(
        &self,
        instance: &Instance,
        shape: Shape,
        launcher: Launcher,
    ) -> anyhow::Result<Depth> {
        let mut records = Vec::new();
        for cpu in fs::read_dir(instance.dir().join("per_cpu")).context("read the trace")? {
            let path = cpu.context("read the trace")?.path().join("trace_pipe_raw");
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            let mut pipe = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
            let mut page = [0; PAGE];
            for _ in 0..MOST_PAGES {
                match pipe.read(&mut page) {
                    Ok(0) => break,
                    Ok(n) => records.extend(pages::read(&page[..n], self.known)?),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("read the trace"),
                }
            }
        }
        // The processors have one clock.
        records.sort_by_key(|record| record.at);
        self.put_down(&records, shape, launcher)
    }

    fn put_down(&self, records: &[Passed], shape: Shape, launcher: Launcher) -> anyhow::Result<Depth> {
        let mut roles = Roles::new(shape, launcher);
        let mut found: BTreeMap<Party, BTreeSet<&str>> = BTreeMap::new();
        for record in records {
            if let Some(event) = record.event() {
                roles.learn(event.task, &event.what);
            }
            if let (Some(party), Some(name)) = (roles.party(record.task), self.names.get(&record.number)) {
                found.entry(party).or_default().insert(name);
            }
        }
        if !roles.command_began {
            bail!("the trace does not hold the beginning of the command");
        }
        let points = |(party, names): (Party, BTreeSet<&str>)| Points {
            party,
            tracepoints: names.into_iter().map(str::to_owned).collect(),
        };
        let passed = found.into_iter().map(points).collect();
        Ok(Depth { known: self.names.len(), passed, not_measured: None })
    }
}

/// Why there is none.
pub(super) fn not_measured(why: &anyhow::Error) -> Depth {
    Depth { known: 0, passed: vec![], not_measured: Some(format!("{why:#}")) }
}

#[cfg(test)]
mod tests {
    use super::super::events::What;
    use super::*;

    #[test]
    fn tracepoints_are_of_the_command_from_its_beginning_on() {
        let known = Known { enter: 1, exit: 2, fork: 3 };
        let names = [(1, "raw_syscalls:sys_enter"), (2, "raw_syscalls:sys_exit"), (9, "kmem:mm_page_alloc")];
        let names = names.map(|(number, name)| (number, name.to_owned())).into();
        let points = Tracepoints { names, systems: vec![], known };
        let record = |at, number, task, what| Passed { at, number, task, what };
        let exec = |at, task| record(at, 2, task, Some(What::Exit { number: 59, value: 0 }));
        let records = [
            record(1, 3, 1, Some(What::Fork { child: 10 })),
            exec(2, 10),
            record(3, 1, 10, Some(What::Enter { number: 1, arguments: [0; 3] })),
            exec(4, 10),
            record(5, 9, 10, None),
            // Of nobody's.
            record(6, 9, 77, None),
            // Unknown.
            record(7, 500, 10, None),
        ];
        let depth = points
            .put_down(&records, Shape::Programs(1), Launcher::StartedBy(1))
            .expect("the command's beginning");
        let of = |party| {
            let found = depth.passed.iter().find(|points| points.party == party);
            found.expect("a party").tracepoints.clone()
        };
        assert_eq!(of(Party::Workload), ["kmem:mm_page_alloc", "raw_syscalls:sys_exit"]);
        assert_eq!(of(Party::Isolab), ["raw_syscalls:sys_enter", "raw_syscalls:sys_exit"]);
        points.put_down(&records[..2], Shape::Programs(1), Launcher::StartedBy(1)).expect_err("no command");
    }
}
