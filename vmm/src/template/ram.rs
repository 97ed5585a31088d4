//! Guest RAM in a file: its pages that are not zero, in pieces.

use std::fs::File;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use super::{TemplateError, damaged, len};
use crate::memory::{self, GuestRam, MemoryError};
use crate::{layout, sys};

const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;
/// A restored machine maps each piece by a call of its own, which costs more than some zero pages in the file.
const MOST_PIECES: usize = 16;
/// Zero pages that are stored rather than begin another piece; twice as many where there would be too many pieces.
const LEAST_GAP: u64 = 8;

/// A piece of guest RAM that stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Guest address.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
}

impl Piece {
    const fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// Writes what RAM holds; returns where it belongs.
pub(crate) fn store(ram: &GuestRam, bytes: u64, file: &File) -> Result<Vec<Piece>, TemplateError> {
    let failed = |source| TemplateError::File { step: "write the template's memory", source };
    let pieces = few(&written(ram, bytes).map_err(failed)?);
    let mut out = io::BufWriter::with_capacity(1 << 20, file);
    let mut page = [0; PAGE_LEN];
    for piece in &pieces {
        for at in (piece.start..piece.end()).step_by(PAGE_LEN) {
            let read = ram.read_slice(&mut page, GuestAddress(at)).map_err(io::Error::other);
            read.and_then(|()| out.write_all(&page)).map_err(failed)?;
        }
    }
    out.flush().map_err(failed)?;
    Ok(pieces)
}

/// The pages that are not zero, each neighbour joined to the one before it.
fn written(ram: &GuestRam, bytes: u64) -> io::Result<Vec<Piece>> {
    let mut found: Vec<Piece> = Vec::new();
    let mut page = [0; PAGE_LEN];
    for (start, len) in layout::ram_ranges(bytes) {
        for at in (start.0..start.0 + len).step_by(PAGE_LEN) {
            ram.read_slice(&mut page, GuestAddress(at)).map_err(io::Error::other)?;
            if page.iter().all(|&byte| byte == 0) {
                continue;
            }
            match found.last_mut().filter(|last| last.end() == at) {
                Some(last) => last.len += PAGE,
                None => found.push(Piece { start: at, len: PAGE }),
            }
        }
    }
    Ok(found)
}

/// Joins pieces over short gaps until they are few. None reaches over the device gap: it is wider than any RAM before it.
fn few(pieces: &[Piece]) -> Vec<Piece> {
    let mut gap = LEAST_GAP * PAGE;
    loop {
        let mut joined: Vec<Piece> = Vec::new();
        for piece in pieces {
            let same_side =
                |last: &Piece| (last.start < layout::GAP.start) == (piece.start < layout::GAP.start);
            match joined.last_mut().filter(|last| same_side(last) && piece.start - last.end() <= gap) {
                Some(last) => last.len = piece.end() - last.start,
                None => joined.push(*piece),
            }
        }
        if joined.len() <= MOST_PIECES || gap > layout::RAM_ABOVE_GAP {
            return joined;
        }
        gap *= 2;
    }
}

/// RAM of this many bytes with these pieces of the file in it, as a private copy; the rest is zero.
pub(crate) fn map(bytes: u64, pieces: &[Piece], file: &File) -> Result<GuestRam, crate::VmError> {
    let total = checked(bytes, pieces)?;
    if len(file)? != total {
        return Err(damaged("its memory is cut short or longer than it was").into());
    }
    let ram = memory::map(bytes)?;
    let mut offset = 0;
    for piece in pieces {
        let refused = |source| MemoryError::Map { bytes: piece.len, source };
        let size = usize::try_from(piece.len).map_err(|e| refused(io::Error::other(e)))?;
        sys::overlay(&ram, GuestAddress(piece.start), size, file, offset).map_err(refused)?;
        offset += piece.len;
    }
    memory::hide(&ram)?;
    Ok(ram)
}

/// How long a file with these pieces is; they must be whole pages of RAM, in order and apart.
pub(super) fn checked(bytes: u64, pieces: &[Piece]) -> Result<u64, TemplateError> {
    let ranges = layout::ram_ranges(bytes);
    let (mut next, mut total) = (0, 0_u64);
    if pieces.len() > 2 * MOST_PIECES {
        return Err(damaged("its memory has too many pieces"));
    }
    for piece in pieces {
        let end = piece.start.checked_add(piece.len);
        let whole = piece.start.is_multiple_of(PAGE) && piece.len.is_multiple_of(PAGE) && piece.len > 0;
        let in_ram =
            |end: u64| ranges.iter().any(|(start, len)| start.0 <= piece.start && end <= start.0 + len);
        let Some(end) = end.filter(|&end| whole && piece.start >= next && in_ram(end)) else {
            return Err(damaged("a piece of its memory lies outside of guest RAM"));
        };
        (next, total) = (end, total.saturating_add(piece.len));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES: u64 = 1 << 20;

    fn file() -> File {
        File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
    }

    #[test]
    fn memory_reads_back_as_it_was_stored_and_zero_pages_are_not_in_the_file() {
        let (ram, file) = (memory::map(BYTES).unwrap(), file());
        ram.write_slice(b"first", GuestAddress(0x1000)).unwrap();
        ram.write_slice(b"far", GuestAddress(0xf_f123)).unwrap();
        let pieces = store(&ram, BYTES, &file).unwrap();
        assert_eq!(len(&file).unwrap(), 2 * PAGE);
        let back = map(BYTES, &pieces, &file).unwrap();
        let read = |ram: &GuestRam| {
            let mut all = vec![0; usize::try_from(BYTES).unwrap()];
            ram.read_slice(&mut all, GuestAddress(0)).unwrap();
            all
        };
        assert!(read(&ram) == read(&back));
        assert!(memory::tests::is_kept_apart(&back));
        back.write_slice(b"own", GuestAddress(0x1000)).unwrap();
        assert!(read(&map(BYTES, &pieces, &file).unwrap()) == read(&ram), "a write reached the file");
    }

    #[test]
    fn a_file_of_another_length_is_refused() {
        let file = file();
        let pieces = [Piece { start: 0, len: PAGE }];
        for len in [0, PAGE - 1, 2 * PAGE] {
            file.set_len(len).unwrap();
            map(BYTES, &pieces, &file).unwrap_err();
        }
        file.set_len(PAGE).unwrap();
        map(BYTES, &pieces, &file).unwrap();
    }

    #[test]
    fn many_pieces_become_few() {
        let scattered: Vec<Piece> = (0..1000).map(|i| Piece { start: i * 20 * PAGE, len: PAGE }).collect();
        let joined = few(&scattered);
        assert!(joined.len() <= MOST_PIECES);
        assert!(scattered.iter().all(|p| joined.iter().any(|j| j.start <= p.start && p.end() <= j.end())));
    }

    proptest! {
        #[test]
        fn no_pieces_at_all_lead_out_of_ram(pieces in prop::collection::vec((any::<u64>(), any::<u64>()), 0..9)) {
            let pieces: Vec<Piece> = pieces.into_iter().map(|(start, len)| Piece { start, len }).collect();
            if let Ok(total) = checked(BYTES, &pieces) {
                prop_assert!(total <= BYTES && pieces.iter().all(|p| p.end() <= BYTES));
            }
        }
    }
}
