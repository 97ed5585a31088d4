//! Level `container`: own namespaces, own cgroup, no capabilities, a seccomp filter; the host's kernel.

use isolab_bench::port::{HostStdio, Level, Running, StartError, Unavailable};
use isolab_container::cgroup::Limits;
use isolab_container::launch::{self, ContainerConfig, job_limits};
use isolab_images::job::Job;
use isolab_images::programs::INIT;

use super::started::Started;
use super::{Ends, Setup, detail_of, limits, namespaces, root_of};

/// Its name.
pub(super) const NAME: &str = "container";

/// The level.
#[derive(Debug)]
pub(super) struct Container(Setup);

impl Container {
    pub(super) const fn new(setup: Setup) -> Self {
        Self(setup)
    }
}

impl Level for Container {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), Unavailable> {
        namespaces()?;
        limits::check(self.0.asked)
    }

    fn start(&self, job: &Job, stdio: HostStdio) -> Result<Box<dyn Running>, StartError> {
        let (root, scratch) = root_of(&self.0)?;
        let mut detail = detail_of(job, &root);
        let ends = Ends::new(stdio)?;
        let limits = if self.0.knobs.limits { job_limits(job) } else { Limits::default() };
        let start = |limits| {
            let (stdio, tracer) = (ends.borrowed(), self.0.tracer);
            let config = ContainerConfig {
                job,
                root: &root,
                stdio,
                init: INIT,
                program: self.0.program,
                limits,
                tracer,
            };
            launch::start_with(&config, self.0.knobs.container)
        };
        let (instance, lost) = limits::start_with(limits, self.0.asked, start)?;
        detail.limits_not_enforced = lost;
        Ok(Box::new(Started::new(instance, scratch, detail)))
    }
}
