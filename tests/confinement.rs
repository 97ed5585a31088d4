//! What levels process and container keep from a hostile image and from a hostile start, where no other test shows it.

mod support;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use isolab_images::programs::WORK;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};
use support::roots::{root, state};
use support::samples::tool;
use support::{Done, binary, busybox, done, import, isolab, run};

const LEVELS: [&str; 2] = ["process", "container"];

/// Ends the test where users can't be changed.
macro_rules! root_or_skip {
    () => {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: rootless: needs root to become other users");
            return;
        }
    };
}

/// isolab as bash starts it after some preparation: `exec` with these redirections.
fn after(preparation: &str, redirections: &str, args: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command
        .args(["-c", &format!("{preparation}\nexec \"$0\" \"$@\" {redirections}")])
        .arg(binary())
        .args(args);
    command.stdin(Stdio::null());
    command
}

/// What a workload can see of its start.
const SEEN: &str = "umask; env | sort; pwd; id; stat -c '%a %u' / /tmp; ls /proc/self/fd; exit 7";

#[test]
fn a_hostile_start_changes_nothing_for_the_workload() {
    busybox();
    // Who is not root can't use what he makes himself without any right, wherever he runs it.
    let (user, umask): (&[&str], _) = match rustix::process::geteuid().is_root() {
        true => (&["--user", "1000:1000"], "umask 0777"),
        false => (&[], "umask 0077"),
    };
    let signals = "--ignore-signal=HUP,INT,QUIT,TERM,USR1,PIPE,CHLD";
    for level in LEVELS {
        let args = [&["run", "--level", level], user, &["busybox", "--", "sh", "-c", SEEN]].concat();
        let clean = run(&args);
        assert_eq!((clean.status, clean.stderr.as_str()), (Some(7), ""), "{level}: {}", clean.stdout);
        assert!(clean.stdout.starts_with("0022\n"), "{level}: {}", clean.stdout);
        let mut environment = isolab(&args);
        environment.env("LD_PRELOAD", "/no/such/library.so").env("LD_LIBRARY_PATH", "/tmp");
        environment
            .env("PATH", "/no/such/dir")
            .env("TMPDIR", "/no/such/dir")
            .env("IFS", "/")
            .env_remove("HOME");
        let mut signalled = Command::new("env");
        signalled.args([signals, "--block-signal"]).arg(binary()).args(&args).stdin(Stdio::null());
        let starts = [
            ("a umask that takes all it can", after(umask, "", &args)),
            ("no standard input", after("", "<&-", &args)),
            ("no standard error", after("", "2>&-", &args)),
            ("neither", after("", "<&- 2>&-", &args)),
            ("descriptors of the host", after("", "5</ 17</etc/passwd 99</", &args)),
            ("few descriptors", after("ulimit -n 64", "", &args)),
            ("a directory that is gone", after("d=$(mktemp -d); cd $d; rmdir $d", "", &args)),
            ("no signals", signalled),
            ("an environment", environment),
        ];
        for (name, mut command) in starts {
            let hostile = done(command.output().expect("bash and env start"));
            let seen = (hostile.status, hostile.stdout.as_str(), hostile.stderr.as_str());
            assert_eq!(seen, (Some(7), clean.stdout.as_str(), ""), "{level}: {name}");
        }
        let silent = done(after("", ">&-", &args).output().expect("bash starts"));
        assert_eq!((silent.status, silent.stderr.as_str()), (Some(7), ""), "{level}: no standard output");
    }
}

fn shell(level: &str, more: &[&str], image: &str, script: &str) -> Done {
    run(&[&["run", "--level", level], more, &[image, "--", "/bin/sh", "-c", script]].concat())
}

#[test]
fn a_mount_point_that_leads_elsewhere_ends_the_start_and_touches_nothing() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("directory");
    fs::write(outside.join("there"), "").expect("file");
    let before = state(&outside);
    let outside_text = outside.to_str().expect("UTF-8");
    let relative = format!("../../../../..{outside_text}");
    let through = format!("/proc/1/root{outside_text}");
    let links = [outside_text, &relative, &through, "/", "..", "/no/such/place"];
    let mut n = 0;
    for point in ["proc", "dev"] {
        for kind in links.iter().map(|target| Some(*target)).chain([None]) {
            let name = format!("point-{n}");
            n += 1;
            let root = root(dir.path(), &name);
            match kind {
                Some(target) => symlink(target, root.join(point)).expect("a link"),
                None => fs::write(root.join(point), "a file").expect("a file"),
            }
            let image = import(&root, &name);
            for level in LEVELS {
                let refused = shell(level, &[], image, "exit 0");
                let case = format!("{level}: {point} is {kind:?}: {}", refused.stderr);
                assert_eq!((refused.status, refused.stdout.as_str()), (Some(125), ""), "{case}");
                assert_eq!(refused.stderr.lines().count(), 1, "{case}");
                assert_eq!(state(&outside), before, "{case}");
            }
            assert_eq!(run(&["image", "rm", image]).status, Some(0));
        }
    }
    // Without an overlay something is mounted on /tmp as well, and only where that is a directory.
    let root = root(dir.path(), "point-tmp");
    for name in ["proc", "dev", "sys"] {
        fs::create_dir(root.join(name)).expect("directory");
    }
    symlink(&outside, root.join("tmp")).expect("a link");
    let image = import(&root, "point-tmp");
    for level in LEVELS {
        let result = shell(level, &["--read-only"], image, "echo x > /tmp/made; exit 3");
        assert_eq!(result.status, Some(3), "{level}: {}", result.stderr);
        assert!(result.stderr.contains("/tmp/made"), "{level}: {}", result.stderr);
        assert_eq!(state(&outside), before, "{level}");
    }
    assert_eq!(run(&["image", "rm", image]).status, Some(0));
}

