//! Recipes give images that the checker accepts.

use super::*;
use crate::erofs::{self, Image};

fn spool() -> Spool {
    Spool { file: tempfile::tempfile().expect("temporary file"), len: 0 }
}

fn tree_of(name: &str) -> Option<std::fs::File> {
    let recipe = Recipe::find(name).expect("built in");
    if let Err(e) = recipe.check() {
        println!("skipped: {e}");
        return None;
    }
    let Built::Tree(tree, spool) = recipe.build(b"\x7fELF-work", spool()).expect("build") else {
        panic!("a tree was expected")
    };
    let out = tempfile::tempfile().expect("temporary file");
    erofs::write(&tree, &spool, &out).expect("write");
    erofs::check(&out).expect("check");
    Some(out)
}

#[test]
fn every_built_in_recipe_parses() {
    for name in Recipe::names() {
        let recipe = Recipe::find(name).expect(name);
        assert!(!recipe.config.cmd.is_empty() && recipe.config.workdir.is_some(), "{name}");
    }
    assert!(matches!(Recipe::find("nothing"), Err(RecipeError::Unknown { .. })));
    assert!(matches!(Recipe::parse("x", "summary = 1"), Err(RecipeError::Parse { .. })));
}

#[test]
fn demo_is_the_work_program_and_mount_points() {
    let file = tree_of("demo").expect("needs nothing");
    let image = Image::open(&file).expect("open");
    let work = image.lookup(b"/isolab-work").expect("work");
    assert_eq!((image.read(&work, 100).expect("read"), work.meta.mode), (b"\x7fELF-work".to_vec(), 0o755));
    for dir in ["/proc", "/sys", "/dev", "/tmp"] {
        image.list(&image.lookup(dir.as_bytes()).expect(dir)).expect(dir);
    }
    let user = crate::users::resolve(&file, Some("nobody")).expect("nobody");
    assert_eq!((user.uid, user.gid), (65534, 65534));
}

#[test]
fn busybox_has_one_inode_under_its_names() {
    let Some(file) = tree_of("busybox") else { return };
    let image = Image::open(&file).expect("open");
    let [busybox, sh] = ["/bin/busybox", "/bin/sh"].map(|path| image.lookup(path.as_bytes()).expect(path));
    assert_eq!(busybox.nid, sh.nid);
    assert!(sh.nlink > 200);
    assert_eq!(image.read(&sh, 1 << 24).expect("read"), std::fs::read("/bin/busybox").expect("read"));
}

#[test]
fn a_failing_command_ends_its_tar_with_an_error() {
    let recipe = |script: &str| {
        let text = format!(
            "summary = ''\n[from]\nkind = 'tar'\ncommand = ['sh', '-c', '{script}']\nenv = {{ X = 'y' }}\npackage = 'dash'\n"
        );
        Recipe::parse("t", &text).expect("parse")
    };
    let run = |script: &str| {
        let Built::Tar(mut tar) = recipe(script).build(b"", spool()).expect("start") else {
            panic!("a tar was expected")
        };
        let mut bytes = Vec::new();
        tar.read_to_end(&mut bytes).map(|_| bytes)
    };
    assert_eq!(run("printf \"a$X\"").expect("good"), b"ay");
    assert!(run("printf a; exit 3").expect_err("fails").to_string().contains('3'));
    let Built::Tar(tar) = recipe("exec sleep 1000").build(b"", spool()).expect("start") else {
        panic!("tar")
    };
    drop(tar); // returns, because it ends the command
}

#[test]
fn a_missing_program_names_its_package() {
    let text =
        "summary = ''\n[from]\nkind = 'tar'\ncommand = ['no-such-program-here']\npackage = 'some-package'\n";
    let error = Recipe::parse("t", text).expect("parse").check().expect_err("missing");
    assert!(error.to_string().contains("some-package"), "{error}");
}
