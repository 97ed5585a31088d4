//! Reads a kernel file into guest memory without touching the pages that stay zero.
//!
//! Fresh guest memory is zero, and a page that nobody writes costs the host nothing. About a third of an unpacked
//! distribution kernel is zeros (its bss is in the file).

use std::io::{self, Read, Seek, SeekFrom};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use crate::sys::FileAt;

const PAGE: usize = 4096;
/// Bytes of one read: large enough that calls do not count, small enough for the CPU's cache.
const CHUNK: usize = 16 * PAGE;

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
        const ZEROS: [u8; PAGE] = [0; PAGE];
        let mut done = 0;
        while done < buf.len() {
            let want = CHUNK.min(buf.len() - done);
            let chunk = &mut self.chunk[..want];
            let n = match self.file.read(chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(VolatileMemoryError::IOError(e)),
            };
            for (i, page) in chunk[..n].chunks(PAGE).enumerate() {
                if *page != ZEROS[..page.len()] {
                    buf.subslice(done + i * PAGE, page.len())?.copy_from(page);
                }
            }
            done += n;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    use super::*;
    use crate::memory::GuestRam;

    const RAM: usize = 64 * PAGE;

    /// Pages of RAM that the host had to provide (bit 63 of an entry of `pagemap`).
    fn resident(ram: &GuestRam) -> usize {
        let start = ram.get_host_address(GuestAddress(0)).unwrap() as u64;
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let mut entries = [0; RAM / PAGE * 8];
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
        let pages = resident(&ram);
        ram.read_slice(&mut copy, GuestAddress(0)).unwrap();
        assert!(copy == bytes);
        assert_eq!(pages, 11);
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
