//! The parts of an image by name: files of a directory or members of a tar archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Bound, OciError, Problem, invalid};
use crate::budget::{Budgets, Meter};
use crate::digest::Digest;
use crate::escape::Escaped;
use crate::layer::{ApplyFault, EntryKind, Reader, TarError, TreePath};

/// Most links from one member to the next.
const HOPS: usize = 4;

/// A range of a file, read by offset.
#[derive(Debug)]
pub(crate) struct Section {
    file: File,
    at: u64,
    end: u64,
}

impl Section {
    /// A whole file.
    pub(crate) fn whole(file: File) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Ok(Self { file, at: 0, end })
    }

    /// From an offset to the end.
    pub(crate) fn range(file: File, at: u64, len: u64) -> Self {
        Self { file, at, end: at.saturating_add(len) }
    }

    pub(crate) fn len(&self) -> u64 {
        self.end - self.at
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, at: self.at, end: self.end })
    }

    /// The first bytes.
    pub(crate) fn peek(&self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.len()).unwrap_or(usize::MAX).min(out.len());
        self.file.read_at(&mut out[..most], self.at)
    }
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.len()).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read_at(&mut buf[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Current(by) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        // Behind the end there is nothing to read; the archive is then cut short.
        self.at = self.at.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?.min(self.end);
        Ok(self.at)
    }
}

/// Where an image's parts are.
#[derive(Debug)]
pub(crate) enum Members {
    /// An OCI layout's directory.
    Dir(OwnedFd),
    /// An archive and its members by name.
    Archive { file: Section, index: BTreeMap<Vec<u8>, Member> },
}

#[derive(Debug)]
pub(crate) enum Member {
    File { offset: u64, len: u64 },
    Link(Vec<u8>),
    Other,
}

impl Members {
    /// Lists an archive that is not compressed.
    pub(crate) fn index(file: Section, meter: &mut Meter) -> Result<Self, OciError> {
        let clone = |file: &Section| file.try_clone().map_err(|source| read_error(b"the archive", source));
        let start = file.at;
        let mut reader = Reader::new(clone(&file)?, &meter.budgets);
        let mut index = BTreeMap::new();
        while let Some(entry) = reader.next_entry().map_err(OciError::Archive)? {
            let budget = meter.entries(1).and_then(|()| meter.metadata(entry.path.len() + entry.link.len()));
            budget.map_err(|error| invalid(&entry.path, Problem::Links(error.into())))?;
            let is_dir = entry.kind == EntryKind::Dir;
            let path = TreePath::parse(&entry.path, is_dir, &meter.budgets);
            let path = path.map_err(|fault| invalid(&entry.path, fault))?;
            let (parent, _) = path.split();
            let member = match entry.kind {
                EntryKind::Dir => continue,
                EntryKind::File => Member::File { offset: start + reader.offset(), len: entry.size },
                EntryKind::Symlink => Member::Link(join(parent, &entry.link)?),
                EntryKind::HardLink => Member::Link(join(b"", &entry.link)?),
                EntryKind::Device | EntryKind::Fifo => Member::Other,
            };
            if index.insert(path.bytes().to_vec(), member).is_some() {
                return Err(invalid(&entry.path, Problem::NotOneFile));
            }
            let seek = |file: &mut Section, by| file.seek_relative(i64::try_from(by).unwrap_or(i64::MAX));
            reader.seek_data(seek).map_err(OciError::Archive)?;
        }
        Ok(Self::Archive { file, index })
    }

    pub(crate) fn has(&self, name: &[u8]) -> bool {
        match self {
            Self::Dir(dir) => {
                rustix::fs::accessat(dir, name, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty())
                    .is_ok()
            }
            Self::Archive { index, .. } => index.contains_key(name),
        }
    }

