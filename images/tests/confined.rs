//! What the registry client can't do any more once it has given up its rights. Includes the client's own code; it runs in a
//! process of its own.

#[allow(dead_code)] // A test has descriptors that it needs.
#[path = "../pull/src/confine.rs"]
mod confine;
#[path = "../pull/src/loopback.rs"]
mod loopback;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Set for the child: a directory that is not its working directory.
const OUTSIDE: &str = "ISOLAB_TEST_CONFINED_OUTSIDE";

/// The child: gives up its rights in its working directory. Does nothing in an ordinary run.
#[test]
fn gives_up_its_rights() {
    let Some(outside) = std::env::var_os(OUTSIDE) else { return };
    let was_root = rustix::process::geteuid().is_root();
    // Opened before: it is not in the working directory.
    let mut status = File::open("/proc/thread-self/status").expect("open");
    let limited = confine::confine(1000).expect("confined");
    let mut text = String::new();
    status.read_to_string(&mut text).expect("read");
    let line =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim().to_owned();
    assert_eq!(line("NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    if was_root {
        assert_eq!(line("CapBnd:"), "0000000000000000");
        assert_eq!(line("Uid:"), "65534\t65534\t65534\t65534");
        assert_eq!((line("Gid:"), line("Groups:")), ("65534\t65534\t65534\t65534".into(), String::new()));
    }
    fs::create_dir("blobs").expect("inside");
    fs::write("blobs/file", "x").expect("inside");
    assert_eq!(fs::read("blobs/file").expect("inside"), b"x");
    fs::read("/etc/hosts").expect("the resolver's");
    Command::new("/bin/true").spawn().expect_err("another program");
    if limited == landlock::RulesetStatus::NotEnforced {
        println!("skipped: this kernel has no Landlock");
    } else {
        fs::write(Path::new(&outside).join("file"), "x").expect_err("outside");
        fs::read("/etc/passwd").expect_err("not the resolver's");
    }
    println!("confined");
}

#[test]
fn a_confined_process_has_no_rights_outside_of_its_directory() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let outside = tempfile::tempdir().expect("temporary directory");
    // Open to everybody: what keeps the process out is not its user.
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).expect("permissions");
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args(["--exact", "gives_up_its_rights", "--nocapture", "--test-threads=1"])
        .env(OUTSIDE, outside.path())
        .current_dir(dir.path());
    let output = command.output().expect("started");
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("confined\n"), "{told}");
    if told.contains("skipped:") {
        println!("skipped: this kernel has no Landlock");
    }
    assert_eq!(fs::read_dir(outside.path()).expect("list").count(), 0);
}
