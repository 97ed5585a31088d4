//! x86-64: processor state and its storing, ACPI and multiprocessor tables, boot parameters.

pub(crate) mod acpi;
pub(crate) mod boot_params;
pub(crate) mod cpuid;
pub(crate) mod mptable;
pub(crate) mod msr;
pub(crate) mod regs;
pub(crate) mod state;

/// Preparing the processors or their tables failed.
#[derive(Debug, thiserror::Error)]
pub enum ArchError {
    /// A table does not fit or can't be written.
    #[error("write {table} to guest memory: {reason}")]
    Write {
        /// Which table.
        table: &'static str,
        /// Why.
        reason: String,
    },
    /// KVM refused a piece of processor state.
    #[error("set {state} of cpu {cpu}")]
    State {
        /// Which piece.
        state: &'static str,
        /// Which processor.
        cpu: u8,
        /// Why.
        source: kvm_ioctls::Error,
    },
    /// KVM does not tell a piece of processor state.
    #[error("read {state} of cpu {cpu}")]
    Read {
        /// Which piece.
        state: &'static str,
        /// Which processor.
        cpu: u8,
        /// Why.
        source: kvm_ioctls::Error,
    },
    /// A model-specific register can't have its value.
    #[error("set model-specific register {index:#x} of cpu {cpu}")]
    Msr {
        /// Which register.
        index: u32,
        /// Which processor.
        cpu: u8,
    },
    /// KVM is older than Linux 5.10.
    #[error("this host's KVM has no filter of model-specific registers; use a kernel from 5.10 on")]
    NoMsrFilter,
    /// KVM refused the filter.
    #[error("filter the guest's model-specific registers")]
    MsrFilter(#[source] kvm_ioctls::Error),
    /// The list of features has no room.
    #[error("cpuid table is full")]
    CpuidFull,
}
