//! Blocks to entries.

use std::io::{self, Read, Write};

use super::header::Header;
use super::pax::Pax;
use super::{BLOCK, Entry, EntryKind, Fault, TarError};
use crate::budget::{BudgetError, Budgets};
use crate::escape::Escaped;
use crate::tree::Meta;

/// Bytes read at once.
const BUFFER: usize = 256 << 10;
/// Largest extension header: paths, attributes and what vendors add.
const EXTENSION: i64 = 256 << 10;

/// Reads entries from a stream.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the stream before `start`.
    offset: u64,
    /// Data of the current entry that was not read yet.
    data: u64,
    /// Zeros after the data, up to the next block.
    padding: u64,
    path_bytes: usize,
    xattr_bytes: usize,
}

/// Extensions that wait for their entry.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    offset: Option<u64>,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(inner: R, budgets: &Budgets) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            offset: 0,
            data: 0,
            padding: 0,
            path_bytes: budgets.path_bytes,
            xattr_bytes: budgets.xattr_bytes,
        }
    }

    /// The stream, which a caller of [`Reader::next_entry`] has read to its end.
    pub(crate) fn inner(&self) -> &R {
        &self.inner
    }

    /// Offset of the current entry's data.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry; nothing at the end of the stream, which was then read completely.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_data()?;
        let mut pending = Pending::default();
        loop {
            let offset = self.offset;
            let block = self.block()?;
            let fail = |name: &[u8], fault| TarError::Entry { name: Escaped::new(name), offset, fault };
            if block.iter().all(|&b| b == 0) {
                if pending.offset.is_some() {
                    return Err(fail(b"", Fault::Dangling));
                }
                return self.finish(offset).map(|()| None);
            }
            let header = Header::parse(&block).map_err(|fault| fail(b"", fault))?;
            if matches!(header.typeflag, b'x' | b'g' | b'L' | b'K') {
                let kept = pending.offset.get_or_insert(offset);
                let first = *kept;
                let body = self.extension(&header, first)?;
                pending.add(header.typeflag, body).map_err(|fault| fail(&header.path, fault))?;
                if header.typeflag == b'g' && pending.is_empty() {
                    pending.offset = None;
                }
                continue;
            }
            let offset = pending.offset.unwrap_or(offset);
            let name = header.path.clone();
            let entry = pending.entry(header, offset, (self.path_bytes, self.xattr_bytes));
            let entry =
                entry.map_err(|fault| TarError::Entry { name: Escaped::new(&name), offset, fault })?;
            self.data = entry.size;
            self.padding = entry.size.wrapping_neg() % BLOCK as u64;
            return Ok(Some(entry));
        }
    }

    /// Writes the current entry's data to `out`.
    pub(crate) fn copy_data(&mut self, out: &mut impl Write) -> Result<(), TarError> {
        while self.data > 0 {
            self.fill()?;
            let chunk = self.take(self.data);
            out.write_all(&self.buffer[chunk.clone()]).map_err(TarError::Store)?;
            self.data -= chunk.len() as u64;
        }
        Ok(())
    }

    /// Leaves the current entry's data out: what is not in the buffer is passed over by `seek`.
    pub(crate) fn seek_data(
        &mut self,
        seek: impl FnOnce(&mut R, u64) -> io::Result<()>,
    ) -> Result<(), TarError> {
        let buffered = self.take(self.data + self.padding).len() as u64;
        let left = self.data + self.padding - buffered;
        (self.data, self.padding) = (0, 0);
        if left > 0 {
            let offset = self.offset;
            seek(&mut self.inner, left).map_err(|source| TarError::Read { offset, source })?;
            self.offset += left;
        }
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut left = self.data + self.padding;
        while left > 0 {
            self.fill()?;
            left -= self.take(left).len() as u64;
        }
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// Marks up to `most` buffered bytes as read.
    fn take(&mut self, most: u64) -> std::ops::Range<usize> {
        let len = (self.end - self.start).min(usize::try_from(most).unwrap_or(usize::MAX));
        let range = self.start..self.start + len;
        self.start += len;
        self.offset += len as u64;
        range
    }

    /// Makes at least one byte available.
    fn fill(&mut self) -> Result<(), TarError> {
        if self.refill()? { Ok(()) } else { Err(TarError::Truncated { offset: self.offset }) }
    }

    /// The same, but says whether there was one.
    fn refill(&mut self) -> Result<bool, TarError> {
        if self.start == self.end {
            let n = read_some(&mut self.inner, &mut self.buffer)
                .map_err(|source| TarError::Read { offset: self.offset, source })?;
            (self.start, self.end) = (0, n);
        }
        Ok(self.start < self.end)
    }

    fn read_exact(&mut self, out: &mut [u8]) -> Result<(), TarError> {
        let mut done = 0;
        while done < out.len() {
            self.fill()?;
            let range = self.take((out.len() - done) as u64);
            let len = range.len();
            out[done..done + len].copy_from_slice(&self.buffer[range]);
            done += len;
        }
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; BLOCK], TarError> {
        let mut block = [0; BLOCK];
        self.read_exact(&mut block)?;
        Ok(block)
    }

    /// Data of an extension header.
    fn extension(&mut self, header: &Header, offset: u64) -> Result<Vec<u8>, TarError> {
        let fail = |fault| TarError::Entry { name: Escaped::new(&header.path), offset, fault };
        let size = u64::try_from(header.size).map_err(|_| fail(Fault::Number("size")))?;
        if header.size > EXTENSION {
            return Err(fail(Fault::ExtensionSize(size)));
        }
        let mut body = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read_exact(&mut body)?;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        self.skip_data()?;
        Ok(body)
    }

    /// After the first zero block: a second one, then nothing but zeros to the end of the stream.
    fn finish(&mut self, offset: u64) -> Result<(), TarError> {
        let fail = || TarError::Entry { name: Escaped::new(b""), offset, fault: Fault::AfterEnd };
        if self.block()? != [0; BLOCK] {
            return Err(fail());
        }
        while self.refill()? {
            let rest = self.take(u64::MAX);
            if self.buffer[rest].iter().any(|&b| b != 0) {
                return Err(fail());
            }
        }
        Ok(())
    }
}