#[test]
fn no_descriptor_is_a_way_out_as_working_directory() {
    busybox();
    for number in 0..32 {
        let path = format!("/proc/self/fd/{number}");
        let args = ["run", "--workdir", &path, "busybox", "--", "sh", "-c", "pwd"];
        // Directories of the host, among them its root, at many numbers.
        let open = (3..32).step_by(2).map(|n| format!("{n}</ ")).collect::<String>();
        let result = done(after("", &open, &args).output().expect("bash starts"));
        assert_eq!((result.status, result.stdout.as_str()), (Some(125), ""), "{path}");
        assert!(result.stderr.contains("can't be entered"), "{path}: {}", result.stderr);
    }
    // A link that leads upwards from where it seems to be stays inside.
    let inside =
        run(&["run", "--workdir", "/proc/self/root/../../tmp", "busybox", "--", "sh", "-c", "pwd -P"]);
    assert_eq!((inside.status, inside.stdout.as_str()), (Some(0), "/tmp\n"), "{}", inside.stderr);
}

#[test]
fn a_set_id_program_of_the_image_gives_nobody_anything() {
    root_or_skip!();
    let dir = tempfile::tempdir().expect("temporary directory");
    let program = dir.path().join("root/work");
    fs::create_dir(dir.path().join("root")).expect("directory");
    fs::write(&program, WORK).expect("program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).expect("mode");
    let image = import(&dir.path().join("root"), "set-id");
    for level in LEVELS {
        let result = run(&["run", "--level", level, "--user", "1000:1001", image, "--", "/work", "id"]);
        let expected = "uid=1000 euid=1000 gid=1001 egid=1001 groups=\n";
        assert_eq!(
            (result.status, result.stdout.as_str()),
            (Some(0), expected),
            "{level}: {}",
            result.stderr
        );
    }
    assert_eq!(run(&["image", "rm", image]).status, Some(0));
}

#[test]
fn a_crash_starts_no_handler_of_the_host_and_descriptors_are_limited() {
    busybox();
    let script = "ulimit -Sc; ulimit -Hc; (ulimit -c 1) 2>/dev/null && echo raised; ulimit -Sn";
    let result = run(&["run", "busybox", "--", "sh", "-c", script]);
    let lines: Vec<&str> = result.stdout.lines().collect();
    let ["0", "0", descriptors] = lines[..] else { panic!("{} {}", result.stdout, result.stderr) };
    assert!(descriptors.parse::<u32>().is_ok_and(|n| n <= 1024), "{descriptors}");
}

/// What a container's workload is limited to, whatever isolab was started with: soft and hard limit, by the kernel's names.
const LIMITED: [(&str, u64, u64); 16] = [
    ("Max cpu time", u64::MAX, u64::MAX),
    ("Max file size", u64::MAX, u64::MAX),
    ("Max data size", u64::MAX, u64::MAX),
    ("Max stack size", 8 << 20, u64::MAX),
    ("Max core file size", 1, 1),
    ("Max resident set", u64::MAX, u64::MAX),
    ("Max processes", u64::MAX, u64::MAX),
    ("Max open files", 1024, 524_288),
    ("Max locked memory", 8 << 20, 8 << 20),
    ("Max address space", u64::MAX, u64::MAX),
    ("Max file locks", u64::MAX, u64::MAX),
    ("Max pending signals", 4096, 4096),
    ("Max msgqueue size", 819_200, 819_200),
    ("Max nice priority", 0, 0),
    ("Max realtime priority", 0, 0),
    ("Max realtime timeout", u64::MAX, u64::MAX),
];

/// The limits in a text of the kernel's, whose columns have fixed widths.
fn limits(text: &str) -> Vec<(&str, u64, u64)> {
    let number = |text: &str| text.trim().parse().unwrap_or(u64::MAX);
    let of = |line| {
        let (name, rest) = str::split_at(line, 26);
        (name.trim(), number(&rest[..21]), number(&rest[21..42]))
    };
    text.lines().skip(1).map(of).collect()
}

#[test]
fn limits_that_isolab_was_started_with_are_not_the_workloads() {
    root_or_skip!();
    busybox();
    let status = fs::read_to_string("/proc/self/status").expect("our own state");
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("capabilities");
    // CAP_SYS_RESOURCE: who lacks it can raise no limit. In the lab nobody lacks it (`tests/posture.rs`).
    let raises = u64::from_str_radix(capabilities, 16).expect("a number") >> 24 & 1 == 1;
    let args = ["run", "busybox", "--", "cat", "/proc/self/limits"];
    for preparation in [
        "",
        "ulimit -t 1000; ulimit -f 1000000; ulimit -d 8000000; ulimit -v 8000000; ulimit -s 1024; ulimit -R 9000000",
        "ulimit -n 64; ulimit -u 10000; ulimit -l 16; ulimit -i 10; ulimit -q 0; ulimit -e 0; ulimit -r 0",
        "ulimit -St 1000; ulimit -Sf 1000000; ulimit -Sv 8000000; ulimit -Ss 1024; ulimit -Sn 64; ulimit -Sl 16; ulimit -Si 10",
    ] {
        let shell = format!("{preparation}\nexec cat /proc/self/limits");
        let before = done(Command::new("bash").args(["-c", &shell]).output().expect("bash starts"));
        let before = limits(&before.stdout);
        let result = done(after(preparation, "", &args).output().expect("bash starts"));
        assert_eq!((result.status, result.stderr.as_str()), (Some(0), ""), "{preparation}");
        let expected = LIMITED.iter().zip(&before).map(|(&(name, soft, hard), &(_, _, most))| {
            if raises { (name, soft, hard) } else { (name, soft.min(most), hard.min(most)) }
        });
        assert_eq!(limits(&result.stdout), expected.collect::<Vec<_>>(), "{preparation}");
    }
}

#[test]
fn a_set_id_isolab_refuses_to_do_anything() {
    root_or_skip!();
    // Not $TMPDIR, which may be root's alone.
    let dir = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir_in("/var/tmp")
        .expect("temporary directory");
    let as_nobody = |program: &Path, args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(args);
        command.env("ISOLAB_HOME", dir.path().join("home")).current_dir("/").stdin(Stdio::null());
        done(command.output().expect("setpriv starts"))
    };
    let id = dir.path().join("id");
    fs::copy("/usr/bin/id", &id).expect("a copy");
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).expect("mode");
    if as_nobody(&id, &["-u"]).stdout != "0\n" {
        println!("skipped: set-user-id programs have no effect here");
        return;
    }
    let copy = dir.path().join("isolab");
    fs::copy(binary(), &copy).expect("a copy");
    for (mode, status) in [(0o755, 0), (0o4755, 125), (0o2755, 125)] {
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).expect("mode");
        for args in [&["--version"][..], &["explain"]] {
            let result = as_nobody(&copy, args);
            assert_eq!(result.status, Some(status), "{mode:o} {args:?}: {}", result.stderr);
            assert_eq!(result.stdout.is_empty(), status != 0, "{mode:o} {args:?}");
            let lines = usize::from(status != 0);
            assert_eq!(result.stderr.lines().count(), lines, "{mode:o} {args:?}: {}", result.stderr);
        }
    }
}

