//! Which pieces of guest RAM are to be one large page each: those of which a kernel that starts touches nearly all.
//!
//! A large page takes one fault of the host and one of the guest instead of 512 of each, and hardly more memory. All other RAM
//! stays in small pages, so that the account of memory tells what the guest touched.

use std::fs::File;
use std::io;
use std::ops::Range;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::boot::kernel::{KernelError, KernelInfo, Segment};
use crate::boot::sparse;
use crate::layout;
use crate::memory::GuestRam;
use crate::sys::{self, LARGE_PAGE};

const PAGE: usize = 4096;
const LARGE: u64 = LARGE_PAGE as u64;
/// Pages of a large one that nobody touches, at most.
const MOST_UNUSED: usize = LARGE_PAGE / PAGE / 8;
/// The kernel's description of one page (`struct page`) takes 64 bytes of 4096.
const PAGES_PER_DESCRIPTION: u64 = 64;

/// Asks for them, before anything is written there.
///
/// # Errors
/// The kernel file can't be read.
pub(crate) fn prefer(ram: &GuestRam, file: &File, info: &KernelInfo) -> Result<(), KernelError> {
    let bytes = ram.iter().map(vm_memory::GuestMemoryRegion::len).sum();
    let of_kernel = of_kernel(file, info).map_err(KernelError::Read)?;
    for start in of_kernel.into_iter().chain(of_page_descriptions(bytes)) {
        // Where RAM ends before, there is nothing to ask for; a host without large pages gives small ones.
        if let Ok(piece) = ram.get_slice(GuestAddress(start), LARGE_PAGE) {
            sys::prefer_large(&piece);
        }
    }
    Ok(())
}

/// Those of its image. Gaps between segments are touched, the kernel fills them with a pattern before it gives them back, and so are
/// its variables, which are spread, whether the file has bytes for them or not. Holes in code and constants are padding.
fn of_kernel(file: &File, info: &KernelInfo) -> io::Result<Vec<u64>> {
    let Some(last) = info.memory_end.checked_sub(1) else { return Ok(Vec::new()) };
    let first = info.memory_start / LARGE;
    let mut unused: Vec<usize> =
        (first..=last / LARGE).map(|n| outside(n * LARGE, &(info.memory_start..info.memory_end))).collect();
    for segment in info.segments.iter().filter(|segment| !segment.writable) {
        count_holes(file, segment, first, &mut unused)?;
    }
    let few = (first..).zip(unused).filter(|(_, count)| *count <= MOST_UNUSED);
    Ok(few.map(|(n, _)| n * LARGE).collect())
}

/// Counts the pages of this segment that are holes of the file by large page, the first of which has the number `first`.
fn count_holes(file: &File, segment: &Segment, first: u64, unused: &mut [usize]) -> io::Result<()> {
    let end = segment.offset.saturating_add(segment.file_bytes);
    let mut at = segment.offset;
    while at < end {
        let data = sparse::data(file, at..end)?;
        let [from, to] = [at, data.start].map(|offset| segment.place.saturating_add(offset - segment.offset));
        for n in from / LARGE..to.div_ceil(LARGE) {
            let inside = to.min((n + 1) * LARGE).saturating_sub(from.max(n * LARGE));
            let number = usize::try_from(n - first).unwrap_or(usize::MAX);
            if let (Some(count), Ok(inside)) = (unused.get_mut(number), usize::try_from(inside)) {
                *count += inside / PAGE;
            }
        }
        at = data.end;
    }
    Ok(())
}

/// Pages of the large one at `start` that are not in this range.
fn outside(start: u64, range: &Range<u64>) -> usize {
    let inside = range.end.min(start + LARGE).saturating_sub(range.start.max(start));
    LARGE_PAGE / PAGE - usize::try_from(inside).unwrap_or(LARGE_PAGE).div_ceil(PAGE)
}

/// Those of the kernel's list of all pages, which it makes in the highest whole large pages below what it took before.
fn of_page_descriptions(bytes: u64) -> impl Iterator<Item = u64> {
    let end = layout::ram_ranges(bytes).last().map_or(0, |(start, len)| start.0 + len);
    let last = end.saturating_sub(1) / LARGE;
    let count = bytes / PAGES_PER_DESCRIPTION / LARGE;
    (last.saturating_sub(count)..last).map(|n| n * LARGE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::boot::kernel::KernelFormat;

    const MIB: u64 = 1 << 20;

    /// A kernel from 16 MiB on: two large pages of code of which the second is three quarters zeros, a gap, and data and variables
    /// up to 2 KiB before the end of the fifth large page.
    fn kernel() -> (File, KernelInfo) {
        let file = File::from(rustix::fs::memfd_create("kernel", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(&vec![1; LARGE_PAGE + LARGE_PAGE / 4], 100).unwrap();
        file.write_all_at(&[2; 5 * PAGE], 100 + 2 * LARGE).unwrap();
        // A hole of its variables, which are touched all the same.
        file.set_len(100 + 2 * LARGE + MIB).unwrap();
        let code = Segment {
            offset: 100,
            place: 16 * MIB,
            file_bytes: 2 * LARGE,
            memory_bytes: 2 * LARGE,
            writable: false,
        };
        let data = Segment {
            offset: 100 + 2 * LARGE,
            place: 21 * MIB,
            file_bytes: MIB,
            memory_bytes: 5 * MIB - 2048,
            writable: true,
        };
        let info = KernelInfo {
            format: KernelFormat::Elf,
            version: String::new(),
            memory_end: 26 * MIB - 2048,
            memory_start: 16 * MIB,
            entry: 16 * MIB,
            initramfs_max: u64::MAX,
            segments: vec![code, data],
        };
        (file, info)
    }

    #[test]
    fn what_is_used_is_large_and_what_is_padding_is_not() {
        let (file, info) = kernel();
        assert_eq!(of_kernel(&file, &info).unwrap(), [16 * MIB, 20 * MIB, 22 * MIB, 24 * MIB]);
        let short = KernelInfo { memory_end: 25 * MIB, ..info };
        assert_eq!(of_kernel(&file, &short).unwrap(), [16 * MIB, 20 * MIB, 22 * MIB]);
    }

    #[test]
    fn one_in_sixty_four_describes_the_others() {
        let of = |bytes| of_page_descriptions(bytes).collect::<Vec<_>>();
        assert_eq!(of(128 * MIB), [124 * MIB]);
        assert_eq!(of(256 * MIB), [250 * MIB, 252 * MIB]);
        assert!(of(64 * MIB).is_empty());
        let most = of(5 << 30);
        assert_eq!((most.len(), most.last()), (40, Some(&(layout::RAM_ABOVE_GAP + (1792 - 4) * MIB))));
    }
}
