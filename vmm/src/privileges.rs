//! What the monitor gives up before its guest runs: everything that it needs is open by then.

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};

/// Gives up every capability, and the way to new ones. Of the calling thread and those that it starts from here on.
///
/// # Errors
/// The kernel refuses it.
pub(crate) fn give_up() -> rustix::io::Result<()> {
    set_no_new_privs(true)?;
    // Kernels before 4.3 have none.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
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
            give_up().unwrap();
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
