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

/// Largest `manifest.json` that is looked into.
const MANIFEST_BYTES: u64 = 4 << 20;

/// Looks at members until one can't belong to an image archive. A top-level `manifest.json` that names a configuration and
/// layers makes it an image archive whatever else its members are called: what is meant as an image is imported or
/// refused as one, never taken for the files of a root.
pub(crate) fn classify<R: Read>(
    stream: R,
    budgets: &Budgets,
    seek: impl Fn(&mut R, u64) -> io::Result<()>,
) -> Result<Contents, TarError> {
    let mut reader = Reader::new(stream, budgets);
    let mut oci = false;
    while let Some(entry) = reader.next_entry()? {
        let Ok(path) = TreePath::parse(&entry.path, entry.kind == EntryKind::Dir, budgets) else {
            return Ok(Contents::Rootfs);
        };
        match path.bytes() {
            b"oci-layout" => oci = true,
            b"manifest.json" if entry.kind == EntryKind::File && entry.size <= MANIFEST_BYTES => {
                let mut bytes = Vec::new();
                reader.copy_data(&mut bytes)?;
                // Such archives hold an OCI layout, too, since Docker 25; that one says more.
                if super::docker::is_manifest(&bytes) && !oci {
                    return Ok(if has_layout(&mut reader, seek)? { Contents::Oci } else { Contents::Docker });
                }
                continue;
            }
            // Directories of any name: old archives have one for each layer.
            name if entry.kind != EntryKind::Dir && !belongs(name) => return Ok(Contents::Rootfs),
            _ => {}
        }
        reader.seek_data(&seek)?;
    }
    Ok(if oci { Contents::Oci } else { Contents::Rootfs })
}

/// Whether `oci-layout` is among the members that follow.
fn has_layout<R: Read>(
    reader: &mut Reader<R>,
    seek: impl Fn(&mut R, u64) -> io::Result<()>,
) -> Result<bool, TarError> {
    while let Some(entry) = reader.next_entry()? {
        if TreePath::parse(&entry.path, false, &Budgets::default())
            .is_ok_and(|path| path.bytes() == b"oci-layout")
        {
            return Ok(true);
        }
        reader.seek_data(&seek)?;
    }
    Ok(false)
}

/// Whether an image archive may have a file of this name: anything at the top (writers choose names for configuration and
/// layers), a layer, `blobs/`, or a digest.
fn belongs(name: &[u8]) -> bool {
    let mut parts = name.split(|&b| b == b'/');
    let (top, last) = (parts.next().unwrap_or_default(), parts.next_back());
    let digest = top.windows(64).any(|part| part.iter().all(u8::is_ascii_hexdigit));
    last.is_none_or(|last| last.ends_with(b".tar") || last.ends_with(b".tar.gz")) || top == b"blobs" || digest
}
