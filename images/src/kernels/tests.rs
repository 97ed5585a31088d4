//! Entries from made-up kernels and packages.

use std::fs;

use super::format::{inspect, unpack};
use super::samples::{ar, bzimage, module, tar, vmlinux, xz};
use super::*;

const RELEASE: &str = "6.12.9-test";

fn fixture(depends: &str) -> Vec<u8> {
    module(&format!("depends={depends}\0vermagic={RELEASE} SMP mod_unload\0"))
}

/// A modules directory as Debian's: compressed, in a tree, with some built in.
fn modules_dir(dir: &Path) {
    let files: &[(&str, &str)] = &[
        ("kernel/drivers/virtio/virtio_mmio.ko.xz", ""),
        ("kernel/drivers/block/virtio_blk.ko.xz", "virtio"),
        ("kernel/drivers/char/hw_random/virtio-rng.ko.xz", "virtio,rng-core"),
        ("kernel/drivers/char/hw_random/rng-core.ko.xz", ""),
        ("kernel/fs/erofs/erofs.ko.xz", "netfs,libcrc32c"),
        ("kernel/fs/netfs/netfs.ko.xz", ""),
        ("kernel/lib/libcrc32c.ko.xz", ""),
        ("kernel/fs/overlayfs/overlay.ko.xz", ""),
    ];
    for (name, depends) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, xz(&fixture(depends))).unwrap();
    }
    let builtin = "kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio_ring.ko\n\
        kernel/drivers/char/virtio_console.ko\n";
    fs::write(dir.join("modules.builtin"), builtin).unwrap();
}

fn added(store: &KernelStore, dir: &Path, kernel: &[u8]) -> Result<KernelEntry, KernelAddError> {
    let path = dir.join("vmlinuz-6.12");
    fs::write(&path, kernel).unwrap();
    add(store, &AddKernel { path, name: None, modules: Some(dir.join("modules")) })
}

#[test]
fn an_added_kernel_carries_its_modules_in_order_and_its_unpacked_self() {
    let dir = tempfile::tempdir().unwrap();
    modules_dir(&dir.path().join("modules"));
    let store = KernelStore::new(dir.path().join("store"));
    let elf = vmlinux(RELEASE);
    let entry = added(&store, dir.path(), &bzimage(RELEASE, &xz_payload(&elf))).unwrap();

    assert_eq!(entry.info().version, RELEASE);
    assert_eq!(
        entry.info().modules,
        [
            "00-virtio_mmio.ko",
            "01-virtio_blk.ko",
            "02-rng_core.ko",
            "03-virtio_rng.ko",
            "04-netfs.ko",
            "05-libcrc32c.ko",
            "06-erofs.ko",
            "07-overlay.ko"
        ]
    );
    assert_eq!(entry.info().lab_modules, [""; 0]);
    assert_eq!(fs::read(entry.vmlinux().unwrap()).unwrap(), elf);
    let erofs = fs::read(&entry.modules(ModuleSet::Guest)[6]).unwrap();
    assert_eq!(erofs, modules::slim("erofs", fixture("netfs,libcrc32c")).unwrap());
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&entry));
    assert_eq!(store.get("vmlinuz-6.12").unwrap(), entry);
}

