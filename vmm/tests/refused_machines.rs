//! What can be refused is refused before KVM is opened: these hold on any host, with or without it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use isolab_vmm::{
    Begin, Boot, Discovery, Initramfs, InitramfsError, KernelError, VmConfig, VmError, least_memory, run,
};
use isolab_wire::trace::Tracer;

const MIB: u64 = 1 << 20;

fn file(bytes: &[u8]) -> File {
    let file = File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd"));
    file.write_all_at(bytes, 0).expect("write");
    file
}

/// The header of a bzImage that wants 50 MiB from 16 MiB on, as a distribution's does.
fn kernel() -> Vec<u8> {
    let mut bytes = vec![0; 5 * 512 + 4096];
    bytes[0x1f1] = 4;
    bytes[0x1f4..0x1f8].copy_from_slice(&256_u32.to_le_bytes());
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    bytes[0x211] = 1;
    bytes[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    bytes[0x234] = 1;
    bytes[0x236] = 1;
    bytes[0x258..0x260].copy_from_slice(&(16 * MIB).to_le_bytes());
    bytes[0x260..0x264].copy_from_slice(&(50_u32 << 20).to_le_bytes());
    bytes
}

fn config(kernel: &[u8]) -> VmConfig {
    let null = || File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
    let (control, _) = io::pipe().expect("pipe");
    VmConfig {
        free_page_reporting: false,
        memory_bytes: 128 * MIB,
        cpus: 1,
        begin: Begin::Boot(Boot {
            kernel: file(kernel),
            discovery: Discovery::Acpi,
            initramfs: Initramfs::Bytes(vec![0; 1 << 20]),
            template: None,
        }),
        image: file(&[0; 4096]),
        stdin: None,
        stdout: null().into(),
        stderr: null().into(),
        control: control.into(),
        marks: null().into(),
        hold: None,
        tracer: Tracer::OFF,
        jail: None,
        console_log: false,
    }
}

#[test]
fn number_of_cpus_is_checked() {
    for cpus in [0, 9, 255] {
        let result = run(VmConfig { cpus, ..config(&kernel()) });
        assert!(matches!(result, Err(VmError::Cpus { cpus: n }) if n == cpus));
    }
}

#[test]
fn a_file_that_is_no_kernel_is_named_so() {
    let error = run(config(b"#!/bin/sh\nexit 0\n")).expect_err("a script was started as a kernel");
    assert!(matches!(error, VmError::Kernel(KernelError::Format)));
    assert_eq!(error.to_string(), "not a kernel: neither a bzImage nor an ELF file for x86-64");
}

#[test]
fn a_kernel_cut_short_is_named_so() {
    let error = run(config(&kernel()[..4096])).expect_err("half a kernel was started");
    let wanted = "kernel file is cut short: it has 4096 bytes and its header promises 6656";
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn too_little_memory_is_refused_with_the_least_that_is_accepted() {
    let error = run(VmConfig { memory_bytes: MIB, ..config(&kernel()) }).expect_err("1 MiB was accepted");
    let VmError::Initramfs(InitramfsError::Memory { has, needed }) = error else { panic!("{error}") };
    let info = isolab_vmm::check_kernel(&file(&kernel())).expect("a whole kernel");
    let least = least_memory(&info, &Initramfs::Bytes(vec![0; 1 << 20])).expect("a length");
    assert_eq!((has, needed, needed), (MIB, least, 68 * MIB));
    assert!(error_text(MIB).contains("at least 68 MiB are needed"));
    // One page less is refused too.
    assert!(error_text(least - 4096).contains("at least 68 MiB"));
}

fn error_text(memory_bytes: u64) -> String {
    run(VmConfig { memory_bytes, ..config(&kernel()) })
        .expect_err("too little memory was accepted")
        .to_string()
}
