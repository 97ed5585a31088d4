//! x86-64: processor state, ACPI and multiprocessor tables, boot parameters.

pub(crate) mod acpi;
pub(crate) mod boot_params;
pub(crate) mod cpuid;
pub(crate) mod mptable;
pub(crate) mod regs;

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
    /// The list of features has no room.
    #[error("cpuid table is full")]
    CpuidFull,
}
