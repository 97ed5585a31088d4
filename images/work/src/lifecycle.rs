//! Starting, ending, dying.

use isolab_bare::sys::{Errno, clock, process};

use crate::{End, Run};

const SEGV: u64 = 11;

/// Nothing: the floor of every start-up.
pub(crate) fn null(run: &Run) -> End {
    run.ready();
    Ok(0)
}

/// Ends with a code.
pub(crate) fn exit(run: &Run) -> End {
    let code = run.number(0, 0)?;
    run.ready();
    u8::try_from(code).map_err(|_| Errno::INVAL)
}

/// Dies of a signal.
pub(crate) fn crash(run: &Run) -> End {
    let signal =
        u8::try_from(run.number(0, SEGV)?).ok().filter(|s| (1..=64).contains(s)).ok_or(Errno::INVAL)?;
    run.ready();
    die_of(signal)
}

/// Dies of a signal even where it is ignored or blocked.
pub(crate) fn die_of(signal: u8) -> End {
    // Refused for SIGKILL and SIGSTOP, which need no help.
    let _ = process::default_signal(signal);
    process::block_signals(0)?;
    process::kill(process::pid(), signal)?;
    // A signal whose default is to do nothing.
    Ok(1)
}

/// Keeps a CPU busy.
pub(crate) fn spin(run: &Run) -> End {
    let seconds = run.number(0, u64::MAX)?;
    let end = clock::monotonic_ns().saturating_add(seconds.saturating_mul(1_000_000_000));
    run.ready();
    while clock::monotonic_ns() < end {
        for _ in 0..1000 {
            core::hint::spin_loop();
        }
    }
    Ok(0)
}

/// Does nothing for ever.
pub(crate) fn pause(run: &Run) -> End {
    run.ready();
    loop {
        process::pause();
    }
}

/// Ready so many milliseconds after its start: a known time to find in the timeline.
pub(crate) fn ready_after(run: &Run) -> End {
    let now = clock::monotonic_ns();
    clock::sleep_until_ns(now.saturating_add(run.number(0, 0)?.saturating_mul(1_000_000)))?;
    run.ready();
    Ok(0)
}
