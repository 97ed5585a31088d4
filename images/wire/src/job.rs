//! The job block: what the workload is, in one length-checked piece of bytes.
//!
//! Layout (little endian): a [`Header`] of [`HEADER_LEN`] bytes; then `n_groups` u32 supplementary groups; then
//! `n_limits` records of 24 bytes (resource u32, zero u32, soft u64, hard u64); then `filter_len` bytes of classic
//! BPF (8 bytes an instruction, `struct sock_filter`); then `strings_len` bytes: NUL-terminated strings in the
//! order host name, working directory, `n_args` arguments, `n_env` environment entries, and nothing after them.

/// First bytes of a block.
pub const MAGIC: [u8; 4] = *b"ISOJ";
/// Version of this layout.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 64;
/// Largest block, so that init can keep it in a static buffer: room for 128 KiB of arguments and environment each.
pub const MAX_LEN: usize = 320 * 1024;
/// Most supplementary groups.
pub const MAX_GROUPS: usize = 64;
/// Most resource limits (`RLIM_NLIMITS`).
pub const MAX_LIMITS: usize = 16;
/// Longest seccomp filter in bytes (`BPF_MAXINSNS` instructions).
pub const MAX_FILTER: usize = 4096 * 8;
/// Most arguments and, separately, environment entries.
pub const MAX_STRINGS: usize = 4096;

/// Flag bits of [`Header::flags`].
pub mod flag {
    /// The workload gets a terminal of its own; stdout carries all output, stderr is not used.
    pub const TTY: u32 = 1;
    /// No overlay: the root is the image itself, read-only.
    pub const READ_ONLY: u32 = 1 << 1;
    /// Tell the workload where to write marks ([`crate::MARK_ENV`]). In a container it then shares the mark pipe,
    /// so that its records are claims of the workload, a forged exit among them: for workloads of our own.
    pub const MARKS: u32 = 1 << 2;
    /// The workload has standard input; without it, stdin is /dev/null.
    pub const STDIN: u32 = 1 << 3;
    /// Container hardening: masked paths, no capabilities, `no_new_privs`, the filter.
    pub const CONFINE: u32 = 1 << 4;
    /// [`crate::fd::ROOT`] is a directory (rootless), not a mount: bind it, read-only. It must be opened inside the
    /// new mount namespace: the kernel binds nothing of another one.
    pub const ROOT_IS_DIR: u32 = 1 << 5;
    /// Of a guest: there is no job yet. Process 1 prepares what each job needs, says [`crate::mark::Code::Template`], and
    /// reads a [restore block](crate::restore) and the job after it.
    pub const TEMPLATE: u32 = 1 << 6;
    /// The command's program is not looked up in the image: it is [`crate::fd::PROGRAM`] in a container and
    /// [`crate::GUEST_PROGRAM`] in a guest. The first argument is a name only.
    pub const PROGRAM: u32 = 1 << 7;
    /// Every bit that means something.
    pub const ALL: u32 = (1 << 8) - 1;
}

/// The fixed part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Bits of [`flag`].
    pub flags: u32,
    /// User of the workload, as seen inside.
    pub uid: u32,
    /// Group of the workload, as seen inside.
    pub gid: u32,
    /// Supplementary groups that follow.
    pub n_groups: u32,
    /// Resource limits that follow.
    pub n_limits: u32,
    /// Bytes of BPF that follow.
    pub filter_len: u32,
    /// Arguments among the strings.
    pub n_args: u32,
    /// Environment entries among the strings.
    pub n_env: u32,
    /// Bytes of strings that follow.
    pub strings_len: u32,
    /// Size limit of the writable tmpfs (overlay, /tmp, /dev/shm share it each), in bytes.
    pub tmpfs_bytes: u64,
    /// Window rows at start (with [`flag::TTY`]).
    pub rows: u16,
    /// Window columns at start.
    pub cols: u16,
    /// A test's fault: the number of a [`crate::trace::Subphase`] of process 1 in which it is to be made, and which
    /// ([`crate::fault::Fault`], 0: none).
    pub fault: (u8, u16),
}

/// Most files of a tmpfs of so many bytes: one for each page, as the kernel has it by default for one of half the memory, and 1024 at
/// least. What a file takes of the kernel's memory is in no size.
#[must_use]
pub const fn tmpfs_inodes(bytes: u64) -> u64 {
    let pages = bytes / 4096;
    if pages < 1024 { 1024 } else { pages }
}

/// Why a block is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobBlockError {
    /// Shorter than it says, or longer than [`MAX_LEN`].
    Length,
    /// Not [`MAGIC`].
    Magic,
    /// Another [`VERSION`], or a flag that this version does not know.
    Version,
    /// A count over its maximum.
    Count,
    /// Strings without their end, too few or too many.
    Strings,
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    match b.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

