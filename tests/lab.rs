//! The lab as a place for files and programs of the user's own.

mod support;

use support::{binary, run};

#[test]
fn a_program_from_the_host_runs_inside_on_a_directory_from_the_host() {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("etc")).expect("created");
    std::fs::write(tree.join("etc/hostname"), "from the host\n").expect("written");
    let program = dir.path().join("program");
    std::fs::copy(binary(), &program).expect("copied");
    let [tree, program] = [&tree, &program].map(|path| path.to_str().expect("plain names"));
    let inside = ["/lab/with/program", "image", "import", "/lab/with/tree", "--name", "given"];

    let done = run(&[&["lab", "--with", tree, "--with", program, "--exec", "--"][..], &inside].concat());

    assert_eq!(done.status, Some(0), "{}", done.stderr);
    assert!(done.stdout.contains("given"), "{}", done.stdout);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let done = run(&["lab", "--with", "/nonexistent/file", "--", "doctor"]);
    assert_eq!(done.status, Some(125));
    assert!(done.stderr.contains("/nonexistent/file"), "{}", done.stderr);
}

#[test]
fn a_program_that_is_not_there_is_127_by_its_name() {
    let done = run(&["lab", "--exec", "--", "/nope"]);
    assert_eq!(done.status, Some(127), "{}", done.stderr);
    assert_eq!(done.stderr, "isolab: start /nope in the lab: No such file or directory (os error 2)\n");
}

#[test]
fn more_memory_than_the_machine_has_is_refused_before_the_lab_starts() {
    for args in [
        &["lab", "--lab-memory", "999T", "--", "doctor"][..],
        &["run", "--on", "lab", "--memory", "999T", "demo"],
    ] {
        let done = run(args);
        assert_eq!(done.status, Some(125), "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains("memory asks for 1047527424 MiB"), "{args:?}: {}", done.stderr);
    }
}
