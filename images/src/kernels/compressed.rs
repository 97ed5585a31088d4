//! Compressed pieces of packages: modules and kernel payloads, recognised by their first bytes.

use std::borrow::Cow;
use std::io::{self, Read};

use lzma_rust2::XzReader;

/// Largest unpacked block of the legacy LZ4 frame.
const LZ4_BLOCK: usize = 8 << 20;

/// Largest xz dictionary accepted, in KiB: `xz -9` needs 64 MiB, Debian's packages 64 MiB.
const XZ_LIMIT_KIB: u32 = 256 << 10;

/// Content of `bytes`, decompressed if they are xz, gzip, zstd or lz4, at most `limit` bytes of it.
///
/// # Errors
/// Damaged or cut short, or more than `limit` bytes.
pub(super) fn expand(bytes: &[u8], limit: u64) -> io::Result<Cow<'_, [u8]>> {
    let Some(reader) = reader(bytes)? else {
        return Ok(Cow::Borrowed(bytes));
    };
    let mut out = Vec::new();
    reader.take(limit + 1).read_to_end(&mut out)?;
    if u64::try_from(out.len()).is_ok_and(|len| len > limit) {
        return Err(io::Error::other(format!("more than {} MiB when unpacked", limit >> 20)));
    }
    Ok(Cow::Owned(out))
}

/// A decompressing reader, or nothing where the bytes are of no known compression.
///
/// # Errors
/// The header is damaged.
pub(super) fn reader<'a>(bytes: &'a [u8]) -> io::Result<Option<Box<dyn Read + 'a>>> {
    Ok(match bytes {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Box::new(xz(bytes))),
        [0x1f, 0x8b, ..] => Some(Box::new(flate2::read::GzDecoder::new(bytes))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            // Its default limit on the window is 128 MiB, the most that kernel builds use.
            let stream = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(io::Error::other)?;
            Some(Box::new(stream))
        }
        [0x02, 0x21, 0x4c, 0x18, rest @ ..] => Some(Box::new(Lz4Legacy { rest, block: Vec::new(), at: 0 })),
        _ => None,
    })
}

/// A reader of xz.
pub(super) fn xz<R: Read>(bytes: R) -> XzReader<R> {
    XzReader::new_mem_limit(bytes, true, XZ_LIMIT_KIB)
}

/// The legacy frame of LZ4 (`lz4 -l`), which kernel payloads use: blocks of up to 8 MiB, each after its
/// compressed length.
#[derive(Debug)]
struct Lz4Legacy<'a> {
    rest: &'a [u8],
    block: Vec<u8>,
    at: usize,
}

impl Lz4Legacy<'_> {
    /// Unpacks the next block; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let cut_short = || io::Error::new(io::ErrorKind::UnexpectedEof, "an lz4 block is cut short");
        // What is left at the end of a payload is the unpacked size that the kernel's build appends.
        if self.rest.len() <= 4 {
            return Ok(false);
        }
        let (len, rest) = self.rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(io::Error::other)?;
        let (block, rest) = rest.split_at_checked(len).ok_or_else(cut_short)?;
        self.block.resize(LZ4_BLOCK, 0);
        let n = lz4_flex::block::decompress_into(block, &mut self.block).map_err(io::Error::other)?;
        self.block.truncate(n);
        (self.rest, self.at) = (rest, 0);
        Ok(true)
    }
}

impl Read for Lz4Legacy<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if !self.advance()? {
                return Ok(0);
            }
        }
        let n = buf.len().min(self.block.len() - self.at);
        buf[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two blocks and the size that a kernel's build appends.
    fn payload(parts: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![0x02, 0x21, 0x4c, 0x18];
        for part in parts {
            let block = lz4_flex::block::compress(part);
            out.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            out.extend(block);
        }
        out.extend(u32::try_from(parts.concat().len()).unwrap().to_le_bytes());
        out
    }

    #[test]
    fn unpacks_the_blocks_of_a_legacy_lz4_frame() {
        let (one, two) = (vec![7; 100_000], b"the second block".to_vec());
        let packed = payload(&[&one, &two]);
        assert_eq!(expand(&packed, 1 << 20).unwrap(), [one, two].concat());
    }

    #[test]
    fn refuses_a_legacy_lz4_frame_that_is_cut_or_too_large() {
        let packed = payload(&[&[7; 100_000], b"the second block"]);
        expand(&packed[..packed.len() - 10], 1 << 20).unwrap_err();
        expand(&packed, 1000).unwrap_err();
    }
}
