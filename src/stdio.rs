//! The workload's standard input, output and error on the host's side.
//!
//! Pipes and /dev/null go in as they are. Anything else (a terminal, a file, a socket) is pumped through a pipe, so
//! that no host file can be reopened, sought or controlled (`TIOCSTI`) from inside.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use isolab_bench::port::HostStdio;
use isolab_images::job::Stdio;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::terminal;

/// Pipe size that keeps the pumps from waking for each page.
const PIPE_BYTES: usize = 1 << 20;

/// How much a run may still write to its output and error together. It is counted here and not by the instance, so that nothing
/// inside can take more.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Rest>);

#[derive(Debug)]
struct Rest {
    bytes: AtomicU64,
    used_up: AtomicBool,
    event: OwnedFd,
}

impl Budget {
    /// Of so many bytes.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(crate) fn new(bytes: u64) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(Rest { bytes: AtomicU64::new(bytes), used_up: AtomicBool::new(false), event })))
    }

    /// Whether more was to be written than it has.
    pub(crate) fn is_used_up(&self) -> bool {
        self.0.used_up.load(Ordering::SeqCst)
    }

    /// Polls readable once it is used up.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }

    /// Takes so much of it as there is, up to `wanted`.
    fn take(&self, wanted: usize) -> usize {
        let taken = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
        let less = |left| Some(left - taken(left) as u64);
        let left = self.0.bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).unwrap_or(0);
        if taken(left) < wanted {
            self.0.used_up.store(true, Ordering::SeqCst);
            // It fails only where the counter is full: then the event is set anyway.
            let _set = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
        }
        taken(left)
    }
}

/// The copying that starts once the instance runs (it must not: the launcher starts single-threaded).
#[derive(Debug, Default)]
pub(crate) struct Pumps {
    input: Option<(File, File)>,
    outputs: Vec<(File, File)>,
    budget: Option<Budget>,
}

/// Running pumps of the output.
#[derive(Debug)]
pub(crate) struct Draining(Vec<JoinHandle<io::Result<()>>>);

/// Prepares the descriptors for the instance and the pumps that feed them. Where there is a budget, all output is pumped.
///
/// # Errors
/// Out of descriptors, or /dev/null can't be opened.
pub(crate) fn connect(mode: Stdio, budget: Option<&Budget>) -> io::Result<(HostStdio, Pumps)> {
    let mut pumps = Pumps { budget: budget.cloned(), ..Pumps::default() };
    let stdin = match mode {
        Stdio::Output => None,
        Stdio::Interactive | Stdio::Terminal { .. } => Some(inward(io::stdin().as_fd(), &mut pumps)?),
    };
    let stdout = outward(io::stdout().as_fd(), &mut pumps)?;
    let stderr = outward(io::stderr().as_fd(), &mut pumps)?;
    Ok((HostStdio { stdin, stdout, stderr }, pumps))
}

/// A new terminal for a level whose workload takes it as it is (process), and the pumps between it and our own.
///
/// # Errors
/// Out of descriptors or terminals.
pub(crate) fn terminal(rows: u16, cols: u16, budget: Option<&Budget>) -> io::Result<(HostStdio, Pumps)> {
    let (ours, users) = terminal::open(rows, cols)?;
    let input = (File::from(io::stdin().as_fd().try_clone_to_owned()?), File::from(ours.try_clone()?));
    let output = (File::from(ours), File::from(io::stdout().as_fd().try_clone_to_owned()?));
    let pumps = Pumps { input: Some(input), outputs: vec![output], budget: budget.cloned() };
    Ok((HostStdio { stdin: Some(users.try_clone()?), stdout: users.try_clone()?, stderr: users }, pumps))
}

/// An end of /dev/null.
///
/// # Errors
/// It can't be opened.
pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

fn inward(own: BorrowedFd<'_>, pumps: &mut Pumps) -> io::Result<OwnedFd> {
    if passes(own)? {
        return own.try_clone_to_owned();
    }
    let (read, write) = wide_pipe()?;
    pumps.input = Some((File::from(own.try_clone_to_owned()?), File::from(write)));
    Ok(read)
}

fn outward(own: BorrowedFd<'_>, pumps: &mut Pumps) -> io::Result<OwnedFd> {
    if pumps.budget.is_none() && passes(own)? {
        return own.try_clone_to_owned();
    }
    let (read, write) = wide_pipe()?;
    pumps.outputs.push((File::from(read), File::from(own.try_clone_to_owned()?)));
    Ok(write)
}

fn wide_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Only speed: an unprivileged user over `pipe-user-pages-soft` keeps the default size.
    let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
    Ok((read, write))
}

/// Whether a descriptor may go in as it is: a pipe, or the null device (1:3).
fn passes(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = fstat(fd)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => true,
        FileType::CharacterDevice => (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3),
        _ => false,
    })
}

impl Pumps {
    /// Starts copying. Input has no end that we wait for: it ends with us.
    #[must_use]
    pub(crate) fn start(self) -> Draining {
        if let Some((from, to)) = self.input {
            // Who does not read its input to the end loses nothing.
            std::thread::spawn(move || drop(copy(from, to, None)));
        }
        let start = |(from, to)| {
            let budget = self.budget.clone();
            std::thread::spawn(move || copy(from, to, budget.as_ref()))
        };
        Draining(self.outputs.into_iter().map(start).collect())
    }
}

impl Draining {
    /// Waits until the instance's last writer is gone and all its output is written.
    ///
    /// # Errors
    /// Output that is lost, but for what nobody reads any more.
    pub(crate) fn finish(self) -> io::Result<()> {
        let ends: Vec<_> = self.0.into_iter().map(JoinHandle::join).collect();
        let lost =
            ends.into_iter().map(|end| end.unwrap_or_else(|_| Err(io::Error::other("a thread ended"))));
        lost.filter(|end| end.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::BrokenPipe)).collect()
    }
}

/// Copies until end of file, until the budget is used up, or until nothing more can be written: then dropping `from` gives the writer
/// `SIGPIPE`.
///
/// # Errors
/// The last of these.
fn copy(mut from: File, mut to: File, budget: Option<&Budget>) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // The end of a terminal is EIO.
            Err(_) => return Ok(()),
        };
        let taken = budget.map_or(n, |budget| budget.take(n));
        to.write_all(&buffer[..taken])?;
        if taken < n {
            return Ok(());
        }
    }
}
