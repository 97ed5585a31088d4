//! The workload's standard input, output and error on the host's side.
//!
//! Pipes and /dev/null go in as they are. Anything else (a terminal, a file, a socket) is pumped through a pipe, so
//! that no host file can be reopened, sought or controlled (`TIOCSTI`) from inside.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use isolab_bench::port::HostStdio;
use isolab_images::job::Stdio;
use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::terminal;

/// Pipe size that keeps the pumps from waking for each page.
const PIPE_BYTES: usize = 1 << 20;

/// The copying that starts once the instance runs (it must not: the launcher starts single-threaded).
#[derive(Debug, Default)]
pub(crate) struct Pumps {
    input: Option<(File, File)>,
    outputs: Vec<(File, File)>,
}

/// Running pumps of the output.
#[derive(Debug)]
pub(crate) struct Draining(Vec<JoinHandle<()>>);

/// Prepares the descriptors for the instance and the pumps that feed them.
///
/// # Errors
/// Out of descriptors, or /dev/null can't be opened.
pub(crate) fn connect(mode: Stdio) -> io::Result<(HostStdio, Pumps)> {
    let mut pumps = Pumps::default();
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
pub(crate) fn terminal(rows: u16, cols: u16) -> io::Result<(HostStdio, Pumps)> {
    let (ours, users) = terminal::open(rows, cols)?;
    let input = (File::from(io::stdin().as_fd().try_clone_to_owned()?), File::from(ours.try_clone()?));
    let output = (File::from(ours), File::from(io::stdout().as_fd().try_clone_to_owned()?));
    let pumps = Pumps { input: Some(input), outputs: vec![output] };
    Ok((HostStdio { stdin: Some(users.try_clone()?), stdout: users.try_clone()?, stderr: users }, pumps))
}

/// The host's own descriptors for a level that copies bytes itself (vm).
///
/// # Errors
/// Out of descriptors.
pub(crate) fn direct(mode: Stdio) -> io::Result<HostStdio> {
    let stdin = match mode {
        Stdio::Output => None,
        Stdio::Interactive | Stdio::Terminal { .. } => Some(io::stdin().as_fd().try_clone_to_owned()?),
    };
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(HostStdio { stdin, stdout, stderr: io::stderr().as_fd().try_clone_to_owned()? })
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
    if passes(own)? {
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
            std::thread::spawn(move || copy(from, to));
        }
        Draining(
            self.outputs.into_iter().map(|(from, to)| std::thread::spawn(move || copy(from, to))).collect(),
        )
    }
}

impl Draining {
    /// Waits until the instance's last writer is gone and all its output is written.
    pub(crate) fn finish(self) {
        for thread in self.0 {
            // A pump does not panic; if it did, its output is lost already.
            let _ = thread.join();
        }
    }
}

/// Copies until end of file, or until the reader is gone: then dropping `from` gives the writer `SIGPIPE`.
fn copy(mut from: File, mut to: File) {
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}
