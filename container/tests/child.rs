//! A child that goes on in the launcher's program, as a virtual machine monitor does.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use isolab_container::child::{SpawnOptions, keep_only, spawn};
use rustix::io::fcntl_dupfd_cloexec;

#[test]
fn a_child_keeps_only_the_descriptors_that_it_was_to_keep() {
    // What would be worth having: a directory and a file of the host, closed by exec and not.
    let bait = ["/", "/etc/passwd", "/"].map(|path| File::open(path).expect("open"));
    rustix::io::fcntl_setfd(&bait[0], rustix::io::FdFlags::empty()).expect("inheritable");
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
    let kept = fcntl_dupfd_cloexec(&write, 40).expect("a descriptor");
    let more = fcntl_dupfd_cloexec(&bait[1], 60).expect("a descriptor");
    let held = spawn(&SpawnOptions::default(), |_handed| {
        if keep_only(&[more.as_fd(), kept.as_fd()]).is_err() {
            return 1;
        }
        let mut numbers: Vec<u32> = std::fs::read_dir("/proc/self/fd")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        i32::from(rustix::io::write(&kept, format!("{numbers:?}").as_bytes()).is_err())
    });
    let mut child = held.expect("spawn").release(None, &[]).expect("release");
    drop((write, kept));
    let mut said = String::new();
    File::from(read).read_to_string(&mut said).expect("read");
    assert_eq!(child.wait().expect("wait").exit_status(), Some(0));
    // 3 is the directory of the list itself.
    assert_eq!(said, "[0, 1, 2, 3, 40, 60]");
}