impl Header {
    /// The header's bytes; `total` is the whole block's length.
    #[must_use]
    pub fn encode(&self, total: u32) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let words = [
            self.flags,
            self.uid,
            self.gid,
            self.n_groups,
            self.n_limits,
            self.filter_len,
            self.n_args,
            self.n_env,
            self.strings_len,
        ];
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[8..12].copy_from_slice(&total.to_le_bytes());
        for (slot, word) in out[12..48].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        out[48..56].copy_from_slice(&self.tmpfs_bytes.to_le_bytes());
        out[56..58].copy_from_slice(&self.rows.to_le_bytes());
        out[58..60].copy_from_slice(&self.cols.to_le_bytes());
        out[60..62].copy_from_slice(&self.fault.1.to_le_bytes());
        out[62] = self.fault.0;
        out
    }

    /// Length of the whole block from its first [`HEADER_LEN`] bytes, so that a reader knows how much to read.
    ///
    /// # Errors
    /// Not a header, or a length over [`MAX_LEN`].
    pub fn total_len(b: &[u8; HEADER_LEN]) -> Result<usize, JobBlockError> {
        if b[..4] != MAGIC {
            return Err(JobBlockError::Magic);
        }
        let total = u32_at(b, 8) as usize;
        if (HEADER_LEN..=MAX_LEN).contains(&total) { Ok(total) } else { Err(JobBlockError::Length) }
    }
}

/// A checked block, read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The fixed part.
    pub header: Header,
    groups: &'a [u8],
    limits: &'a [u8],
    /// Classic BPF of the seccomp filter; empty: none.
    pub filter: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Job<'a> {
    /// Checks a whole block.
    ///
    /// # Errors
    /// [`JobBlockError`] for every block that the encoder never makes.
    pub fn decode(b: &'a [u8]) -> Result<Self, JobBlockError> {
        let head: &[u8; HEADER_LEN] = b.first_chunk().ok_or(JobBlockError::Length)?;
        if Header::total_len(head)? != b.len() {
            return Err(JobBlockError::Length);
        }
        if b[4..6] != VERSION.to_le_bytes() || b[6..8] != [0, 0] || b[63] != 0 {
            return Err(JobBlockError::Version);
        }
        let word = |i: usize| u32_at(b, 12 + 4 * i);
        let header = Header {
            flags: word(0),
            uid: word(1),
            gid: word(2),
            n_groups: word(3),
            n_limits: word(4),
            filter_len: word(5),
            n_args: word(6),
            n_env: word(7),
            strings_len: word(8),
            tmpfs_bytes: u64_at(b, 48),
            rows: u16::from_le_bytes([b[56], b[57]]),
            cols: u16::from_le_bytes([b[58], b[59]]),
            fault: (b[62], u16::from_le_bytes([b[60], b[61]])),
        };
        if header.flags & !flag::ALL != 0 {
            return Err(JobBlockError::Version);
        }
        let counts = [
            (header.n_groups as usize, MAX_GROUPS),
            (header.n_limits as usize, MAX_LIMITS),
            (header.filter_len as usize, MAX_FILTER),
            (header.n_args as usize, MAX_STRINGS),
            (header.n_env as usize, MAX_STRINGS),
        ];
        if counts.iter().any(|&(n, max)| n > max)
            || !header.filter_len.is_multiple_of(8)
            || header.n_args == 0
        {
            return Err(JobBlockError::Count);
        }
        let take = |b: &'a [u8], n: usize| b.split_at_checked(n).ok_or(JobBlockError::Length);
        let (groups, rest) = take(&b[HEADER_LEN..], header.n_groups as usize * 4)?;
        let (limits, rest) = take(rest, header.n_limits as usize * 24)?;
        let (filter, strings) = take(rest, header.filter_len as usize)?;
        if strings.len() != header.strings_len as usize {
            return Err(JobBlockError::Length);
        }
        let wanted = 2 + header.n_args as usize + header.n_env as usize;
        let found = strings.iter().filter(|&&c| c == 0).count();
        if found != wanted || strings.last() != Some(&0) {
            return Err(JobBlockError::Strings);
        }
        Ok(Self { header, groups, limits, filter, strings })
    }

    /// Whether a [`flag`] is set.
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.header.flags & flag != 0
    }

    /// Supplementary groups.
    pub fn groups(&self) -> impl Iterator<Item = u32> + 'a {
        self.groups.chunks_exact(4).map(|c| u32_at(c, 0))
    }

    /// Resource limits: `RLIMIT_*` number, soft, hard (`u64::MAX`: unlimited).
    pub fn limits(&self) -> impl Iterator<Item = (u32, u64, u64)> + 'a {
        self.limits.chunks_exact(24).map(|c| (u32_at(c, 0), u64_at(c, 8), u64_at(c, 16)))
    }

    fn strings(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.strings.split_inclusive(|&c| c == 0)
    }

    /// Host name, with its NUL.
    #[must_use]
    pub fn hostname(&self) -> &'a [u8] {
        self.strings().next().unwrap_or(b"\0")
    }

    /// Working directory, with its NUL.
    #[must_use]
    pub fn workdir(&self) -> &'a [u8] {
        self.strings().nth(1).unwrap_or(b"/\0")
    }

    /// Arguments, each with its NUL; the first names the program.
    pub fn args(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.strings().skip(2).take(self.header.n_args as usize)
    }

    /// Environment entries, each with its NUL.
    pub fn env(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.strings().skip(2 + self.header.n_args as usize)
    }
}
