//! Level `process`: the image as its root directory, nothing else. The floor of every comparison.

use isolab_bench::port::{HostStdio, Level, Running, StartError, Unavailable};
use isolab_container::bare::{self, BareConfig};
use isolab_container::cgroup::Limits;
use isolab_images::job::{Job, Stdio};

use super::started::Started;
use super::{Ends, Setup, detail_of, explained, namespaces, root_of};

/// Its name.
pub(super) const NAME: &str = "process";

/// The level.
#[derive(Debug)]
pub(super) struct Process(Setup);

impl Process {
    pub(super) const fn new(setup: Setup) -> Self {
        Self(setup)
    }
}

impl Level for Process {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), Unavailable> {
        namespaces()
    }

    fn start(&self, job: &Job, stdio: HostStdio) -> Result<Box<dyn Running>, StartError> {
        let (root, scratch) = root_of(&self.0)?;
        let detail = detail_of(job, &root);
        let terminal = match (job.stdio, &stdio.stdin) {
            (Stdio::Terminal { .. }, Some(terminal)) => Some(terminal.try_clone()?),
            _ => None,
        };
        let ends = Ends::new(stdio)?;
        // No limits: this level shares everything. The cgroup is made all the same, to read the charge.
        let (stdio, tracer) = (ends.borrowed(), self.0.tracer);
        let config = BareConfig {
            job,
            root: &root,
            program: self.0.program,
            stdio,
            limits: Limits::default(),
            tracer,
        };
        let instance = bare::start(&config).map_err(explained)?;
        Ok(Box::new(Started::new(instance, scratch, detail).with_terminal(terminal)))
    }
}