#[test]
fn an_isolab_with_file_capabilities_refuses_to_do_anything() {
    root_or_skip!();
    let dir = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o711))
        .tempdir_in("/var/tmp")
        .expect("temporary directory");
    let copy = dir.path().join("isolab");
    fs::copy(binary(), &copy).expect("a copy");
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).arg("--version");
        done(command.current_dir("/").stdin(Stdio::null()).output().expect("setpriv starts"))
    };
    let without = as_nobody();
    assert_eq!((without.status, without.stderr.as_str()), (Some(0), ""));
    // `struct vfs_cap_data`, version 2, effective: CAP_DAC_READ_SEARCH.
    let words: [u32; 5] = [0x0200_0001, 1 << 2, 0, 0, 0];
    let capabilities: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(e) = rustix::fs::setxattr(&copy, "security.capability", &capabilities, flags) {
        println!("skipped: this file system holds no capabilities of files: {e}");
        return;
    }
    let refused = as_nobody();
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(125), ""), "{}", refused.stderr);
    assert!(
        refused.stderr.lines().count() == 1 && refused.stderr.contains("setcap -r"),
        "{}",
        refused.stderr
    );
}

/// A static program that can lie anywhere: no interpreter, no library, no text that is changed. Nothing can be written and executed, the
/// stack least of all, and what the start fills in is read-only afterwards (full RELRO).
#[test]
fn isolab_needs_no_library_and_lies_at_a_random_address() {
    let bytes = fs::read(binary()).expect("isolab");
    let head = FileHeader64::<Endianness>::parse(&*bytes).expect("an ELF file");
    let endian = head.endian().expect("a byte order");
    assert_eq!(head.e_type(endian), elf::ET_DYN, "an address of its own");
    let segments = head.program_headers(endian, &*bytes).expect("segments");
    let of = |kind| segments.iter().find(|segment| segment.p_type(endian) == kind);
    assert!(of(elf::PT_INTERP).is_none());
    let both = elf::PF_W | elf::PF_X;
    assert!(segments.iter().all(|segment| segment.p_flags(endian) & both != both));
    assert!(of(elf::PT_GNU_STACK).is_some_and(|stack| stack.p_flags(endian) & both == elf::PF_W));
    let dynamic = of(elf::PT_DYNAMIC).expect("a table for its start");
    let table = dynamic.dynamic(endian, &*bytes).expect("the table").expect("entries");
    let value = |tag| table.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.val(endian));
    assert_eq!([elf::DT_NEEDED, elf::DT_TEXTREL].map(value), [None, None]);
    let at_once = (elf::DF_1_NOW | elf::DF_1_PIE).0;
    assert_eq!(value(elf::DT_FLAGS_1).map(|flags| flags & at_once), Some(at_once));
    let relro = of(elf::PT_GNU_RELRO).expect("what is read-only after the start");
    let (start, len) = (relro.p_vaddr(endian), relro.p_memsz(endian));
    assert!((start..start + len).contains(&dynamic.p_vaddr(endian)), "{start:#x} {len:#x}");
}

