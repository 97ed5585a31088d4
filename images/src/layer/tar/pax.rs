//! PAX extended headers: records `length key=value\n`.

use super::Fault;
use crate::escape::Escaped;

/// What the records of one header say about the next entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) ignored: u64,
}

impl Pax {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, Fault> {
        let mut pax = Self::default();
        let mut seen = std::collections::BTreeSet::new();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or(Fault::PaxRecord)?;
            if !seen.insert(key) {
                return Err(Fault::Twice("a PAX record"));
            }
            pax.set(key, value)?;
            bytes = rest;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if name.is_empty() || name.contains(&0) {
                return Err(Fault::PaxRecord);
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(text(value)?),
            b"linkpath" => self.link = Some(text(value)?),
            b"size" => self.size = Some(decimal(value).ok_or(Fault::Number("size"))?),
            b"uid" => self.uid = Some(id(value).ok_or(Fault::Number("uid"))?),
            b"gid" => self.gid = Some(id(value).ok_or(Fault::Number("gid"))?),
            b"mtime" => self.mtime = Some(time(value).ok_or(Fault::Number("mtime"))?),
            b"hdrcharset" | b"charset" => {
                if !matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") {
                    return Err(Fault::PaxKey(Escaped::new(key)));
                }
            }
            b"uname" | b"gname" | b"atime" | b"ctime" | b"comment" => {}
            _ if vendor(key) => self.ignored += 1,
            _ => return Err(Fault::PaxKey(Escaped::new(key))),
        }
        Ok(())
    }

    /// Whether a global header with these records would change later entries.
    pub(super) fn has_effect(&self) -> bool {
        *self != Self { ignored: self.ignored, ..Self::default() }
    }
}

/// `VENDOR.keyword` is reserved for records that other readers ignore (POSIX pax); GNU's sparse records are the
/// ones that must not be: they change what the data means.
fn vendor(key: &[u8]) -> bool {
    let Some(dot) = key.iter().position(|&b| b == b'.') else { return false };
    let name = &key[..dot];
    let upper = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    !name.is_empty() && name.iter().all(upper) && !key.starts_with(b"GNU.sparse")
}

/// The first record and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|&b| b == b' ')?;
    let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let body = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&b| b == b'=')?;
    let key = &body[..equals];
    if key.is_empty() || key.contains(&0) {
        return None;
    }
    Some((key, &body[equals + 1..], &bytes[len..]))
}

fn text(value: &[u8]) -> Result<Vec<u8>, Fault> {
    if value.is_empty() || value.contains(&0) { Err(Fault::PaxRecord) } else { Ok(value.to_vec()) }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// A user or group number; the last one means "no change" to the kernel.
fn id(value: &[u8]) -> Option<u32> {
    u32::try_from(decimal(value)?).ok().filter(|&id| id != u32::MAX)
}

/// Seconds with a fraction, rounded down to nanoseconds.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (whole, fraction) = match value.iter().position(|&b| b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digit = |at: usize| fraction.get(at).map_or(0, |d| u32::from(d - b'0'));
    let nanos = (0..9).fold(0, |ns, at| ns * 10 + digit(at));
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((seconds.checked_neg()?.checked_sub(1)?, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_records_of_gnu_tar() {
        let pax = Pax::parse(b"12 path=a/b\n30 mtime=1700000000.123456789\n26 SCHILY.xattr.user.k=v\n");
        assert_eq!(pax, Err(Fault::PaxRecord), "length of a record counts itself");
        let pax = Pax::parse(b"12 path=a/b\n30 mtime=1700000000.123456789\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.mtime, Some((1_700_000_000, 123_456_789)));
        let pax = Pax::parse(b"25 SCHILY.xattr.user.k=v\n").unwrap();
        assert_eq!(pax.xattrs, [(b"user.k".to_vec(), b"v".to_vec())]);
    }

    #[test]
    fn rounds_times_before_1970_down() {
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-1"), Some((-1, 0)));
        assert_eq!(time(b"0.0000000019"), Some((0, 1)));
        for bad in [&b""[..], b"-", b"1.x", b"+1", b" 1", b"1e9", b"99999999999999999999"] {
            assert_eq!(time(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn refuses_malformed_records() {
        let table: [&[u8]; 12] = [
            b"12 path=a/b",
            b"13 path=a/b\n",
            b"11 path=a/b\n",
            b"0 path=a/b\n",
            b"99999999999999999999 path=a\n",
            b"-9 path=a\n",
            b"7 =abc\n",
            b"10 path=\0\n",
            b"8 path=\n",
            b"5 abc",
            b"\0\0\0\0",
            b"11 uid=4x1\n",
        ];
        for bytes in table {
            assert!(Pax::parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn refuses_what_changes_meaning_and_ignores_vendors() {
        assert!(matches!(Pax::parse(b"22 GNU.sparse.major=1\n"), Err(Fault::PaxKey(_))));
        assert!(matches!(Pax::parse(b"9 foo=ba\n"), Err(Fault::PaxKey(_))));
        assert_eq!(Pax::parse(b"22 RHT.security.a=b:c\n").unwrap().ignored, 1);
        assert_eq!(Pax::parse(b"8 uid=1\n8 uid=2\n"), Err(Fault::Twice("a PAX record")));
        assert_eq!(Pax::parse(b"18 uid=4294967295\n"), Err(Fault::Number("uid")));
        assert!(!Pax::parse(b"14 comment=ab\n").unwrap().has_effect());
        assert!(Pax::parse(b"8 uid=1\n").unwrap().has_effect());
    }
}
