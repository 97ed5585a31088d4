//! Boots a kernel with an initramfs and an image, and prints the marks: `boot KERNEL INITRAMFS IMAGE [MIB] [CPUS]`.
//!
//! Standard input is the control channel's bytes; the guest's stdout and stderr are this program's.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use isolab_vmm::{Initramfs, VmConfig, run};
use isolab_wire::mark::{Code, Mark, RECORD_LEN};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initramfs, image, numbers @ ..] = &args[..] else {
        return Err("usage: boot KERNEL INITRAMFS IMAGE [MIB] [CPUS]".into());
    };
    let number = |i: usize, default: u64| numbers.get(i).map_or(Ok(default), |n| n.parse());
    let (mut marks, marks_in) = io::pipe()?;
    let stdin = match std::env::var("BOOT_STDIN") {
        Ok(path) => Some(OwnedFd::from(File::open(path)?)),
        Err(_) => None,
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
        memory_bytes: number(0, 128)? << 20,
        cpus: u8::try_from(number(1, 1)?)?,
        kernel: File::open(kernel)?,
        initramfs: Initramfs::File(File::open(initramfs)?),
        image: File::open(image)?,
        stdin,
        stdout: dup(io::stdout())?,
        stderr: dup(io::stderr())?,
        control: dup(io::stdin())?,
        marks: marks_in.into(),
        console_log: std::env::var_os("BOOT_LOG").is_some(),
    });
    result.map_err(|e| chain(&e))?;
    last.recv()?;
    Ok(())
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
