//! Memory: known amounts, latency, bandwidth.

use core::hint::black_box;

use isolab_bare::sys::memory::Pages;
use isolab_bare::sys::{Errno, io};

use crate::{End, Run, STDIN, STDOUT};

pub(crate) const PAGE: usize = 4096;

fn map(size: u64, unit: usize) -> Result<Pages, Errno> {
    let size = usize::try_from(size).map_err(|_| Errno::INVAL)?;
    Pages::map(size.checked_mul(unit).filter(|n| *n > 0).ok_or(Errno::INVAL)?)
}

pub(crate) fn write_each_page(pages: &mut [u8]) {
    for byte in pages.iter_mut().step_by(PAGE) {
        *byte = 1;
        black_box(&*byte);
    }
}

/// Writes to that many MiB of pages, then is ready: a known amount to find in every account.
pub(crate) fn touch(run: &Run) -> End {
    let mut pages = map(run.number(0, 1)?, 1 << 20)?;
    write_each_page(&mut pages);
    run.ready();
    Ok(0)
}

/// Reads that many MiB of pages: the zero page, which costs tables only.
pub(crate) fn touch_read(run: &Run) -> End {
    let pages = map(run.number(0, 1)?, 1 << 20)?;
    let sum: u64 = pages.iter().step_by(PAGE).map(|b| u64::from(*b)).sum();
    run.ready();
    if black_box(sum) == 0 { Ok(0) } else { Ok(1) }
}

/// Writes to that many MiB of pages and says so; gives them back at a byte of input, says so, and stays until the input ends.
pub(crate) fn touch_free(run: &Run) -> End {
    let mut pages = map(run.number(0, 1)?, 1 << 20)?;
    write_each_page(&mut pages);
    run.ready();
    io::write_all(STDOUT, b"touched\n")?;
    let mut byte = [0];
    if io::read(STDIN, &mut byte)? == 0 {
        return Ok(1);
    }
    drop(pages);
    io::write_all(STDOUT, b"freed\n")?;
    while io::read(STDIN, &mut byte)? > 0 {}
    Ok(0)
}

/// Dependent loads over a working set, each in another cache line, in a fixed scattered order.
pub(crate) fn chase(run: &Run) -> End {
    const LINE: usize = 64;
    let kib = usize::try_from(run.number(0, 1024)?).map_err(|_| Errno::INVAL)?;
    let lines = (kib.checked_mul(1024).ok_or(Errno::INVAL)? / LINE).checked_next_power_of_two();
    let lines = lines.ok_or(Errno::INVAL)?;
    let mut pages = map(lines as u64, LINE)?;
    // A full-period generator over a power of two (Hull and Dobell): the loads visit every line once a period.
    let next = |i: usize| i.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & (lines - 1);
    for i in 0..lines {
        if let Some(slot) = pages.get_mut(i * LINE..).and_then(|s| s.first_chunk_mut::<8>()) {
            *slot = (next(i) as u64).to_le_bytes();
        }
    }
    run.measure("chase", 1, 1_000_000, |n| {
        let mut at = 0_usize;
        for _ in 0..n {
            let word = pages.get(at * LINE..).and_then(|s| s.first_chunk::<8>()).ok_or(Errno::INVAL)?;
            at = u64::from_le_bytes(*word) as usize;
        }
        black_box(at);
        Ok(())
    })
}

/// Loads one after the other through a working set; an operation is one KiB.
pub(crate) fn stream(run: &Run) -> End {
    let mut pages = map(run.number(0, 16 * 1024)?, 1024)?;
    write_each_page(&mut pages);
    let mut blocks = pages.chunks_exact(1024).cycle();
    run.measure("stream", 1, 1_000_000, |n| {
        let mut sum = 0_u64;
        for block in blocks.by_ref().take(n as usize) {
            for word in block.as_chunks::<8>().0 {
                sum = sum.wrapping_add(u64::from_le_bytes(*word));
            }
        }
        black_box(sum);
        Ok(())
    })
}
