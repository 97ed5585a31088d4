//! Kernel modules: what a module's `.modinfo` says, and the order in which a set of them loads.
//!
//! Debian's packages carry no `modules.dep` (it is made when they are installed), so the order comes from `depends=`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use object::LittleEndian;
use object::elf::{ET_REL, FileHeader64};
use object::read::elf::{FileHeader, SectionHeader};

/// Largest module, unpacked.
pub(super) const MAX_MODULE: u64 = 64 << 20;

/// What a guest needs: virtio over MMIO, the image, the writable layer.
pub(super) const GUEST: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "virtio_console",
    "virtio_blk",
    "virtio_rng",
    "erofs",
    "overlay",
];

/// What a guest needs besides whose free memory returns to the host.
pub(super) const REPORTING: &str = "virtio_balloon";

/// What the lab machine needs besides: both buses, loop devices (kernels before 6.12), disks in memory, KVM with SVM.
pub(super) const LAB: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_rng",
    "erofs",
    "overlay",
    "loop",
    "brd",
    "irqbypass",
    "kvm",
    "kvm_amd",
];

/// A module can't be read, or a set of them can't be completed.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The compressed file is damaged or too large.
    #[error("unpack kernel module {name}")]
    Unpack {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Not an ELF module, or cut short.
    #[error("kernel module {name} is damaged")]
    Elf {
        /// Which.
        name: String,
        /// Why.
        source: object::Error,
    },
    /// An ELF file that is not a module.
    #[error("{name} is not a kernel module: {reason}")]
    NotAModule {
        /// Which.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Neither among the modules nor built in.
    #[error("kernel module {name}, needed by {needed_by}, is neither there nor built in")]
    Missing {
        /// Which.
        name: String,
        /// By what.
        needed_by: String,
    },
    /// Two modules need each other.
    #[error("kernel module {name} needs itself")]
    Cycle {
        /// One of them.
        name: String,
    },
    /// A directory of modules can't be read.
    #[error("read modules in {path}")]
    ReadDir {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// The parts of `.modinfo` that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModuleInfo {
    /// Modules that must be there first.
    pub(super) depends: Vec<String>,
    /// Kernel release that the module was built for.
    pub(super) release: Option<String>,
}

/// File name or module name to the name that the kernel uses.
pub(super) fn canonical(name: &str) -> String {
    let stem = name.split_once(".ko").map_or(name, |(stem, _)| stem);
    stem.replace('-', "_")
}

/// Reads `.modinfo` of an uncompressed module.
///
/// # Errors
/// Not a module, or cut short: each section must lie inside the file.
pub(super) fn modinfo(name: &str, bytes: &[u8]) -> Result<ModuleInfo, ModuleError> {
    let elf = |source| ModuleError::Elf { name: name.into(), source };
    let not = |reason| ModuleError::NotAModule { name: name.into(), reason };
    let e = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(elf)?;
    if header.e_type(e) != ET_REL {
        return Err(not("not a relocatable object"));
    }
    let sections = header.sections(e, bytes).map_err(elf)?;
    for section in sections.iter() {
        section.data(e, bytes).map_err(elf)?;
    }
    let (_, section) = sections.section_by_name(e, b".modinfo").ok_or_else(|| not("no .modinfo section"))?;
    Ok(parse_modinfo(section.data(e, bytes).map_err(elf)?))
}

/// The module without its signature and its BTF, both of which cost a guest more than all the rest of its loading: some
/// 50 million instructions for each signature, and for `kvm` a thousand million for the type data. The package's own
/// signature has been checked by then, and neither is needed to run.
///
/// # Errors
/// Not a module.
pub(super) fn slim(name: &str, mut bytes: Vec<u8>) -> Result<Vec<u8>, ModuleError> {
    bytes.truncate(unsigned_len(&bytes));
    let hidden = {
        let elf = |source| ModuleError::Elf { name: name.into(), source };
        let header = FileHeader64::<LittleEndian>::parse(bytes.as_slice()).map_err(elf)?;
        let sections = header.sections(LittleEndian, bytes.as_slice()).map_err(elf)?;
        let position = sections.section_by_name(LittleEndian, b".BTF").map(|(index, _)| index.0);
        position.and_then(|index| {
            let table = usize::try_from(header.e_shoff(LittleEndian)).ok()?;
            table.checked_add(index.checked_mul(header.e_shentsize(LittleEndian).into())?)
        })
    };
    // The first word of a section header is the offset of its name, and offset 0 is the empty name: the kernel, which
    // looks for `.BTF`, does not see the section any more.
    if let Some(word) = hidden.and_then(|at| bytes.get_mut(at..at.checked_add(4)?)) {
        word.fill(0);
    }
    Ok(bytes)
}

/// Length of a module without what `scripts/sign-file` appended: signature, 12 bytes that end in its length (big
/// endian), a marker. The whole module where there is none.
fn unsigned_len(bytes: &[u8]) -> usize {
    let signed = || {
        let rest = bytes.strip_suffix(b"~Module signature appended~\n")?;
        let (rest, info) = rest.split_last_chunk::<12>()?;
        let [_, _, _, signer, key, _, _, _, a, b, c, d] = *info;
        let signature = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        rest.len().checked_sub(signature)?.checked_sub(usize::from(signer) + usize::from(key))
    };
    signed().unwrap_or(bytes.len())
}

/// `.modinfo` is a row of NUL-terminated `key=value`.
fn parse_modinfo(section: &[u8]) -> ModuleInfo {
    let mut info = ModuleInfo::default();
    for entry in section.split(|&b| b == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else { continue };
        match entry.split_once('=') {
            Some(("depends", list)) => {
                info.depends = list.split(',').filter(|s| !s.is_empty()).map(canonical).collect();
            }
            Some(("vermagic", magic)) => {
                info.release = magic.split_whitespace().next().map(str::to_owned);
            }
            _ => {}
        }
    }
    info
}

/// Names in `modules.builtin`, as the kernel uses them.
pub(super) fn builtin(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| canonical(line.rsplit('/').next().unwrap_or(line))).collect()
}

/// Modules to load for `wanted`, each after all it depends on; what is built in needs no loading.
///
/// # Errors
/// A module is missing, damaged, or depends on itself.
pub(super) fn load_order(
    wanted: &[&str],
    builtin: &BTreeSet<String>,
    mut read: impl FnMut(&str) -> Option<Result<ModuleInfo, ModuleError>>,
) -> Result<Vec<String>, ModuleError> {
    let mut state = BTreeMap::new();
    let mut order = Vec::new();
    for name in wanted {
        visit(&canonical(name), "isolab", builtin, &mut read, &mut state, &mut order)?;
    }
    Ok(order)
}

/// Whether a module has been placed or is being visited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Open,
    Placed,
}

