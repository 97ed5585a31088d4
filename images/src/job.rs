//! The job: one command in one image with its limits; the same value for every level.

use std::time::Duration;

use isolab_wire::job::{HEADER_LEN, Header, MAX_FILTER, MAX_GROUPS, MAX_LEN, MAX_LIMITS, MAX_STRINGS, flag};
use serde::Serialize;

/// A validated job.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Digest of the image's EROFS file, `sha256:` and 64 hex digits.
    pub image: String,
    /// Command and arguments; never empty, no NUL.
    pub argv: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// Absolute working directory.
    pub workdir: String,
    /// User, resolved against the image.
    pub user: User,
    /// Host name inside.
    pub hostname: String,
    /// Memory limit in bytes: the container's cgroup, the guest's RAM.
    pub memory_bytes: u64,
    /// CPUs: quota of the container, vCPUs of the guest.
    pub cpus: u32,
    /// Most processes (container's cgroup; `RLIMIT_NPROC` is not used).
    pub pids: u32,
    /// No writable overlay.
    pub read_only: bool,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// Wall-clock limit.
    pub timeout: Option<Duration>,
    /// Tell the workload where to write its marks (comparisons).
    pub marks: bool,
}

/// Who runs the command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct User {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// How the workload is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdio {
    /// Output only; stdin is /dev/null.
    Output,
    /// With standard input (`-i`).
    Interactive,
    /// With a terminal of its own (`-t`); stdin too.
    Terminal {
        /// Rows at start.
        rows: u16,
        /// Columns at start.
        cols: u16,
    },
}

/// What a level adds to the job before init reads it.
#[derive(Clone, Debug, Default)]
pub struct BlockOptions<'a> {
    /// [`flag::CONFINE`] with this classic BPF program (`struct sock_filter` bytes).
    pub confine_with: Option<&'a [u8]>,
    /// [`flag::ROOT_IS_DIR`].
    pub root_is_dir: bool,
    /// [`flag::PROGRAM`].
    pub program: bool,
    /// Leaves the supplementary groups out: a user namespace of one id forbids to set any.
    pub no_groups: bool,
    /// Resource limits: number, soft, hard.
    pub limits: &'a [(u32, u64, u64)],
    /// A test's fault in process 1 ([`Header::fault`]).
    pub fault: (u8, u16),
    /// [`flag::TEMPLATE`]: the command is not run.
    pub template: bool,
}

/// The job does not fit the block.
#[derive(Debug, thiserror::Error)]
pub enum JobEncodeError {
    /// Too many or too long.
    #[error("{what} of {size} is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A string holds NUL.
    #[error("{what} holds a NUL byte")]
    Nul {
        /// Which string.
        what: &'static str,
    },
}

impl Job {
    /// The job as the block that init reads ([`isolab_wire::job`]).
    ///
    /// # Errors
    /// A string with NUL, or more than the block holds.
    pub fn encode(&self, options: &BlockOptions<'_>) -> Result<Vec<u8>, JobEncodeError> {
        let count = |what, size: usize, limit: usize| {
            u32::try_from(size).ok().filter(|_| size <= limit).ok_or(JobEncodeError::TooLarge {
                what,
                size,
                limit,
            })
        };
        let mut flags = 0;
        let mut set = |on: bool, bit: u32| flags |= if on { bit } else { 0 };
        set(self.read_only, flag::READ_ONLY);
        set(self.marks, flag::MARKS);
        set(options.confine_with.is_some(), flag::CONFINE);
        set(options.root_is_dir, flag::ROOT_IS_DIR);
        set(options.template, flag::TEMPLATE);
        set(options.program, flag::PROGRAM);
        set(!matches!(self.stdio, Stdio::Output), flag::STDIN);
        set(matches!(self.stdio, Stdio::Terminal { .. }), flag::TTY);
        let (rows, cols) = match self.stdio {
            Stdio::Terminal { rows, cols } => (rows, cols),
            _ => (0, 0),
        };
        let filter = options.confine_with.unwrap_or_default();
        let mut strings = Vec::new();
        let named = [("host name", &self.hostname), ("working directory", &self.workdir)];
        let args = self.argv.iter().map(|s| ("argument", s));
        let env = self.env.iter().map(|s| ("environment entry", s));
        for (what, s) in named.into_iter().chain(args).chain(env) {
            if s.contains('\0') {
                return Err(JobEncodeError::Nul { what });
            }
            strings.extend_from_slice(s.as_bytes());
            strings.push(0);
        }
        let groups: &[u32] = if options.no_groups { &[] } else { &self.user.groups };
        let header = Header {
            flags,
            uid: self.user.uid,
            gid: self.user.gid,
            n_groups: count("list of groups", groups.len(), MAX_GROUPS)?,
            n_limits: count("list of resource limits", options.limits.len(), MAX_LIMITS)?,
            filter_len: count("seccomp filter in bytes", filter.len(), MAX_FILTER)?,
            n_args: count("list of arguments", self.argv.len(), MAX_STRINGS)?,
            n_env: count("list of environment entries", self.env.len(), MAX_STRINGS)?,
            strings_len: count("arguments and environment in bytes", strings.len(), MAX_LEN)?,
            // Half of the memory, as Linux's own default for tmpfs.
            tmpfs_bytes: self.memory_bytes / 2,
            rows,
            cols,
            fault: options.fault,
        };
        let mut block = vec![0; HEADER_LEN];
        for group in groups {
            block.extend_from_slice(&group.to_le_bytes());
        }
        for (resource, soft, hard) in options.limits {
            block.extend_from_slice(&u64::from(*resource).to_le_bytes());
            block.extend_from_slice(&soft.to_le_bytes());
            block.extend_from_slice(&hard.to_le_bytes());
        }
        block.extend_from_slice(filter);
        block.append(&mut strings);
        let total = count("arguments and environment in bytes", block.len(), MAX_LEN)?;
        block[..HEADER_LEN].copy_from_slice(&header.encode(total));
        Ok(block)
    }
}