#[test]
fn the_balloons_module_is_for_those_guests_alone_that_report() {
    let dir = tempfile::tempdir().unwrap();
    let modules = dir.path().join("modules");
    modules_dir(&modules);
    let store = KernelStore::new(dir.path().join("store"));
    let kernel = vmlinux(RELEASE);
    let without = added(&store, dir.path(), &kernel).unwrap();
    assert_eq!(without.info().reporting_modules, None);
    store.remove("vmlinuz-6.12").unwrap();

    let path = modules.join("kernel/drivers/virtio/virtio_balloon.ko.xz");
    fs::write(path, xz(&fixture("virtio"))).unwrap();
    let entry = added(&store, dir.path(), &kernel).unwrap();
    let names = |set| -> Vec<String> {
        entry.modules(set).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(entry.info().modules, without.info().modules);
    let reporting = [names(ModuleSet::Guest), vec!["08-virtio_balloon.ko".into()]].concat();
    assert_eq!(names(ModuleSet::ReportingGuest), reporting);
    assert!(reporting.is_sorted());
    let archive = |set| crate::initramfs::build(&entry, b"init", set).unwrap();
    let holds = |set| archive(set).windows(15).any(|bytes| bytes == b"-virtio_balloon");
    assert_eq!([ModuleSet::Guest, ModuleSet::ReportingGuest].map(holds), [false, true]);
}

#[test]
fn a_kernel_without_modules_reports_where_its_configuration_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = KernelStore::new(dir.path().to_owned());
    let reporting = |config| without_modules(&store, "small", config).info().reporting_modules.clone();
    let able: &[u8] = b"CONFIG_PAGE_REPORTING=y\nCONFIG_VIRTIO_BALLOON=y\n";
    assert_eq!(reporting(Some(able)), Some(vec![]));
    assert_eq!(reporting(Some(b"CONFIG_PAGE_REPORTING=y\n")), None);
    assert_eq!(reporting(None), None);
}

/// As the kernel's build appends it: xz, then the unpacked size.
fn xz_payload(elf: &[u8]) -> Vec<u8> {
    let mut payload = xz(elf);
    payload.extend_from_slice(&u32::try_from(elf.len()).unwrap().to_le_bytes());
    payload
}

#[test]
fn a_kernel_cut_at_any_place_is_refused() {
    for whole in [bzimage(RELEASE, &xz_payload(&vmlinux(RELEASE))), vmlinux(RELEASE)] {
        inspect(&whole).unwrap();
        for cut in 0..whole.len() {
            assert!(inspect(&whole[..cut]).is_err(), "accepted {cut} of {} bytes", whole.len());
        }
    }
}

#[test]
fn a_vmlinux_tells_its_release_and_not_the_format_string() {
    let file = inspect(&vmlinux(RELEASE)).unwrap();
    assert_eq!((file.format, file.release.as_deref()), (KernelFormat::Vmlinux, Some(RELEASE)));
}

#[test]
fn a_damaged_payload_is_refused() {
    let mut payload = xz_payload(&vmlinux(RELEASE));
    payload[40] ^= 1;
    assert!(matches!(unpack(&bzimage(RELEASE, &payload)), Err(KernelFormatError::Payload(_))));
}

#[test]
fn modules_of_another_kernel_are_refused_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    modules_dir(&dir.path().join("modules"));
    let store = KernelStore::new(dir.path().join("store"));
    let error = added(&store, dir.path(), &bzimage("6.1.0", b"x")).unwrap_err();
    assert!(error.to_string().contains("is for kernel 6.12.9-test, not 6.1.0"), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("store")).unwrap().count(), 0);
}

#[test]
fn a_taken_name_is_refused_and_a_removed_one_is_free_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("modules")).unwrap();
    let store = KernelStore::new(dir.path().join("store"));
    let kernel = vmlinux(RELEASE);
    added(&store, dir.path(), &kernel).unwrap();
    let error = added(&store, dir.path(), &kernel).unwrap_err().to_string();
    assert!(error.starts_with("kernel vmlinuz-6.12 exists"), "{error}");
    store.remove("vmlinuz-6.12").unwrap();
    added(&store, dir.path(), &kernel).unwrap();
}

#[test]
fn names_that_leave_the_store_are_refused() {
    let store = KernelStore::new("/nonexistent".into());
    for name in ["", "..", ".new-x", "a/b", "A", "a b"] {
        assert!(matches!(store.get(name), Err(KernelStoreError::Name { .. })), "{name}");
    }
}

#[test]
fn an_interrupted_addition_is_listed_as_stale_and_one_in_progress_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = KernelStore::new(dir.path().to_owned());
    let _in_progress = store.stage().unwrap();
    let interrupted = dir.path().join(".new-old");
    fs::create_dir(&interrupted).unwrap();
    assert_eq!(store.stale().unwrap(), [interrupted]);
    assert_eq!(store.list().unwrap(), []);
}

