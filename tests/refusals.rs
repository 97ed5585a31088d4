//! Bad input: one clear line that names the thing and the remedy, status 125, nothing changed.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{binary, home, isolab, run};

#[test]
fn bad_input_is_refused_with_one_line_and_125() {
    assert_eq!(run(&["run", "demo"]).status, Some(0));
    let before = store();
    let long = "a".repeat(65);
    let table: &[(&[&str], &str)] = &[
        (&["run", "no-such-image"], "no-such-image"),
        (&["run", "--memory", "1M", "demo"], "--memory"),
        (&["run", "--memory", "lots", "demo"], "--memory"),
        (&["run", "--cpus", "0", "demo"], "--cpus"),
        (&["run", "--cpus", "9", "demo"], "--cpus"),
        (&["run", "--cpus", "0.5", "demo"], "a whole number from 1 to 8"),
        (&["run", "--pids", "1", "demo"], "--pids"),
        (
            &["run", "--free-page-reporting", "demo"],
            "no effect at level container; leave it out, or use --level vm",
        ),
        (&["run", "--guest-console", "demo"], "use --level vm"),
        (&["compare", "--json", "/", "demo"], "it is a directory"),
        (&["compare", "--json", "-", "--html", "-", "demo"], "each its own file"),
        (&["run", "dmeo"], "did you mean demo"),
        (&["run", "--memori", "1G", "demo"], "'--memory'"),
        (&["run", "--on", "moon", "demo"], "host, lab, auto"),
        (&["run"], "<IMAGE>"),
        (&["run", "demo", "/isolab-work", "null"], "what is run goes after `--`"),
        (&["image", "export", "demo", "demo.tar"], "give the file with -o"),
        (&["run", "--memory", "128", "demo"], "128M?"),
        (&["compare", "--pears", "3", "demo"], "'--pairs'"),
        (&["compare", "--pairs", "0", "demo"], "--pairs"),
        (&["kernel", "add", "/dev/null", "--name", "x"], "/dev/null"),
        (&["kernel", "add", "/no/such/file", "--name", "x"], "/no/such/file"),
        (&["run", "--on", "host", "--level", "vm", "--kernel", "no-such-kernel", "demo"], "isolab"),
        (&["run", "--level", "unikernel", "demo"], "process, container, vm"),
        (&["run", "--env", "novalue", "demo"], "--env"),
        (&["run", "--workdir", "here", "demo"], "--workdir"),
        (&["run", "--hostname", "", "demo"], "--hostname"),
        (&["run", "--hostname", "../x", "demo"], "--hostname"),
        (&["run", "--hostname", "a b", "demo"], "--hostname"),
        (&["run", "--hostname", "a\nb", "demo"], "--hostname"),
        (&["run", "--hostname", &long, "demo"], "--hostname"),
        (&["run", "--user", "nobody-here", "demo"], "nobody-here"),
        (&["run", "--timeout", "0", "demo"], "--timeout"),
        (&["run", "-t", "demo"], "-t"),
        (&["image", "import", "/no/such/file"], "/no/such/file"),
        (&["image", "import", "-"], "standard input"),
        (&["image", "import", "/dev/null"], "/dev/null"),
        (&["image", "build", "nosuch"], "nosuch"),
        (&["image", "rm", "no-such-image"], "no-such-image"),
        (&["kernel", "inspect", "no-such-kernel"], "no-such-kernel"),
        (&["kernel", "inspect", "../stock"], "can't be a kernel name"),
        (&["kernel", "rm", "../stock"], "can't be a kernel name"),
        (&["snapshot", "rm", "../images"], "isolab snapshot ls"),
        (&["kernel", "add", "/etc/passwd", "--name", "x"], "/etc/passwd"),
        (&["explain", "labb"], "lab"),
    ];
    for (args, named) in table {
        let result = run(args);
        assert_eq!(result.status, Some(125), "{args:?}: {}", result.stderr);
        assert!(result.stderr.contains(named), "{args:?}: {}", result.stderr);
        assert_eq!(result.stderr.lines().count(), 1, "{args:?}: {}", result.stderr);
        assert_eq!(result.stdout, "", "{args:?}");
        assert_eq!(store(), before, "{args:?} changes nothing");
    }
}

/// Names and sizes of all that is in the store.
#[test]
fn output_that_can_not_be_written_is_an_error_in_one_line() {
    for args in [
        &["image", "ls"][..],
        &["image", "ls", "--json"],
        &["kernel", "ls"],
        &["gc", "--dry-run"],
        &["completions", "bash"],
        &["man"],
        &["explain", "lab"],
        &["run", "--print-config", "demo"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
        let output = isolab(args).stdout(full).output().expect("starts");
        assert_refused(&output, "No space left", &format!("{args:?}"));
    }
}

fn store() -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![home()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("the store").map(|entry| entry.expect("an entry")) {
            let meta = entry.metadata().expect("a file");
            if meta.is_dir() {
                open.push(entry.path());
            }
            found.insert(entry.path(), if meta.is_dir() { 0 } else { meta.len() });
        }
    }
    found
}

