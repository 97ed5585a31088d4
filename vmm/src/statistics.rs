//! Counters of a machine that is measured, read when its guest is ready and at its end: KVM's, and the monitor's own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use isolab_wire::trace::{Counter, Tracer, When};
use kvm_ioctls::VcpuFd;

use crate::probe::{stats_file, stats_value};

/// More than any kernel's statistics file holds.
const MAX_LEN: usize = 128 * 1024;

/// The statistics files of all processors; empty where nobody measures or KVM has none (before Linux 5.14).
#[derive(Debug)]
pub(crate) struct Statistics {
    files: Vec<File>,
    unowned: AtomicU64,
    tracer: Tracer,
}

impl Statistics {
    /// Opens them, where somebody measures.
    pub(crate) fn open(vcpus: &[VcpuFd], tracer: Tracer) -> Self {
        let measured = tracer.trace().is_some();
        let files = vcpus.iter().filter(|_| measured).map_while(|vcpu| stats_file(vcpu).ok()).collect();
        Self { files, unowned: AtomicU64::new(0), tracer }
    }

    /// Counts an access to what belongs to no device.
    pub(crate) fn count_unowned(&self) {
        self.unowned.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads them into the trace: sums over all processors; unknown where one of them does not tell.
    pub(crate) fn read(&self, when: When) {
        let Some(trace) = self.tracer.trace() else { return };
        trace.set_counter(when, Counter::Unowned, Some(self.unowned.load(Ordering::Relaxed)));
        if self.files.is_empty() {
            return;
        }
        let of_kvm = || Counter::ALL.iter().filter(|counter| !counter.statistic().is_empty());
        let mut sums = of_kvm().map(|_| Some(0_u64)).collect::<Vec<_>>();
        let mut bytes = vec![0; MAX_LEN];
        for file in &self.files {
            let len = file.read_at(&mut bytes, 0).unwrap_or(0);
            for (sum, counter) in sums.iter_mut().zip(of_kvm()) {
                let value = bytes.get(..len).and_then(|b| stats_value(b, counter.statistic()));
                *sum = sum.zip(value).map(|(sum, value)| sum.saturating_add(value));
            }
        }
        for (sum, counter) in sums.into_iter().zip(of_kvm()) {
            trace.set_counter(when, *counter, sum);
        }
    }
}
