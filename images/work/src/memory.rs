//! Memory: known amounts, faults, latency.

use core::hint::black_box;

use isolab_bare::sys::Errno;
use isolab_bare::sys::memory::Pages;

use crate::{End, Run};

const PAGE: usize = 4096;

fn map_mib(run: &Run) -> Result<Pages, Errno> {
    let mib = usize::try_from(run.number(0, 1)?).map_err(|_| Errno::INVAL)?;
    Pages::map(mib.checked_mul(1 << 20).filter(|n| *n > 0).ok_or(Errno::INVAL)?)
}

fn write_each_page(pages: &mut [u8]) {
    for byte in pages.iter_mut().step_by(PAGE) {
        *byte = 1;
        black_box(&*byte);
    }
}

/// Writes to that many MiB of pages, then is ready: a known amount to find in every account.
pub(crate) fn touch(run: &Run) -> End {
    let mut pages = map_mib(run)?;
    write_each_page(&mut pages);
    run.ready();
    Ok(0)
}

/// Reads that many MiB of pages: the zero page, which costs tables only.
pub(crate) fn touch_read(run: &Run) -> End {
    let pages = map_mib(run)?;
    let sum: u64 = pages.iter().step_by(PAGE).map(|b| u64::from(*b)).sum();
    run.ready();
    if black_box(sum) == 0 { Ok(0) } else { Ok(1) }
}

/// Page faults on fresh memory, or on addresses whose pages were given back.
pub(crate) fn fault(run: &Run) -> End {
    let kind = run.arg(0).ok_or(Errno::INVAL)?.to_bytes();
    let n = usize::try_from(run.number(1, 16384)?).map_err(|_| Errno::INVAL)?;
    let mut pages = Pages::map(n.checked_mul(PAGE).filter(|n| *n > 0).ok_or(Errno::INVAL)?)?;
    let name = match kind {
        b"anon" => "fault anon",
        b"anon-again" => {
            write_each_page(&mut pages);
            pages.forget()?;
            "fault anon-again"
        }
        _ => return Err(Errno::INVAL),
    };
    run.measure(name, n as u64, || {
        write_each_page(&mut pages);
        Ok(())
    })
}

/// Dependent loads over a working set, each in another cache line, in a fixed scattered order.
pub(crate) fn chase(run: &Run) -> End {
    const LINE: usize = 64;
    let kib = usize::try_from(run.number(0, 1024)?).map_err(|_| Errno::INVAL)?;
    let n = run.number(1, 1_000_000)?;
    let lines = (kib.checked_mul(1024).ok_or(Errno::INVAL)? / LINE).next_power_of_two();
    let mut pages = Pages::map(lines.checked_mul(LINE).filter(|n| *n > 0).ok_or(Errno::INVAL)?)?;
    // A full-period generator over a power of two (Hull and Dobell): the loads visit every line once a period.
    let next = |i: usize| i.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & (lines - 1);
    for i in 0..lines {
        if let Some(slot) = pages.get_mut(i * LINE..).and_then(|s| s.first_chunk_mut::<8>()) {
            *slot = (next(i) as u64).to_le_bytes();
        }
    }
    run.measure("chase", n, || {
        let mut at = 0_usize;
        for _ in 0..n {
            let word = pages.get(at * LINE..).and_then(|s| s.first_chunk::<8>()).ok_or(Errno::INVAL)?;
            at = u64::from_le_bytes(*word) as usize;
        }
        black_box(at);
        Ok(())
    })
}