/// What a start executes lies together (`build.rs`). Names of generic functions change with the program, and it does no harm where a few are
/// gone; when many are, `make start-order` finds them anew.
#[test]
fn what_a_start_executes_lies_together() {
    let bytes = fs::read(binary()).expect("isolab");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let at: HashMap<_, _> =
        file.symbols().filter_map(|symbol| Some((symbol.name().ok()?, symbol.address()))).collect();
    let order: Vec<&str> = include_str!("../start.order").lines().collect();
    let mut found: Vec<u64> = order.iter().filter_map(|name| at.get(name).copied()).collect();
    let told =
        format!("{} of {} functions of start.order are there: make start-order", found.len(), order.len());
    assert!(found.len() * 10 >= order.len() * 8, "{told}");
    found.sort_unstable();
    // All but those that the C library keeps in sections of their own.
    let most = found[found.len() * 9 / 10] - found[0];
    assert!(most < 2 << 20, "nine in ten of them lie in {} KiB; {told}", most >> 10);
}

#[test]
fn a_label_of_an_image_steers_no_terminal() {
    const LABEL: &str = "\u{1b}[2J\u{7f}\u{9b}31m\u{202e}gr\u{fc}n";
    let dir = tempfile::tempdir().expect("temporary directory");
    for line in ["umoci init --layout layout", "umoci new --image layout:latest"] {
        tool(dir.path(), line);
    }
    let mut command = Command::new("umoci");
    command.args(["config", "--image", "layout:latest", "--config.label", &format!("odd={LABEL}")]);
    assert!(command.current_dir(dir.path()).status().expect("umoci starts").success());
    let image = import(&dir.path().join("layout"), "odd-label");
    let odd = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
    // Records hold the command and its environment, too.
    let variable = format!("ODD={LABEL}");
    let options = ["--on", "host", "--env", &variable, "demo"];
    let config = run(&[&["run", "--print-config"], &options[..]].concat());
    let measured = ["compare", "--levels", "process", "--pairs", "1", "--json", "-"];
    let record = run(&[&measured[..], &options, &["--", "/isolab-work", "echo", LABEL]].concat());
    for (what, done) in [("configuration", config), ("record", record)] {
        assert!(done.stdout.contains("\\u009b31m"), "{what}: {done:?}");
        assert!(!done.stdout.contains(odd), "{what}: {:?}", done.stdout);
        serde_json::from_str::<serde_json::Value>(&done.stdout).expect("JSON");
    }
    for args in [&["image", "inspect", image][..], &["image", "ls", "--json"], &["image", "ls"]] {
        let result = run(args);
        assert!(!result.stdout.contains(odd), "{args:?}: {:?}", result.stdout);
        assert!(args.len() == 2 || result.stdout.contains("\\u009b31m\\u202egr\u{fc}n"), "{}", result.stdout);
    }
    let entry: serde_json::Value =
        serde_json::from_str(&run(&["image", "inspect", image]).stdout).expect("JSON");
    assert_eq!(entry["config"]["labels"]["odd"], LABEL);
    assert_eq!(run(&["image", "rm", image]).status, Some(0));
}
