use super::*;

fn seen(change: impl FnOnce(&mut KvmReport)) -> KvmReport {
    let measured = Measured {
        access: Some(KvmAccess::Usable),
        api_version: Some(12),
        ratio_user: Some(1.01),
        ratio_kernel: Some(1.02),
        ..Measured::default()
    };
    let mut report = describe(&measured);
    report.module = Some("kvm_amd".to_owned());
    report.virt_flag = Some("svm".to_owned());
    report.two_dimensional_paging = Some(true);
    change(&mut report);
    classify(&mut report, None);
    report
}

#[test]
fn classes_follow_the_evidence() {
    let metal = seen(|_| {});
    assert_eq!((metal.class, metal.runs_guest_kernel), (KvmClass::Hardware, true));
    let nested = seen(|r| (r.hypervisor_bit, r.hypervisor) = (true, Some("KVMKVMKVM".to_owned())));
    assert_eq!((nested.class, nested.runs_guest_kernel), (KvmClass::Nested, true));
    let shadow = seen(|r| r.two_dimensional_paging = Some(false));
    assert_eq!((shadow.class, shadow.runs_guest_kernel), (KvmClass::Shadow, true));
    let interpreted = seen(|r| r.alu_ratio_kernel = Some(4800.0));
    assert_eq!((interpreted.class, interpreted.runs_guest_kernel), (KvmClass::Software, false));
    let counted = seen(|r| r.insn_emulation_per_kernel_insn = Some(1.0));
    assert_eq!((counted.class, counted.runs_guest_kernel), (KvmClass::Software, false));
    let gave_up = seen(|r| r.alu_ratio_kernel = None);
    assert_eq!((gave_up.class, gave_up.runs_guest_kernel), (KvmClass::Software, false));
    let emulated = seen(|r| (r.hypervisor_bit, r.hypervisor) = (true, Some("TCGTCGTCGTCG".to_owned())));
    assert_eq!((emulated.class, emulated.runs_guest_kernel), (KvmClass::Software, true));
    let missing =
        seen(|r| (r.access, r.alu_ratio_user, r.alu_ratio_kernel) = (KvmAccess::Missing, None, None));
    assert_eq!((missing.class, missing.runs_guest_kernel), (KvmClass::None, false));
}

#[test]
fn errors_of_the_device_are_told_apart() {
    for (errno, access) in [
        (Errno::NOENT, KvmAccess::Missing),
        (Errno::NODEV, KvmAccess::Missing),
        (Errno::ACCESS, KvmAccess::Denied),
        (Errno::BUSY, KvmAccess::Busy),
        (Errno::NOMEM, KvmAccess::Broken),
    ] {
        assert_eq!(KvmAccess::from_errno(errno.raw_os_error()), access);
    }
}

#[test]
fn a_missing_device_and_a_false_one_are_reported() {
    let missing = probe_at(c"/nonexistent/kvm");
    assert_eq!((missing.class, missing.access), (KvmClass::None, KvmAccess::Missing));
    let null = probe_at(c"/dev/null");
    assert_eq!((null.class, null.access), (KvmClass::None, KvmAccess::Broken));
    assert!(null.reason.contains("/dev/null"), "{}", null.reason);
}

#[test]
fn reads_processor_flags() {
    let text =
        "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu svm hypervisor\n\nprocessor\t: 1\nflags\t\t: vmx\n";
    assert_eq!(cpu_flags(text), ["fpu", "svm", "hypervisor"]);
    assert!(cpu_flags("").is_empty());
    assert!(cpu_flags("flags").is_empty());
}

#[test]
fn report_survives_json() {
    let report = probe();
    let json = serde_json::to_string(report).unwrap();
    assert_eq!(serde_json::from_str::<KvmReport>(&json).unwrap(), *report);
}

/// The known answer of a KVM by page tables alone: user code native, kernel code interpreted one by one.
#[test]
fn page_table_kvm_is_software() {
    if !fs::exists("/sys/module/kvm_pvm").unwrap_or(false) || !fs::exists("/dev/kvm").unwrap_or(false) {
        println!("skipped: no kvm_pvm here");
        return;
    }
    let report = probe();
    println!("{report:#?}");
    assert_eq!(report.class, KvmClass::Software);
    assert!(!report.runs_guest_kernel);
    // A host that others slow down meanwhile has shown 2.0; interpreted code takes more than a hundred times as long.
    assert!(report.alu_ratio_user.is_some_and(|r| (0.1..10.0).contains(&r)), "{report:?}");
    assert!(report.alu_ratio_kernel.is_some_and(|r| r > 100.0), "{report:?}");
    assert!(report.insn_emulation_per_kernel_insn.is_some_and(|n| (0.9..1.5).contains(&n)), "{report:?}");
    assert_eq!(report.api_version, Some(12));
}

/// The quick answer is the whole probe's, wherever the tests run.
#[test]
fn quick_answer_agrees() {
    assert_eq!(quick().runs_guest_kernel, probe().runs_guest_kernel);
    let alone = probe_with(c"/dev/kvm", QUICK);
    println!("quick probe took {} us", alone.elapsed_ns / 1000);
    assert_eq!(alone.runs_guest_kernel, probe().runs_guest_kernel);
}

/// A guest that never comes back is interrupted, and its thread ends.
#[test]
fn endless_guest_is_stopped() {
    let Ok(kvm) = Kvm::new() else {
        println!("skipped: no usable /dev/kvm");
        return;
    };
    let begin = Instant::now();
    let limit = Duration::from_millis(40);
    let measured = watched(limit, move |stop| {
        let endless =
            || -> Result<(), GuestError> { Machine::new(&kvm)?.vcpu(&kvm, 3)?.round(1 << 60, stop) };
        Measured { failed: endless().err().map(|e| e.to_string()), ..Measured::default() }
    });
    assert_eq!(measured.failed.as_deref(), Some("the guest at ring 3 did not answer in time"));
    assert!(begin.elapsed() >= limit);
}

/// Wherever KVM answers, the answer comes in time.
#[test]
fn probe_is_quick() {
    let report = probe_at(c"/dev/kvm");
    assert!(Duration::from_nanos(report.elapsed_ns) < HANG + Duration::from_secs(2), "{report:?}");
}

/// `mov ecx, [COUNT]; rdmsr; out PORT, al; jmp` to the start.
const READ_REGISTER: [u8; 13] =
    [0x8b, 0x0c, 0x25, 0x00, 0x70, 0x00, 0x00, 0x0f, 0x32, 0xe6, 0xf0, 0xeb, 0xf3];

#[test]
fn a_guest_that_reads_a_register_outside_of_the_list_faults() {
    let Ok(kvm) = Kvm::new() else {
        println!("skipped: no usable /dev/kvm");
        return;
    };
    // A fault ends this guest: it has no table of handlers.
    let reads = |msr: u64, filtered: bool| {
        let machine = guest::Machine::with(&kvm, &READ_REGISTER).unwrap();
        if filtered {
            crate::arch::msr::filter(machine.vm()).unwrap();
        }
        machine.vcpu(&kvm, 0).unwrap().round(msr, &AtomicBool::new(false))
    };
    // Page attributes; the unit of the host's energy counters, which KVM itself lets everybody read.
    let (listed, other) = (0x277, 0x606);
    reads(listed, true).unwrap();
    reads(other, false).unwrap();
    let refused = reads(other, true).unwrap_err();
    assert!(matches!(&refused, guest::GuestError::Exit { exit, .. } if exit == "Shutdown"), "{refused}");
}
