//! Compressed pieces of packages: modules and kernel payloads, recognised by their first bytes.

use std::borrow::Cow;
use std::io::{self, Read};

use lzma_rust2::XzReader;

/// Largest xz dictionary accepted, in KiB: `xz -9` needs 64 MiB, Debian's packages 64 MiB.
const XZ_LIMIT_KIB: u32 = 256 << 10;

/// Content of `bytes`, decompressed if they are xz, gzip or zstd, at most `limit` bytes of it.
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
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            Some(Box::new(XzReader::new_mem_limit(bytes, true, XZ_LIMIT_KIB)))
        }
        [0x1f, 0x8b, ..] => Some(Box::new(flate2::read::GzDecoder::new(bytes))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            // Its default limit on the window is 128 MiB, the most that kernel builds use.
            let stream = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(io::Error::other)?;
            Some(Box::new(stream))
        }
        _ => None,
    })
}
