//! The padding inside of a kernel's code: whole pages of breakpoint instructions, up to 2 MiB in a row, before what must begin
//! with a page of 2 MiB.
//!
//! As zeros they are not loaded: what a guest never touches costs its host nothing. Nothing jumps there; what an attacker
//! made jump there would not be stopped at once by a zero as by a breakpoint: that much hardening it costs.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{FileHeader64, SHF_EXECINSTR};
use object::read::elf::{FileHeader, SectionHeader};

/// Code 0xcc, `int3`: what the linker fills with.
const BREAKPOINT: u8 = 0xcc;
const PAGE: usize = 4096;

/// Makes zeros of the padding; returns the number of pages.
///
/// # Errors
/// Not an ELF file.
pub(super) fn clear(kernel: &mut [u8]) -> Result<usize, object::Error> {
    let mut pages = 0;
    for section in code(kernel)? {
        let section = kernel.get_mut(section).unwrap_or_default();
        let is_padding = |page: &&mut [u8]| page.iter().all(|&byte| byte == BREAKPOINT);
        pages += section.chunks_exact_mut(PAGE).filter(is_padding).map(|page| page.fill(0)).count();
    }
    Ok(pages)
}

/// Where the sections of code are in the file, from their first whole page on.
fn code(kernel: &[u8]) -> Result<Vec<Range<usize>>, object::Error> {
    let e = LittleEndian;
    let header = FileHeader64::<LittleEndian>::parse(kernel)?;
    let sections = header.sections(e, kernel)?;
    let executed = sections.iter().filter(|section| section.sh_flags(e).contains(SHF_EXECINSTR));
    let ranges = executed.filter_map(|section| {
        let (start, size) = section.file_range(e)?;
        let (start, size) = (usize::try_from(start).ok()?, usize::try_from(size).ok()?);
        Some(start.next_multiple_of(PAGE)..start.checked_add(size)?)
    });
    Ok(ranges.collect())
}

#[cfg(test)]
mod tests {
    use object::write::{Object, StandardSection};
    use object::{Architecture, BinaryFormat, Endianness};

    use super::*;

    #[test]
    fn only_whole_pages_of_padding_in_code_become_zeros() {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let code = [[0xcc; PAGE], [0x90; PAGE], [0xcc; PAGE], [0xcc; PAGE]].concat();
        let (text, data) =
            (object.section_id(StandardSection::Text), object.section_id(StandardSection::Data));
        object.append_section_data(text, &code, 4096);
        object.append_section_data(data, &code, 4096);
        let before = object.write().unwrap();
        let mut after = before.clone();
        assert_eq!(clear(&mut after).unwrap(), 3);
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert_eq!(changed.count(), 3 * PAGE);
        assert_eq!(clear(&mut after).unwrap(), 0);
        clear(&mut [0; 100]).unwrap_err();
    }
}
