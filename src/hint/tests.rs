use super::*;

fn report(change: impl FnOnce(&mut KvmReport)) -> KvmReport {
    let mut report = KvmReport {
        class: KvmClass::Software,
        reason: "KVM (kvm_pvm) interprets".to_owned(),
        access: KvmAccess::Usable,
        runs_guest_kernel: false,
        module: Some("kvm_pvm".to_owned()),
        two_dimensional_paging: None,
        hypervisor_bit: true,
        hypervisor: None,
        virt_flag: None,
        alu_ratio_user: Some(1.03),
        alu_ratio_kernel: Some(4800.4),
        exit_roundtrip_ns_p50: Some(6800),
        insn_emulation_per_exit: Some(1.0),
        insn_emulation_per_kernel_insn: Some(1.0),
        api_version: Some(12),
        elapsed_ns: 1,
    };
    change(&mut report);
    report
}

#[test]
fn software_kvm_sends_to_the_lab_in_one_line() {
    let hint = vm_on_host(&report(|_| {})).unwrap();
    let line = hint.to_string();
    assert!(
        line.contains("kvm_pvm") && line.contains("about 4800 times") && line.contains("--on lab"),
        "{line}"
    );
    assert!(!line.contains('\n') && !line.ends_with('.'));
}

#[test]
fn each_failure_of_the_device_has_its_own_sentence() {
    let of = |access| vm_on_host(&report(|r| r.access = access)).unwrap().reason;
    assert!(of(KvmAccess::Missing).contains("no /dev/kvm"));
    assert!(of(KvmAccess::Denied).contains("permission"));
    assert!(of(KvmAccess::Busy).contains("another hypervisor"));
    assert!(of(KvmAccess::Broken).contains("does not work"));
}

#[test]
fn hardware_needs_no_hint() {
    let metal = report(|r| (r.class, r.runs_guest_kernel) = (KvmClass::Hardware, true));
    assert_eq!(vm_on_host(&metal), None);
    assert_eq!(vm_caveat(&metal, false), None);
    assert_eq!(host_class(&metal, false), "hardware");
}

#[test]
fn lab_is_named_only_where_a_guest_kernel_runs() {
    let tcg = report(|r| r.runs_guest_kernel = true);
    assert_eq!(host_class(&tcg, true), "emulated-lab");
    assert_eq!(host_class(&tcg, false), "software");
    assert_eq!(host_class(&report(|_| {}), true), "software");
    assert!(vm_on_host(&tcg).is_none());
    assert!(vm_caveat(&tcg, true).unwrap().reason.contains("lab"));
}
