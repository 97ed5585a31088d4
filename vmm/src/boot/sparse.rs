//! Reads a kernel file into guest memory and passes over the holes of the file.
//!
//! Fresh guest memory is zero, and a page that nobody writes costs the host nothing. About a third of an unpacked
//! distribution kernel is zeros (its bss is in the file), and entries of the store have holes there (`isolab_images::kernels::dig`).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use rustix::fs::{SeekFrom as Find, seek};
use rustix::io::Errno;
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use crate::sys::FileAt;

/// The reader.
pub(crate) struct SparseReader<'a>(FileAt<'a>);

impl<'a> SparseReader<'a> {
    /// What is read from `file` must go to memory that is zero.
    pub(crate) const fn new(file: FileAt<'a>) -> Self {
        Self(file)
    }
}

impl Read for SparseReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for SparseReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl ReadVolatile for SparseReader<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let (file, rest) = self.0.rest();
        let end = rest.end.min(rest.start.saturating_add(buf.len() as u64));
        let place = |at: u64| usize::try_from(at - rest.start).unwrap_or(buf.len());
        let mut at = rest.start;
        while at < end {
            let piece = data(file, at..end).map_err(VolatileMemoryError::IOError)?;
            // Behind its end a file is no hole: it was cut since its length was read.
            if piece.is_empty() && file.metadata().map_err(VolatileMemoryError::IOError)?.len() < end {
                return Err(VolatileMemoryError::IOError(io::ErrorKind::UnexpectedEof.into()));
            }
            self.0.seek(SeekFrom::Start(piece.start)).map_err(VolatileMemoryError::IOError)?;
            let mut part = buf.subslice(place(piece.start), place(piece.end) - place(piece.start))?;
            self.0.read_exact_volatile(&mut part)?;
            at = piece.end;
        }
        Ok(place(at))
    }
}

/// The first piece of this range of a file that is not a hole; an empty one at its end where all of it is. Moves the cursor of the
/// file, which nothing here reads by.
pub(crate) fn data(file: &File, range: Range<u64>) -> io::Result<Range<u64>> {
    let found = |find, otherwise: u64| match seek(file, find) {
        // There is none up to the end of the file.
        Err(Errno::NXIO) => Ok(otherwise),
        found => found,
    };
    if range.is_empty() {
        return Ok(range.end..range.end);
    }
    let start = found(Find::Data(range.start), range.end)?;
    if start >= range.end {
        return Ok(range.end..range.end);
    }
    Ok(start..found(Find::Hole(start), range.end)?.min(range.end))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    use super::*;
    use crate::memory::GuestRam;

    const PAGE: usize = 4096;
    const RAM: usize = 64 * PAGE;

    /// Pages of RAM that the host had to provide (bit 63 of an entry of `pagemap`).
    fn resident(ram: &GuestRam) -> usize {
        let start = ram.get_host_address(GuestAddress(0)).unwrap() as u64;
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let mut entries = [0; RAM / PAGE * 8];
        pagemap.read_exact_at(&mut entries, start / PAGE as u64 * 8).unwrap();
        entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count()
    }

    /// A file with holes where whole pages are zeros.
    fn file(bytes: &[u8]) -> File {
        let file = File::from(rustix::fs::memfd_create("kernel", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(bytes.len() as u64).unwrap();
        for (page, at) in bytes.chunks(PAGE).zip((0..).step_by(PAGE)) {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, at).unwrap();
            }
        }
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
    fn holes_take_no_memory() {
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
        // One that was cut after it was measured.
        let mut reader = SparseReader::new(FileAt::new(&file, 0, 50_000));
        let result = ram.read_exact_volatile_from(GuestAddress(0), &mut reader, 50_000);
        result.expect_err("5000 bytes became 50,000");
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
