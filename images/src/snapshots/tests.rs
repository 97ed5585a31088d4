//! What is taken from the store is what was put there, of the same parts, and the user's own.

use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

use super::*;
use crate::kernels::{Discovery, KernelFormat, Origin};

fn kernel() -> KernelInfo {
    KernelInfo {
        name: "stock".into(),
        version: "6.1".into(),
        format: KernelFormat::Vmlinux,
        sha256: "ab".repeat(32),
        size_bytes: 1,
        vmlinux_sha256: None,
        origin: Origin::File { path: "x".into() },
        discovery: Discovery::Acpi,
        modules: vec![],
        reporting_modules: None,
        lab_modules: vec![],
        created_s: 0,
    }
}

fn subject() -> Subject {
    Subject { memory_bytes: 128 << 20, ..Subject::new(("demo", "sha256:00"), &kernel(), 1) }
}

/// A store with the snapshot of [`subject`].
fn store(dir: &tempfile::TempDir) -> SnapshotStore {
    let store = SnapshotStore::new(dir.path().join("snapshots"));
    let new = store.create(subject()).unwrap();
    new.state.write_all_at(b"state", 0).unwrap();
    new.memory.write_all_at(&[7; 8192], 0).unwrap();
    new.publish().unwrap();
    store
}

fn refused(store: &SnapshotStore, subject: &Subject) -> String {
    let text = store.open(subject).unwrap_err().to_string();
    assert!(text.contains("`isolab snapshot --kernel "), "no remedy: {text}");
    text
}

#[test]
fn a_snapshot_is_found_by_what_it_is_made_of_and_nobody_else_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let open = store.open(&subject()).unwrap();
    assert_eq!(open.memory.metadata().unwrap().len(), 8192);
    let name = "demo@stock,128M,1";
    assert_eq!(store.list().unwrap()[0].0, name);
    for path in [store.path(name), store.path(name).parent().unwrap().to_owned()] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
    }
    for file in [ENTRY, STATE, MEMORY] {
        let meta = fs::metadata(store.path(name).join(file)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{file}");
    }
    store.remove(name).unwrap();
    assert!(refused(&store, &subject()).contains("there is no snapshot of demo with kernel stock"));
    assert!(store.list().unwrap().is_empty() && store.stale().unwrap().is_empty());
}

#[test]
fn names_are_one_for_each_combination_and_stay_in_the_store() {
    let named = |image: &str, cpus, read_only| {
        let base = Subject::new((image, "sha256:00"), &kernel(), 1);
        Subject { memory_bytes: (1 << 20) + 1, cpus, read_only, ..base }.entry_name()
    };
    assert_eq!(named("a/b:1", 2, true), "a%2Fb:1@stock,1048577,2,read-only");
    let reporting = Subject { free_page_reporting: true, memory_bytes: 128 << 20, ..subject() };
    assert_eq!(reporting.entry_name(), "demo@stock,128M,1,free-page-reporting");
    let remedy = "isolab snapshot --kernel stock --memory 128M --cpus 1 --free-page-reporting demo";
    assert_eq!(reporting.remedy(), remedy);
    assert_eq!(named(&format!("sha256:{}", "0".repeat(64)), 1, false), "sha256:000000000000@stock,1048577,1");
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    for name in ["", ".", "..", "../images", "demo@stock,128M,1/state", "nothing"] {
        assert!(matches!(store.remove(name), Err(SnapshotError::Unknown { .. })), "{name}");
    }
}

#[test]
fn a_changed_part_and_a_missing_combination_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let changes: [(&str, Subject); 5] = [
        ("image demo has changed since", Subject { image: "sha256:11".into(), ..subject() }),
        ("kernel stock has changed since", Subject { kernel_sha256: "cd".repeat(32), ..subject() }),
        ("another isolab made it", Subject { init_sha256: "0".into(), ..subject() }),
        ("it is of format 1, and this isolab reads 2", Subject { format: 2, ..subject() }),
        (
            "(there is: demo with kernel stock, memory 128M, cpus 1)",
            Subject { memory_bytes: 64 << 20, ..subject() },
        ),
    ];
    for (why, subject) in changes {
        let text = refused(&store, &subject);
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn files_that_are_not_what_was_written_are_refused() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("has another length", |path| File::options().write(true).open(path).unwrap().set_len(3).unwrap()),
        ("has been changed", |path| {
            File::options().write(true).open(path).unwrap().write_all_at(b"X", 2).unwrap();
        }),
        ("is not a file of yours alone", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        }),
        ("is missing", |path| fs::remove_file(path).unwrap()),
        ("is not a file of yours alone", |path| {
            let elsewhere = path.with_extension("elsewhere");
            fs::rename(path, &elsewhere).unwrap();
            symlink(elsewhere, path).unwrap();
        }),
        ("is not a file of yours alone", |path| {
            fs::remove_file(path).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        }),
    ];
    for file in [STATE, MEMORY] {
        for (why, change) in changes {
            let dir = tempfile::tempdir().unwrap();
            let store = store(&dir);
            change(&store.path("demo@stock,128M,1").join(file));
            let text = refused(&store, &subject());
            assert!(text.contains(why) && text.contains(file), "{text}");
        }
    }
}

#[test]
fn a_copy_of_the_same_bytes_is_as_good_and_a_damaged_entry_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    let name = "demo@stock,128M,1";
    let memory = store.path(name).join(MEMORY);
    let copy = memory.with_extension("copy");
    fs::copy(&memory, &copy).unwrap();
    fs::rename(&copy, &memory).unwrap();
    store.open(&subject()).unwrap();
    fs::write(store.path(name).join(ENTRY), "{").unwrap();
    assert!(refused(&store, &subject()).contains("entry.json is damaged"));
    assert!(store.list().unwrap()[0].1.is_none());
    store.remove(name).unwrap();
}

#[test]
fn an_unfinished_snapshot_leaves_nothing_and_a_new_one_replaces_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    drop(store.create(subject()).unwrap());
    let new = store.create(subject()).unwrap();
    assert!(store.stale().unwrap().is_empty(), "it is locked by who makes it");
    new.state.write_all_at(b"newer state", 0).unwrap();
    let (_, info) = new.publish().unwrap();
    assert_eq!(info.state.bytes, 11);
    assert_eq!(store.open(&subject()).unwrap().state.metadata().unwrap().len(), 11);
    assert_eq!(store.list().unwrap().len(), 1);
}