/// One line, status 125, naming this.
fn assert_refused(output: &Output, named: &str, context: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{context}: {stderr}");
    assert!(stderr.contains(named), "{context}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{context}: {stderr}");
}

/// Cuts a copy of a kernel at each of these lengths, from the longest to the shortest.
fn refuse_cut(kernel: &Path, lengths: impl Iterator<Item = u64>) -> u64 {
    let dir = tempfile::tempdir_in("/dev/shm").expect("temporary folder");
    let cut = dir.path().join("cut");
    std::fs::copy(kernel, &cut).expect("copy");
    let file = std::fs::File::options().write(true).open(&cut).expect("open");
    let (args, before) = (["kernel", "add", cut.to_str().expect("UTF-8"), "--name", "cut"], store());
    let mut lengths: Vec<u64> = lengths.collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let mut n = 0;
    for len in lengths {
        file.set_len(len).expect("cut");
        let named = if len < 4096 { "cut: " } else { "cut short" };
        assert_refused(&isolab(&args).output().expect("starts"), named, &format!("cut at {len}"));
        n += 1;
    }
    assert_eq!(store(), before);
    n
}

#[test]
fn a_kernel_cut_at_any_4_kib_boundary_is_refused() {
    let stock = home().join("kernels/stock");
    let len = |name: &str| std::fs::metadata(stock.join(name)).expect("a kernel").len();
    // Each boundary of its first and its last MiB, and of the rest each eighth.
    let (of_image, mib) = (len("kernel"), 1 << 20);
    let edge = |at: &u64| *at < mib || *at + mib > of_image || at.is_multiple_of(8 * 4096);
    let n = refuse_cut(&stock.join("kernel"), (0..of_image).step_by(4096).filter(edge));
    // Of the unpacked kernel the end of the ELF file counts: what a bzImage appends to it is no part of it. Each
    // boundary of its last MiB, and of the rest each 400th.
    let vmlinux = std::fs::read(stock.join("vmlinux")).expect("a kernel");
    let number =
        |at: usize, n: usize| vmlinux[at..at + n].iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b));
    let end = number(0x28, 8) + number(0x3a, 2) * number(0x3c, 2);
    let coarse = (0..end - (1 << 20)).step_by(400 * 4096);
    let fine = (end.next_multiple_of(4096) - (1 << 20)..end).step_by(4096);
    let m = refuse_cut(&stock.join("vmlinux"), coarse.chain(fine));
    println!("{n} cuts of the bzImage and {m} of the vmlinux refused");
}

/// Checks the vm level on a host whose /dev/kvm is as the words before the command make it.
fn refused_vm(words: &[&str], named: &str) {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(binary()).args(["run", "--on", "host", "--level", "vm", "demo"]);
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{}: {e}", words[0]));
    assert_refused(&output, named, &words.join(" "));
    // At once, where a busy machine lets it.
    assert!(start.elapsed() < Duration::from_secs(5), "{words:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--on lab"), "the remedy");
}

#[test]
fn a_missing_or_closed_dev_kvm_is_named_with_its_remedy() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: rootless: needs root to become other users");
        return;
    }
    assert_eq!(run(&["run", "demo"]).status, Some(0));
    refused_vm(&["bwrap", "--bind", "/", "/", "--dev", "/dev"], "this host has no /dev/kvm");
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: no /dev/kvm to close");
        return;
    }
    let other = ["unshare", "--mount", "sh", "-c", "mount --bind /dev/null /dev/kvm && exec \"$0\" \"$@\""];
    refused_vm(&other, "/dev/kvm does not work as KVM does");
    // Readable for a user of no group: the binary and a store of its own.
    let dir = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir_in("/var/tmp")
        .expect("temporary folder");
    let (copy, store) = (dir.path().join("isolab"), dir.path().join("store"));
    std::fs::copy(binary(), &copy).expect("copy");
    std::fs::create_dir(&store).expect("create");
    std::os::unix::fs::chown(&store, Some(65534), Some(65534)).expect("chown");
    let home = format!("ISOLAB_HOME={}", store.display());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "env", &home]);
    command.arg(&copy).args(["run", "--on", "host", "--level", "vm", "demo"]);
    let mode = std::fs::metadata("/dev/kvm").expect("/dev/kvm").permissions().mode();
    if mode & 0o006 != 0 {
        println!("skipped: /dev/kvm is open to everybody here");
        return;
    }
    let output = command.stdin(Stdio::null()).output().expect("setpriv");
    assert_refused(&output, "no permission to open /dev/kvm", "an unprivileged user");
}

#[test]
fn a_missing_qemu_is_named_with_its_remedy() {
    for args in [&["run", "--on", "lab", "demo"][..], &["lab", "--", "doctor"]] {
        let output = isolab(args).env("PATH", "/nonexistent").output().expect("starts");
        assert_eq!(output.status.code(), Some(125));
        let stderr = String::from_utf8_lossy(&output.stderr);
        let error: Vec<&str> =
            stderr.lines().filter(|line| !line.starts_with("isolab: running in the lab")).collect();
        assert!(
            matches!(error[..], [line] if line.contains("qemu-system-x86_64") && line.contains("doctor --fix")),
            "{stderr}"
        );
    }
}
