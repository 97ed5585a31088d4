//! Giving up rights: what a registry could make of this process if it took it over.
//!
//! After [`confine`] it is an unprivileged user where it was root, without capabilities and without a way to any, and where
//! the kernel has Landlock (5.13 and later) it can open nothing but its working directory, the resolver's two files and the random devices.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope, path_beneath_rules,
};
use rustix::fs::chown;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// The user that owns nothing.
const NOBODY: u32 = 65534;
/// The resolver's configuration, and random numbers, which a static program reads from the devices. The certificates were
/// read before.
const READABLE: [&str; 4] = ["/etc/resolv.conf", "/etc/hosts", "/dev/random", "/dev/urandom"];
/// Newest rules that this program knows; older kernels enforce what they have.
const RULES: ABI = ABI::V6;
/// Most bytes of memory of its own. A pull takes a few MiB; a document is held as a whole before its size is known.
const MEMORY: u64 = 256 << 20;
/// Most descriptors.
const DESCRIPTORS: u64 = 64;

/// Closes everything but the three standard descriptors.
#[allow(unsafe_code)]
pub(crate) fn close_inherited() {
    // SAFETY: takes integers only. Called first in `main`: nothing that this program owns is open above 2. Where it fails
    // (kernels before 5.9), what was inherited stays open.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Gives up everything that pulling into the working directory does not take. Called by the only thread. Gives how far
/// Landlock limits it.
///
/// # Errors
/// Capabilities could not be dropped. The change of user and Landlock are as far as the kernel has them.
pub(crate) fn confine(file_bytes: u64) -> io::Result<RulesetStatus> {
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, file_bytes),
        (Resource::Data, MEMORY),
        (Resource::Nofile, DESCRIPTORS),
    ] {
        lower(resource, most)?;
    }
    set_no_new_privs(true)?;
    for capability in CapabilitySet::all().iter() {
        // Only root may, and only those that the kernel has. Without new privileges the set means nothing anyway.
        let _ = remove_capability_from_bounding_set(capability);
    }
    if geteuid().is_root() {
        become_nobody();
    }
    // Kernels before 4.3 have none.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    // After the change of user: no process of that user shall be started.
    lower(Resource::Nproc, 0)?;
    limit_files().map_err(io::Error::other)
}

fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let most = Some(getrlimit(resource).maximum.map_or(most, |hard| hard.min(most)));
    Ok(setrlimit(resource, Rlimit { current: most, maximum: most })?)
}

/// Becomes the owner of the working directory who owns nothing else. In a user namespace without that user, or without the
/// capabilities for it, stays who it is.
fn become_nobody() {
    let owner = |uid, gid| chown(".", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    if owner(NOBODY, NOBODY).is_err() {
        return;
    }
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let changed = set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid));
    if changed.is_err() {
        // What could be given could be taken back.
        let _ = owner(0, 0);
    }
}

/// Nothing can be opened or run outside of the working directory, no port listened on, no process outside signalled.
fn limit_files() -> Result<RulesetStatus, RulesetError> {
    let layout =
        AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::MakeDir | AccessFs::MakeReg;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(RULES))?
        .create()?
        .add_rules(path_beneath_rules(["."], layout))?
        .add_rules(path_beneath_rules(READABLE, AccessFs::ReadFile))?
        .restrict_self()?;
    Ok(status.ruleset)
}
