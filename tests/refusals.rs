//! Bad input: one clear line that names the thing and the remedy, status 125, nothing changed.

mod support;

use support::{isolab, run};

#[test]
fn bad_input_is_refused_with_one_line_and_125() {
    let table: &[(&[&str], &str)] = &[
        (&["run", "no-such-image"], "no-such-image"),
        (&["run", "--memory", "1M", "demo"], "--memory"),
        (&["run", "--memory", "lots", "demo"], "--memory"),
        (&["run", "--cpus", "0", "demo"], "--cpus"),
        (&["run", "--cpus", "9", "demo"], "--cpus"),
        (&["run", "--level", "unikernel", "demo"], "process, container, vm"),
        (&["run", "--env", "novalue", "demo"], "--env"),
        (&["run", "--workdir", "here", "demo"], "--workdir"),
        (&["run", "--user", "nobody-here", "demo"], "nobody-here"),
        (&["run", "--timeout", "0", "demo"], "--timeout"),
        (&["run", "-t", "demo"], "-t"),
        (&["image", "import", "/no/such/file"], "/no/such/file"),
        (&["image", "import", "/dev/null"], "/dev/null"),
        (&["image", "build", "nosuch"], "nosuch"),
        (&["image", "rm", "no-such-image"], "no-such-image"),
        (&["kernel", "inspect", "no-such-kernel"], "no-such-kernel"),
        (&["kernel", "add", "/etc/passwd", "--name", "x"], "/etc/passwd"),
        (&["explain", "labb"], "lab"),
    ];
    for (args, named) in table {
        let result = run(args);
        assert_eq!(result.status, Some(125), "{args:?}: {}", result.stderr);
        assert!(result.stderr.contains(named), "{args:?}: {}", result.stderr);
        assert_eq!(result.stderr.lines().count(), 1, "{args:?}: {}", result.stderr);
        assert_eq!(result.stdout, "", "{args:?}");
    }
}

#[test]
fn an_unknown_flag_is_refused_with_a_suggestion() {
    let result = run(&["run", "--memori", "1G", "demo"]);
    assert_eq!(result.status, Some(125));
    assert!(result.stderr.contains("--memory"), "{}", result.stderr);
}

#[test]
fn a_missing_qemu_is_named_with_its_remedy() {
    let output =
        isolab(&["run", "--on", "lab", "demo"]).env("PATH", "/nonexistent").output().expect("starts");
    assert_eq!(output.status.code(), Some(125));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("doctor --fix") || stderr.contains("qemu"), "{stderr}");
}