fn deb() -> Vec<u8> {
    let tree = tar(&[
        ("./boot/vmlinuz-6.12.9-test", &bzimage(RELEASE, b"payload")),
        ("./boot/config-6.12.9-test", b"CONFIG_64BIT=y\n"),
        ("./lib/modules/6.12.9-test/kernel/fs/erofs/erofs.ko.xz", &xz(&fixture(""))),
        ("./lib/modules/6.12.9-test/modules.builtin", b"kernel/fs/overlayfs/overlay.ko\n"),
        ("./usr/share/doc/copyright", b"text"),
    ]);
    ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b""), ("data.tar.xz", &xz(&tree))])
}

#[test]
fn a_package_gives_kernel_config_modules_and_built_in_names() {
    let package = package::read(&deb()).unwrap();
    assert_eq!(package.kernel, bzimage(RELEASE, b"payload"));
    assert_eq!(package.config.as_deref(), Some(&b"CONFIG_64BIT=y\n"[..]));
    assert_eq!(package.modules.keys().collect::<Vec<_>>(), ["erofs"]);
    assert!(package.builtin.contains("overlay"));
}

#[test]
fn a_package_cut_anywhere_is_refused() {
    let whole = deb();
    // The last byte may be padding.
    for cut in 0..whole.len() - 1 {
        assert!(package::read(&whole[..cut]).is_err(), "accepted {cut} of {} bytes", whole.len());
    }
}

#[test]
fn a_package_without_a_kernel_is_refused() {
    let tree = xz(&tar(&[("./usr/bin/tool", b"x")]));
    let error = package::read(&ar(&[("data.tar.xz", &tree)])).unwrap_err();
    assert!(matches!(error, KernelPackageError::NoKernel));
}

/// An entry of a made-up kernel with this configuration and without modules.
fn without_modules(store: &KernelStore, name: &str, config: Option<&[u8]>) -> KernelEntry {
    let parts = assemble::Parts {
        name: name.into(),
        kernel: vmlinux(RELEASE),
        kernel_path: "vmlinux".into(),
        config: config.map(<[u8]>::to_vec),
        modules: Default::default(),
        builtin: Default::default(),
        origin: Origin::File { path: "vmlinux".into() },
        replace: true,
    };
    assemble::assemble(store, &parts).unwrap()
}

#[test]
fn guests_get_the_built_kernel_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = KernelStore::new(dir.path().to_owned());
    assert_eq!(store.default_name(), STOCK);
    without_modules(&store, STOCK, None);
    assert_eq!(store.default_name(), STOCK);
    without_modules(&store, TUNED, None);
    assert_eq!(store.default_name(), TUNED);
    store.remove(TUNED).unwrap();
    assert_eq!(store.default_name(), STOCK);
}

#[test]
fn an_entry_says_how_its_kernel_learns_of_devices() {
    let dir = tempfile::tempdir().unwrap();
    let store = KernelStore::new(dir.path().to_owned());
    let by_line = without_modules(&store, "small", Some(b"CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y\n"));
    assert_eq!(by_line.info().discovery, Discovery::CommandLine);
    let other = without_modules(&store, "other", None);
    assert_eq!(other.info().discovery, Discovery::Acpi);
    // One from before this was asked.
    let path = other.dir().join("entry.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("discovery").unwrap();
    fs::write(&path, json.to_string()).unwrap();
    assert_eq!(store.get("other").unwrap(), other);
}

#[test]
fn an_initramfs_for_a_kernel_without_modules_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = KernelStore::new(dir.path().to_owned());
    let entry = without_modules(&store, TUNED, None);
    let archive = crate::initramfs::build(&entry, b"init", ModuleSet::Guest).unwrap();
    let holds = |name: &[u8]| archive.windows(name.len()).any(|window| window == name);
    assert!(holds(b"init\0"));
    assert!(!holds(b"modules/"));
}
