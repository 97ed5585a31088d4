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
