//! Holes in kernel files: pages of zeros that take no room and that nobody has to look at again.
//!
//! About a third of an unpacked kernel is zeros. Where its file has holes there, a monitor finds by `lseek` what it has to load
//! into guest memory (lseek(2): `SEEK_DATA`, `SEEK_HOLE`), instead of comparing each page at each start.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

const PAGE: usize = 4096;
const CHUNK: usize = 64 * PAGE;

/// Turns each whole page of zeros of a file that is open for writing into a hole; what is read from it stays the same. A file
/// system without holes keeps the zeros.
///
/// # Errors
/// The file can't be read or written.
pub fn dig(file: &File) -> io::Result<()> {
    for zeros in zeros(file)? {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(file, flags, zeros.start, zeros.end - zeros.start) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            done => done?,
        }
    }
    Ok(())
}

/// The whole pages of zeros, in as few ranges as can be.
fn zeros(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let read = fill(file, &mut chunk, at)?;
        let pages = (at..).step_by(PAGE).zip(chunk[..read].chunks_exact(PAGE));
        for (at, _) in pages.filter(|(_, page)| page.iter().all(|byte| *byte == 0)) {
            let end = at + PAGE as u64;
            match found.last_mut().filter(|last| last.end == at) {
                Some(last) => last.end = end,
                None => found.push(at..end),
            }
        }
        if read < CHUNK {
            return Ok(found);
        }
        at += CHUNK as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// Whose file system has holes and tells of them at once.
    fn in_memory() -> File {
        File::from(memfd_create("kernel", MemfdFlags::CLOEXEC).unwrap())
    }

    #[test]
    fn zeros_become_holes_and_nothing_else_changes() {
        let file = in_memory();
        let mut content = vec![0; 3 * CHUNK + 100];
        content[5 * PAGE..7 * PAGE].fill(1);
        content[CHUNK + PAGE - 1] = 1;
        file.write_all_at(&content, 0).unwrap();
        let before = file.metadata().unwrap().blocks();
        dig(&file).unwrap();
        let mut after = vec![0; content.len()];
        file.read_exact_at(&mut after, 0).unwrap();
        assert!(after == content);
        let meta = file.metadata().unwrap();
        assert_eq!(meta.len(), content.len() as u64);
        // Two pages of ones, the page before the second chunk's second one, and the last, which is not whole.
        assert!(meta.blocks() * 512 <= 4 * PAGE as u64 && meta.blocks() < before, "{}", meta.blocks());
    }

    #[test]
    fn ranges_of_zeros_reach_over_chunks() {
        let file = in_memory();
        file.set_len(2 * CHUNK as u64 + 1).unwrap();
        file.write_all_at(&[1], 9).unwrap();
        let all = PAGE as u64..2 * CHUNK as u64;
        assert_eq!(zeros(&file).unwrap(), std::slice::from_ref(&all));
    }

    #[test]
    fn a_file_that_is_open_for_reading_only_is_an_error() {
        let named = tempfile::NamedTempFile::new().unwrap();
        named.as_file().set_len(PAGE as u64).unwrap();
        let error = dig(&File::open(named.path()).unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::BADF.raw_os_error()));
    }
}
