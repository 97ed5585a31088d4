//! Boots a kernel with an initramfs and an image, prints the marks and ends with the workload's status:
//! `boot KERNEL INITRAMFS IMAGE MIB CPUS [ARG...]`.
//!
//! With arguments, the control channel is a job that runs them, and stdin, stdout and stderr are the workload's.
//! Without, standard input is the control channel's bytes.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use isolab_images::job::{BlockOptions, Job, Stdio, User};
use isolab_vmm::{Begin, Boot, Discovery, Initramfs, VmConfig, run};
use isolab_wire::mark::{Code, Exit, Mark, RECORD_LEN};
use isolab_wire::trace::Tracer;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs, image, mib, cpus, argv @ ..] = &args[..] else {
        return Err("usage: boot KERNEL INITRAMFS IMAGE MIB CPUS [ARG...]".into());
    };
    let memory_bytes = mib.parse::<u64>()? << 20;
    let (mut marks, marks_in) = io::pipe()?;
    let (stdin, control) = if argv.is_empty() {
        (None, dup(io::stdin())?)
    } else {
        (Some(dup(io::stdin())?), job(memory_bytes, argv)?)
    };
    let (done, last) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut record = [0; RECORD_LEN];
        let mut first = None;
        while marks.read_exact(&mut record).is_ok() {
            if let Some(mark) = Mark::decode(&record) {
                let since = mark.stamp - *first.get_or_insert(mark.stamp);
                eprintln!("boot: {:?} value {} at {} us", mark.code, mark.value, since / 1000);
                if matches!(mark.code, Code::Exit | Code::Failed) {
                    let _listening = done.send(mark.value);
                }
            }
        }
    });
    let result = run(VmConfig {
        free_page_reporting: false,
        memory_bytes,
        cpus: cpus.parse()?,
        begin: Begin::Boot(Boot {
            kernel: File::open(kernel)?,
            discovery: Discovery::Acpi,
            initramfs: Initramfs::File(File::open(initramfs)?),
            template: None,
        }),
        image: File::open(image)?,
        stdin,
        stdout: dup(io::stdout())?,
        stderr: dup(io::stderr())?,
        control,
        marks: marks_in.into(),
        hold: None,
        tracer: Tracer::OFF,
        jail: None,
        console_log: std::env::var_os("BOOT_LOG").is_some(),
    });
    result.map_err(|e| chain(&e))?;
    let status = Exit::decode(last.recv()?).map_or(125, Exit::status);
    Ok(ExitCode::from(status))
}

/// The control channel of a job: its block waits in a pipe whose writer stays open as long as this process.
fn job(memory_bytes: u64, argv: &[String]) -> Result<OwnedFd, Box<dyn Error>> {
    let job = Job {
        image: String::new(),
        argv: argv.to_vec(),
        env: vec!["PATH=/bin:/usr/bin".into()],
        workdir: "/".into(),
        user: User::default(),
        hostname: "guest".into(),
        memory_bytes,
        cpus: 1,
        pids: 128,
        read_only: false,
        stdio: Stdio::Interactive,
        timeout: None,
        marks: true,
    };
    let block = job.encode(&BlockOptions::default())?;
    let (reader, mut writer) = io::pipe()?;
    std::thread::spawn(move || {
        let _written = writer.write_all(&block);
        std::thread::park();
    });
    Ok(reader.into())
}

fn dup(fd: impl std::os::fd::AsFd) -> io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