    /// Opens a member; the name is ours or was checked.
    pub(crate) fn open(&self, name: &[u8]) -> Result<Section, OciError> {
        match self {
            Self::Dir(dir) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let fd = rustix::fs::openat2(dir, name, flags, Mode::empty(), inside);
                let file = match fd {
                    Err(rustix::io::Errno::NOENT) => {
                        return Err(OciError::Missing { name: Escaped::new(name) });
                    }
                    fd => File::from(fd.map_err(|errno| read_error(name, errno.into()))?),
                };
                if !file.metadata().map_err(|source| read_error(name, source))?.is_file() {
                    return Err(invalid(name, Problem::NotOneFile));
                }
                Section::whole(file).map_err(|source| read_error(name, source))
            }
            Self::Archive { file, index } => {
                let mut at = name;
                for _ in 0..=HOPS {
                    match index.get(at) {
                        Some(Member::File { offset, len }) => {
                            let clone = file.file.try_clone().map_err(|source| read_error(name, source))?;
                            return Ok(Section::range(clone, *offset, *len));
                        }
                        Some(Member::Link(target)) => at = target,
                        Some(Member::Other) => return Err(invalid(name, Problem::NotOneFile)),
                        None => return Err(OciError::Missing { name: Escaped::new(at) }),
                    }
                }
                Err(invalid(name, ApplyFault::Loop))
            }
        }
    }

    /// Reads a document: within the limit, of the promised size and digest.
    pub(crate) fn document(
        &self,
        name: &[u8],
        promised: Option<(u64, Digest)>,
        limit: u64,
    ) -> Result<Vec<u8>, OciError> {
        let mut section = self.open(name)?;
        let found = section.len();
        let size = |expected| OciError::Size { name: Escaped::new(name), found, expected };
        if found > limit {
            return Err(size(Bound::AtMost(limit)));
        }
        if let Some((expected, _)) = promised.filter(|&(expected, _)| expected != found) {
            return Err(size(Bound::Exactly(expected)));
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(|source| read_error(name, source))?;
        if let Some((_, expected)) = promised {
            let found = Digest::of(&bytes);
            if found != expected {
                return Err(OciError::Digest { name: Escaped::new(name), found, expected });
            }
        }
        Ok(bytes)
    }
}

fn read_error(name: &[u8], source: io::Error) -> OciError {
    OciError::Read { name: Escaped::new(name), source }
}

/// A link's target as a member's name; it may climb with `..`, but not out of the archive.
fn join(parent: &[u8], target: &[u8]) -> Result<Vec<u8>, OciError> {
    let mut parts: Vec<&[u8]> = parent.split(|&b| b == b'/').filter(|part| !part.is_empty()).collect();
    for part in target.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(|| invalid(target, crate::layer::PathFault::DotDot))?;
            }
            _ => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// What a tar stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    Oci,
    Docker,
    Rootfs,
}

/// Looks at names until one can't belong to an image archive.
pub(crate) fn classify<R: Read>(
    stream: R,
    budgets: &Budgets,
    seek: impl Fn(&mut R, u64) -> io::Result<()>,
) -> Result<Contents, TarError> {
    let mut reader = Reader::new(stream, budgets);
    let (mut oci, mut docker) = (false, false);
    while let Some(entry) = reader.next_entry()? {
        let Ok(path) = TreePath::parse(&entry.path, entry.kind == EntryKind::Dir, budgets) else {
            return Ok(Contents::Rootfs);
        };
        match path.bytes() {
            b"oci-layout" => oci = true,
            b"manifest.json" => docker = true,
            // Directories of any name: old archives have one for each layer.
            name if entry.kind != EntryKind::Dir && !belongs(name) => return Ok(Contents::Rootfs),
            _ => {}
        }
        reader.seek_data(&seek)?;
    }
    Ok(match (oci, docker) {
        (true, _) => Contents::Oci,
        (false, true) => Contents::Docker,
        (false, false) => Contents::Rootfs,
    })
}

/// Whether an image archive may have a file of this name: a known document, a layer, `blobs/`, or a digest.
fn belongs(name: &[u8]) -> bool {
    let mut parts = name.split(|&b| b == b'/');
    let (top, last) = (parts.next().unwrap_or_default(), parts.next_back().unwrap_or_default());
    let digest = top.windows(64).any(|part| part.iter().all(u8::is_ascii_hexdigit));
    matches!(name, b"index.json" | b"repositories") || last == b"layer.tar" || top == b"blobs" || digest
}