fn visit(
    name: &str,
    needed_by: &str,
    builtin: &BTreeSet<String>,
    read: &mut impl FnMut(&str) -> Option<Result<ModuleInfo, ModuleError>>,
    state: &mut BTreeMap<String, Visit>,
    order: &mut Vec<String>,
) -> Result<(), ModuleError> {
    if builtin.contains(name) {
        return Ok(());
    }
    match state.get(name) {
        Some(Visit::Placed) => return Ok(()),
        Some(Visit::Open) => return Err(ModuleError::Cycle { name: name.into() }),
        None => {}
    }
    state.insert(name.into(), Visit::Open);
    let info = read(name)
        .ok_or_else(|| ModuleError::Missing { name: name.into(), needed_by: needed_by.into() })??;
    for dependency in &info.depends {
        visit(dependency, name, builtin, read, state, order)?;
    }
    state.insert(name.into(), Visit::Placed);
    order.push(name.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::module;
    use super::*;

    fn order(wanted: &[&str], deps: &[(&str, &[&str])]) -> Result<Vec<String>, ModuleError> {
        let builtin = BTreeSet::from(["virtio".to_owned()]);
        load_order(wanted, &builtin, |name| {
            let (_, depends) = deps.iter().find(|(n, _)| *n == name)?;
            let depends = depends.iter().map(|s| (*s).to_owned()).collect();
            Some(Ok(ModuleInfo { depends, release: None }))
        })
    }

    #[test]
    fn reads_depends_and_release() {
        let bytes = module("license=GPL\0depends=libcrc32c,netfs,rng-core\0vermagic=6.12.1 SMP\0");
        let info = modinfo("erofs", &bytes).unwrap();
        assert_eq!(info.depends, ["libcrc32c", "netfs", "rng_core"]);
        assert_eq!(info.release.as_deref(), Some("6.12.1"));
    }

    #[test]
    fn slimming_cuts_the_signature_and_hides_the_type_data() {
        let plain = module("depends=kvm\0");
        let mut signed = plain.clone();
        signed.extend_from_slice(&[7; 300]);
        signed.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 44]);
        signed.extend_from_slice(b"~Module signature appended~\n");
        assert_eq!(unsigned_len(&signed), plain.len());
        let slimmed = slim("kvm", signed).unwrap();
        assert_eq!(slimmed.len(), plain.len());
        let header = FileHeader64::<LittleEndian>::parse(slimmed.as_slice()).unwrap();
        let sections = header.sections(LittleEndian, slimmed.as_slice()).unwrap();
        assert!(sections.section_by_name(LittleEndian, b".BTF").is_none());
        assert_eq!(modinfo("kvm", &slimmed).unwrap().depends, ["kvm"]);
    }

    #[test]
    fn a_signature_longer_than_the_module_is_no_signature() {
        let mut bytes = vec![0; 12];
        bytes[8] = 0xff;
        bytes.extend_from_slice(b"~Module signature appended~\n");
        assert_eq!(unsigned_len(&bytes), bytes.len());
    }

    #[test]
    fn a_module_without_dependencies_has_none() {
        assert!(modinfo("loop", &module("depends=\0name=loop\0")).unwrap().depends.is_empty());
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let deps: &[(&str, &[&str])] = &[
            ("erofs", &["netfs", "libcrc32c"]),
            ("netfs", &["libcrc32c", "virtio"]),
            ("libcrc32c", &[]),
            ("overlay", &[]),
        ];
        let found = order(&["virtio", "erofs", "overlay", "netfs"], deps).unwrap();
        assert_eq!(found, ["libcrc32c", "netfs", "erofs", "overlay"]);
    }

    #[test]
    fn names_the_missing_module_and_who_needs_it() {
        let error = order(&["kvm-amd"], &[("kvm_amd", &["kvm"])]).unwrap_err();
        assert_eq!(error.to_string(), "kernel module kvm, needed by kvm_amd, is neither there nor built in");
    }

    #[test]
    fn refuses_a_cycle() {
        let deps: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &["a"])];
        assert!(matches!(order(&["a"], deps), Err(ModuleError::Cycle { .. })));
    }

    #[test]
    fn reads_the_list_of_built_in_modules() {
        let names = builtin("kernel/drivers/char/hw_random/rng-core.ko\nkernel/fs/fuse/virtiofs.ko\n");
        assert_eq!(names, BTreeSet::from(["rng_core".to_owned(), "virtiofs".to_owned()]));
    }

    #[test]
    fn a_module_cut_anywhere_is_refused() {
        let bytes = module("depends=kvm\0");
        for cut in 0..bytes.len() {
            assert!(modinfo("kvm", &bytes[..cut]).is_err(), "accepted {cut} of {}", bytes.len());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            at in 0usize..600, replacement in proptest::collection::vec(any::<u8>(), 1..16)
        ) {
            let mut bytes = module("depends=kvm\0vermagic=6.12.1 SMP\0");
            for (offset, value) in replacement.into_iter().enumerate() {
                if let Some(byte) = bytes.get_mut(at + offset) {
                    *byte = value;
                }
            }
            let _ = modinfo("kvm", &bytes);
        }
    }
}
