//! What the monitor gives up before its guest runs: everything that it needs is open by then, and it goes on with descriptors only.
//!
//! Its root becomes an empty directory, and the only mount of its mount namespace; its user one that nobody else is; it has no
//! capability and no way to one, and no number left for another descriptor. What it can still ask the kernel for is in `filter`.
//!
//! It has no network, process or IPC namespace of its own: no system call is left that looks into one, but `tgkill`, which the filter
//! keeps to its own process. What limits the capabilities of the next program that it executes (the bounding set) stays as it was:
//! it executes none.

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};

use crate::sys;
use rustix::fs::CWD;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, chdir, chroot, fchdir, getppid, pivot_root,
    set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// Numbers of descriptors end here for a monitor: as many as it waits for at once (`poll` takes no more) are below.
const DESCRIPTORS: u64 = 16;

/// Who a monitor becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jail {
    /// A user and a group that nobody else is; for a monitor that root starts.
    Own {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// The user who started it, in the user namespace in which it was started: nobody is mapped there.
    UserNamespace,
}

/// A step into the jail failed.
#[derive(Debug, thiserror::Error)]
#[error("confine the monitor: {step}")]
pub struct JailError {
    /// Which step.
    step: &'static str,
    /// Why.
    source: Errno,
}

fn at(step: &'static str) -> impl FnOnce(Errno) -> JailError {
    move |source| JailError { step, source }
}

/// Goes there. The process has one thread, and `spare` is any descriptor of its own.
pub(crate) fn enter(jail: Jail, spare: BorrowedFd<'_>) -> Result<(), JailError> {
    let parent = getppid();
    empty_root().map_err(at("empty its root directory"))?;
    if let Jail::Own { uid, gid } = jail {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_groups(&[]).map_err(at("give up its groups"))?;
        set_thread_res_gid(gid, gid, gid).map_err(at("change its group"))?;
        set_thread_res_uid(uid, uid, uid).map_err(at("change its user"))?;
        // Then its memory and descriptors are root's alone to look at. Those of the user who started it are that user's.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at("hide its memory"))?;
    }
    give_up_privileges().map_err(at("give up its capabilities"))?;
    // A change of user takes this away.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(at("tie it to isolab"))?;
    if getppid() != parent {
        return Err(at("tie it to isolab")(Errno::SRCH));
    }
    limit(spare).map_err(at("limit its resources"))
}

/// Gives up every capability, and the way to new ones. Of the calling thread and those that it starts from here on.
pub(crate) fn give_up_privileges() -> Result<(), Errno> {
    set_no_new_privs(true)?;
    // Kernels before 4.3 have none.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// A mount namespace of its own, in which there is an empty directory that can't be written and nothing else.
fn empty_root() -> Result<(), Errno> {
    sys::unshare_mounts()?;
    // What happens to mounts from here on happens in this namespace only.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&tmpfs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    fchdir(&root)?;
    match pivot_root(".", ".") {
        // The old root now lies on the new one.
        Ok(()) => unmount(".", UnmountFlags::DETACH)?,
        // The kernel's first root can't be pivoted away from: it is covered, and left.
        Err(Errno::INVAL) => chroot(".")?,
        Err(errno) => return Err(errno),
    }
    chdir("/")
}

/// No core dump (a limit of 1 byte keeps it from the host's handler, too), and no descriptor besides those that are open.
fn limit(spare: BorrowedFd<'_>) -> Result<(), Errno> {
    let both = |most| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Core, both(1))?;
    // Numbers that are free below the limit are taken, once and for all.
    loop {
        let taken = fcntl_dupfd_cloexec(spare, 0)?;
        if u64::try_from(taken.as_raw_fd()).is_ok_and(|number| number >= DESCRIPTORS) {
            break;
        }
        let _open = taken.into_raw_fd();
    }
    setrlimit(Resource::Nofile, both(DESCRIPTORS))
}

#[cfg(test)]
mod tests {
    use std::thread::spawn;

    use super::*;

    #[test]
    fn no_capability_is_left_and_no_thread_gets_one() {
        let status = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        // In a thread of its own: the other tests keep theirs.
        let [own, started] = spawn(move || {
            give_up_privileges().unwrap();
            [status(), spawn(status).join().unwrap()]
        })
        .join()
        .unwrap();
        for text in [own, started] {
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert!(text.contains(&format!("{set}:\t0000000000000000\n")), "{text}");
            }
            assert!(text.contains("NoNewPrivs:\t1\n"), "{text}");
        }
    }
}
