//! KVM's counters of a machine that is measured, read when its guest is ready and at its end.

use std::fs::File;
use std::os::unix::fs::FileExt;

use isolab_wire::trace::{Counter, Tracer, When};
use kvm_ioctls::VcpuFd;

use crate::probe::{stats_file, stats_value};

/// More than any kernel's statistics file holds.
const MAX_LEN: usize = 128 * 1024;

/// The statistics files of all processors; empty where nobody measures or KVM has none (before Linux 5.14).
#[derive(Debug)]
pub(crate) struct Statistics {
    files: Vec<File>,
    tracer: Tracer,
}

impl Statistics {
    /// Opens them, where somebody measures.
    pub(crate) fn open(vcpus: &[VcpuFd], tracer: Tracer) -> Self {
        let measured = tracer.trace().is_some();
        let files = vcpus.iter().filter(|_| measured).map_while(|vcpu| stats_file(vcpu).ok()).collect();
        Self { files, tracer }
    }

    /// Reads them into the trace: sums over all processors; unknown where one of them does not tell.
    pub(crate) fn read(&self, when: When) {
        let Some(trace) = self.tracer.trace().filter(|_| !self.files.is_empty()) else { return };
        let mut sums = Counter::ALL.iter().map(|_| Some(0_u64)).collect::<Vec<_>>();
        let mut bytes = vec![0; MAX_LEN];
        for file in &self.files {
            let len = file.read_at(&mut bytes, 0).unwrap_or(0);
            for (sum, counter) in sums.iter_mut().zip(Counter::ALL) {
                let value = bytes.get(..len).and_then(|b| stats_value(b, counter.statistic()));
                *sum = sum.zip(value).map(|(sum, value)| sum.saturating_add(value));
            }
        }
        for (sum, counter) in sums.into_iter().zip(Counter::ALL) {
            trace.set_counter(when, *counter, sum);
        }
    }
}
