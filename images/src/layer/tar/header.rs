//! One 512-byte header block.

use super::{BLOCK, Fault};

/// A header's fields, before extensions.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u16,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
    pub(super) typeflag: u8,
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, Fault> {
        if number(&block[148..156]) != Some(checksum(block)) {
            return Err(Fault::Checksum);
        }
        let mut path = text(&block[..100], "name")?;
        match &block[257..265] {
            b"ustar\x0000" if &block[508..512] != b"tar\0" => {
                let prefix = text(&block[345..500], "prefix")?;
                if !prefix.is_empty() {
                    path = [&prefix[..], b"/", &path].concat();
                }
            }
            // GNU keeps other things where POSIX has the prefix.
            b"ustar  \0" => {}
            _ => return Err(Fault::Magic),
        }
        // A size that is left blank is zero to some readers; GNU tar goes on with the next header where it is all spaces, and others stop.
        let size = &block[124..136];
        if size[0] & 0x80 == 0 && !size.iter().any(u8::is_ascii_digit) {
            return Err(Fault::Number("size"));
        }
        let field = |range: std::ops::Range<usize>, name| number(&block[range]).ok_or(Fault::Number(name));
        // Some writers leave the file type in the upper bits.
        let mode = u16::try_from(field(100..108, "mode")?).map_err(|_| Fault::Number("mode"))? & 0o7777;
        Ok(Self {
            path,
            link: text(&block[157..257], "linkname")?,
            mode,
            uid: field(108..116, "uid")?,
            gid: field(116..124, "gid")?,
            size: field(124..136, "size")?,
            mtime: field(136..148, "mtime")?,
            typeflag: block[156],
        })
    }
}

/// Sum of all bytes, the checksum field itself taken as spaces.
fn checksum(block: &[u8; BLOCK]) -> i64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&b| i64::from(b)).sum::<i64>();
    sum(&block[..148]) + sum(&block[156..]) + 8 * i64::from(b' ')
}

/// Text up to NUL or the end of the field.
fn text(field: &[u8], name: &'static str) -> Result<Vec<u8>, Fault> {
    let len = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    if field[len..].iter().any(|&b| b != 0) {
        return Err(Fault::Text(name));
    }
    Ok(field[..len].to_vec())
}

/// Octal digits between spaces and NULs, or base-256 where the first bit is set.
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // 0x80: positive; 0xff: two's complement. Other first bytes would be numbers over 2^63.
        let start = match first {
            0x80 => 0_i128,
            0xff => -1,
            _ => return None,
        };
        let value = rest.iter().try_fold(start, |v, &b| v.checked_mul(256)?.checked_add(b.into()))?;
        return i64::try_from(value).ok();
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let digits = field.trim_ascii_start();
    let len = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[len..].iter().all(blank) {
        return None;
    }
    digits[..len].iter().try_fold(0_i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_octal_and_base_256() {
        let table: [(&[u8], Option<i64>); 14] = [
            (b"0000644\0", Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"77777777777 ", Some(0o77_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(1 << 33)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x81\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"064\x0064\0\0", None),
            (b"0x644\0\0\0", None),
            (b"6 4\0\0\0\0\0", None),
        ];
        for (field, expected) in table {
            assert_eq!(number(field), expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn refuses_bytes_behind_a_nul() {
        assert_eq!(text(b"a\0b\0", "name"), Err(Fault::Text("name")));
        assert_eq!(text(b"abcd", "name"), Ok(b"abcd".to_vec()));
    }
}