fn read_some(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.path.is_none() && self.link.is_none()
    }

    fn add(&mut self, typeflag: u8, body: Vec<u8>) -> Result<(), Fault> {
        match typeflag {
            b'x' => set(&mut self.pax, Pax::parse(&body)?, "PAX header"),
            b'g' if Pax::parse(&body)?.has_effect() => Err(Fault::Type(Escaped::new(b"g"))),
            b'g' => Ok(()),
            b'L' => set(&mut self.path, long_name(body)?, "long name"),
            _ => set(&mut self.link, long_name(body)?, "long link"),
        }
    }

    /// Merges the headers of one entry.
    fn entry(
        self,
        header: Header,
        offset: u64,
        (path_bytes, xattr_bytes): (usize, usize),
    ) -> Result<Entry, Fault> {
        let kind = match header.typeflag {
            b'0' | 0 => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' | b'4' => EntryKind::Device,
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            other => return Err(Fault::Type(Escaped::new(&[other]))),
        };
        let pax = self.pax.unwrap_or_default();
        let path = one_of(self.path, pax.path, "name")?.unwrap_or(header.path);
        let link = one_of(self.link, pax.link, "link target")?.unwrap_or(header.link);
        let size = match pax.size {
            Some(size) => size,
            None => u64::try_from(header.size).map_err(|_| Fault::Number("size"))?,
        };
        if size > 0 && kind != EntryKind::File {
            return Err(Fault::Size);
        }
        // Sums with the padding stay far from the end of u64.
        if size > i64::MAX.cast_unsigned() - BLOCK as u64 {
            return Err(Fault::Number("size"));
        }
        let has_link = matches!(kind, EntryKind::HardLink | EntryKind::Symlink);
        within(path.len(), path_bytes, "bytes of a path")?;
        within(link.len(), path_bytes, "bytes of a link target")?;
        let attributes = pax.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        within(attributes, xattr_bytes, "bytes of one file's extended attributes")?;
        let (mtime_s, mtime_ns) = pax.mtime.unwrap_or((header.mtime, 0));
        let meta = Meta {
            mode: header.mode,
            uid: owner(pax.uid, header.uid, "uid")?,
            gid: owner(pax.gid, header.gid, "gid")?,
            mtime_s,
            mtime_ns,
        };
        let link = if has_link { link } else { Vec::new() };
        Ok(Entry { path, link, kind, meta, size, xattrs: pax.xattrs, ignored: pax.ignored, offset })
    }
}

fn within(size: usize, limit: usize, what: &'static str) -> Result<(), Fault> {
    if size > limit { Err(BudgetError { what, limit: limit as u64 }.into()) } else { Ok(()) }
}

fn owner(pax: Option<u32>, header: i64, field: &'static str) -> Result<u32, Fault> {
    match pax {
        Some(id) => Ok(id),
        None => u32::try_from(header).ok().filter(|&id| id != u32::MAX).ok_or(Fault::Number(field)),
    }
}

fn set<T>(slot: &mut Option<T>, value: T, what: &'static str) -> Result<(), Fault> {
    if slot.replace(value).is_some() { Err(Fault::Twice(what)) } else { Ok(()) }
}

fn one_of<T>(gnu: Option<T>, pax: Option<T>, what: &'static str) -> Result<Option<T>, Fault> {
    if gnu.is_some() && pax.is_some() { Err(Fault::Twice(what)) } else { Ok(gnu.or(pax)) }
}

/// A name and its NUL, nothing else.
fn long_name(mut body: Vec<u8>) -> Result<Vec<u8>, Fault> {
    match body.pop() {
        Some(0) if !body.is_empty() && !body.contains(&0) => Ok(body),
        _ => Err(Fault::LongName),
    }
}
