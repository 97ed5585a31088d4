//! From what was seen to a class and one sentence.

use super::{KvmAccess, KvmClass, KvmReport};

/// From this ratio to the host's loop on the guest is interpreted, not run.
const INTERPRETED: f64 = 3.0;

/// Sets class, reason and whether a guest kernel can run from the rest of the report.
pub(super) fn classify(report: &mut KvmReport, failed: Option<&str>) {
    let backend = report.module.as_deref().unwrap_or("its module");
    let (class, reason) = match (report.access, report.alu_ratio_user, report.alu_ratio_kernel) {
        (KvmAccess::Missing, ..) => (KvmClass::None, "there is no /dev/kvm".to_owned()),
        (KvmAccess::Denied, ..) => (KvmClass::None, "no permission to open /dev/kvm".to_owned()),
        (KvmAccess::Busy, ..) => {
            (KvmClass::None, "another hypervisor holds the processor's virtualisation".to_owned())
        }
        // Ring 3 ran and ring 0 did not: what gives up on kernel code is no hardware.
        (KvmAccess::Usable, Some(_), None) => {
            let what = failed.unwrap_or("the guest's loop at ring 0 did not run");
            (KvmClass::Software, format!("KVM ({backend}) can't run guest kernel code: {what}"))
        }
        (KvmAccess::Usable, _, Some(kernel)) => ran(report, backend, kernel),
        _ => (KvmClass::None, failed.unwrap_or("the probe's guest did not run").to_owned()),
    };
    report.runs_guest_kernel = report.access == KvmAccess::Usable
        && report.alu_ratio_kernel.is_some_and(|kernel| !interpreted(report, kernel));
    (report.class, report.reason) = (class, reason);
}

/// By time, or by KVM's own count of interpreted instructions.
fn interpreted(report: &KvmReport, kernel: f64) -> bool {
    kernel >= INTERPRETED
        || report.alu_ratio_user.is_some_and(|user| user >= INTERPRETED)
        || report.insn_emulation_per_kernel_insn.is_some_and(|count| count > 0.5)
}

/// Class and reason where the loop at ring 0 ran.
fn ran(report: &KvmReport, backend: &str, kernel: f64) -> (KvmClass, String) {
    if interpreted(report, kernel) {
        let mut reason = format!(
            "KVM ({backend}) interprets guest kernel code: ring 0 takes {kernel:.0} times the host's time"
        );
        if let Some(user) = report.alu_ratio_user {
            reason.push_str(&format!(", ring 3 {user:.2} times"));
        }
        return (KvmClass::Software, reason);
    }
    if report.hypervisor.as_deref().is_some_and(|signature| signature.starts_with("TCG")) {
        let reason = format!(
            "the processor itself is emulated by QEMU, KVM ({backend}) runs on it at ratio {kernel:.2}"
        );
        return (KvmClass::Software, reason);
    }
    if report.module.as_deref() == Some("kvm_pvm") {
        return (KvmClass::Software, "KVM works by page tables alone (kvm_pvm)".to_owned());
    }
    if report.two_dimensional_paging == Some(false) {
        return (KvmClass::Shadow, format!("KVM ({backend}) runs with second-level paging off"));
    }
    let flag = report.virt_flag.as_deref().unwrap_or("virtualisation");
    if report.hypervisor_bit {
        let below = report.hypervisor.as_deref().unwrap_or("unknown");
        let reason = format!(
            "{flag} is offered by a hypervisor below ({below}); guest code runs at ratio {kernel:.2}"
        );
        return (KvmClass::Nested, reason);
    }
    (KvmClass::Hardware, format!("{flag} of the processor; guest code runs at ratio {kernel:.2}"))
}
