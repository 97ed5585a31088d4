//! Why a start on the host's own kernel is refused or failed, in the words of `doctor`.

use isolab_bench::port::{StartError, Unavailable};
use isolab_container::child::{SpawnError, namespace};
use isolab_container::launch::LaunchError;
use isolab_container::root::RootError;
use isolab_wire::mark::{Failure, Step};
use rustix::io::Errno;

use crate::doctor;
use crate::hint::{self, Hint, UsernsOff};

/// Whether this user can make the namespaces of these levels, by the settings alone.
pub(super) fn namespaces() -> Result<(), Unavailable> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    doctor::userns_off().map_or(Ok(()), |why| Err(hint::userns_off(why).into()))
}

/// Why the child could not make the other namespaces after its user namespace.
pub(crate) fn namespaces_failed(errno: u16) -> Hint {
    let errno = Errno::from_raw_os_error(errno.into());
    match errno {
        Errno::NOSPC | Errno::USERS => hint::userns_off(UsernsOff::Full),
        // Of nobody's rights or settings.
        Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::INVAL | Errno::NOSYS => {
            hint::no_namespaces(errno)
        }
        _ if doctor::apparmor_restricts() => hint::userns_off(UsernsOff::AppArmor),
        _ if rustix::process::geteuid().is_root() => hint::no_sys_admin(),
        _ => hint::userns_off(UsernsOff::Refused),
    }
}

/// A failed start, in the words of `doctor` where it is one of the usual failures.
pub(super) fn explained(error: LaunchError) -> StartError {
    let root = rustix::process::geteuid().is_root();
    match error {
        LaunchError::Spawn(SpawnError::Clone { source: Errno::NOSPC | Errno::USERS, .. }) => {
            hint::userns_off(UsernsOff::Full).into()
        }
        LaunchError::Spawn(SpawnError::Clone { source: Errno::PERM, namespaces }) => {
            let user = namespaces & namespace::USER != 0;
            if user { hint::userns_off(UsernsOff::Refused) } else { hint::no_sys_admin() }.into()
        }
        LaunchError::Child(Failure { step: Step::Namespaces, errno }) => namespaces_failed(errno).into(),
        LaunchError::Root(RootError::Open(Errno::PERM)) => hint::no_sys_admin().into(),
        LaunchError::UserNotMapped { .. } if !root => {
            let Hint { reason, remedy } = doctor::one_id();
            format!("{error}: {reason}; {remedy}").into()
        }
        error => error.into(),
    }
}
