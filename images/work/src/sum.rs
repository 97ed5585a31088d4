//! A hash over memory: something like an application.

use core::hint::black_box;

use isolab_bare::sys::Errno;
use isolab_bare::sys::memory::Pages;

use crate::{End, Run};

/// FNV-1a, 64 bits, over that many MiB.
pub(crate) fn hash(run: &Run) -> End {
    let mib = usize::try_from(run.number(0, 8)?).map_err(|_| Errno::INVAL)?;
    let mut pages = Pages::map(mib.checked_mul(1 << 20).filter(|n| *n > 0).ok_or(Errno::INVAL)?)?;
    for (i, byte) in pages.iter_mut().enumerate() {
        *byte = i as u8;
    }
    run.measure("hash", mib as u64, || {
        let fnv = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        black_box(pages.iter().fold(0xcbf2_9ce4_8422_2325, fnv));
        Ok(())
    })
}
