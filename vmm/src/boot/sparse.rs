//! Reads a kernel file into guest memory without touching the pages that stay zero.
//!
//! Fresh guest memory is zero, and a page that nobody writes costs the host nothing. About a third of an unpacked
//! distribution kernel is zeros (its bss is in the file).
//!
//! Where hardly any page of a large page's worth is zero, one large page is asked for: it takes one fault of the host and one of
//! the guest instead of 512 of each, and no more memory. The rest of guest RAM stays in small pages, for an exact account.

use std::io::{self, Read, Seek, SeekFrom};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use crate::sys::{self, FileAt, LARGE_PAGE};

const PAGE: usize = 4096;
/// Bytes of one read: large enough that calls do not count, small enough for the CPU's cache.
const CHUNK: usize = 16 * PAGE;
/// Pages of zeros in a large page, at most.
const MOST_ZEROS: usize = LARGE_PAGE / PAGE / 8;

/// The reader.
pub(crate) struct SparseReader<'a> {
    file: FileAt<'a>,
    chunk: Vec<u8>,
}

impl<'a> SparseReader<'a> {
    /// What is read from `file` must go to memory that is zero.
    pub(crate) fn new(file: FileAt<'a>) -> Self {
        Self { file, chunk: vec![0; CHUNK] }
    }
}

impl Read for SparseReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Seek for SparseReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl ReadVolatile for SparseReader<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let mut done = 0;
        while done < buf.len() {
            let place = buf.ptr_guard().as_ptr().addr() + done;
            let piece = (LARGE_PAGE - place % LARGE_PAGE).min(buf.len() - done);
            let mut to = buf.subslice(done, piece)?;
            let large = piece == LARGE_PAGE && self.is_dense(piece)? && sys::prefer_large(&to);
            let n = if large { self.file.read_volatile(&mut to)? } else { self.copy(&to)? };
            done += n;
            if n == 0 {
                break;
            }
        }
        Ok(done)
    }
}

impl SparseReader<'_> {
    /// Whether so few pages of the next piece are zero that one large page for it is little waste.
    fn is_dense(&mut self, len: usize) -> Result<bool, VolatileMemoryError> {
        let mut ahead = self.file.clone();
        let (mut left, mut zeros) = (len, 0);
        while left > 0 && zeros <= MOST_ZEROS {
            let n = next(&mut ahead, &mut self.chunk[..CHUNK.min(left)])?;
            if n == 0 {
                return Ok(false);
            }
            zeros += self.chunk[..n].chunks(PAGE).filter(|page| is_zero(page)).count();
            left -= n;
        }
        Ok(zeros <= MOST_ZEROS)
    }

    /// Copies the next pages that are not zero.
    fn copy<B: BitmapSlice>(&mut self, to: &VolatileSlice<'_, B>) -> Result<usize, VolatileMemoryError> {
        let mut done = 0;
        while done < to.len() {
            let chunk = &mut self.chunk[..CHUNK.min(to.len() - done)];
            let n = next(&mut self.file, chunk)?;
            for (i, page) in chunk[..n].chunks(PAGE).enumerate().filter(|(_, page)| !is_zero(page)) {
                to.subslice(done + i * PAGE, page.len())?.copy_from(page);
            }
            done += n;
            if n == 0 {
                break;
            }
        }
        Ok(done)
    }
}

fn is_zero(page: &[u8]) -> bool {
    const ZEROS: [u8; PAGE] = [0; PAGE];
    *page == ZEROS[..page.len()]
}

/// Reads what comes next, at most `chunk`; 0 at the end of the file.
fn next(file: &mut FileAt<'_>, chunk: &mut [u8]) -> Result<usize, VolatileMemoryError> {
    loop {
        match file.read(chunk) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map_err(VolatileMemoryError::IOError),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    use super::*;
    use crate::memory::{self, GuestRam};

    const RAM: usize = 64 * PAGE;

    /// Pages of `len` bytes of RAM that the host had to provide (bit 63 of an entry of `pagemap`).
    fn resident(ram: &GuestRam, at: usize, len: usize) -> usize {
        let start = ram.get_host_address(GuestAddress(at as u64)).unwrap() as u64;
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let mut entries = vec![0; len / PAGE * 8];
        pagemap.read_exact_at(&mut entries, start / PAGE as u64 * 8).unwrap();
        entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count()
    }

    fn file(bytes: &[u8]) -> File {
        let file = File::from(rustix::fs::memfd_create("kernel", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn load(bytes: &[u8]) -> GuestRam {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let file = file(bytes);
        let mut reader = SparseReader::new(FileAt::new(&file, 0, bytes.len() as u64));
        ram.read_exact_volatile_from(GuestAddress(0), &mut reader, bytes.len()).unwrap();
        ram
    }

    #[test]
    fn pages_of_zeros_take_no_memory() {
        let mut bytes = vec![0; RAM];
        bytes[5 * PAGE] = 1;
        bytes[20 * PAGE..30 * PAGE].fill(7);
        let ram = load(&bytes);
        let mut copy = vec![0; RAM];
        let pages = resident(&ram, 0, RAM);
        ram.read_slice(&mut copy, GuestAddress(0)).unwrap();
        assert!(copy == bytes);
        assert_eq!(pages, 11);
    }

    #[test]
    fn what_is_dense_is_read_whole_and_the_rest_without_its_zeros() {
        let zeros = MOST_ZEROS + 1;
        let mut bytes = vec![7; 2 * LARGE_PAGE + 3 * PAGE + 5];
        bytes[LARGE_PAGE..][..zeros * PAGE].fill(0);
        let ram = memory::map(4 * LARGE_PAGE as u64).unwrap();
        let file = file(&bytes);
        let mut reader = SparseReader::new(FileAt::new(&file, 0, bytes.len() as u64));
        ram.read_exact_volatile_from(GuestAddress(0), &mut reader, bytes.len()).unwrap();
        let pages = [0, 1, 2, 3].map(|n| resident(&ram, n * LARGE_PAGE, LARGE_PAGE));
        let mut copy = vec![0; bytes.len()];
        ram.read_slice(&mut copy, GuestAddress(0)).unwrap();
        assert!(copy == bytes);
        let whole = LARGE_PAGE / PAGE;
        assert_eq!(pages, [whole, whole - zeros, 4, 0]);
    }

    #[test]
    fn a_short_file_is_an_error() {
        let ram = GuestRam::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let file = file(&[1; 5000]);
        let mut reader = SparseReader::new(FileAt::new(&file, 0, 5000));
        let result = ram.read_exact_volatile_from(GuestAddress(0), &mut reader, 5001);
        result.expect_err("5000 bytes became 5001");
    }

    proptest! {
        #[test]
        fn memory_holds_what_the_file_holds(
            pieces in prop::collection::vec((0..RAM - 1, 1_usize..6000, any::<u8>()), 0..6),
            len in 1..RAM,
        ) {
            let mut bytes = vec![0; RAM];
            for (at, n, byte) in pieces {
                let end = RAM.min(at + n);
                bytes[at..end].fill(byte);
            }
            let ram = load(&bytes[..len]);
            let mut copy = vec![0; len];
            ram.read_slice(&mut copy, GuestAddress(0)).unwrap();
            prop_assert!(copy == bytes[..len]);
        }
    }
}
