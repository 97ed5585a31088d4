//! The workload's standard streams: passed on as they are, or pumped through pipes or a terminal of its own.

use isolab_bare::cell::Once;
use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::tty::{self, Window};
use isolab_bare::sys::{CWD, Errno, Fd, fs};
use isolab_wire::job::{Job, flag};
use isolab_wire::mark::{Failure, Step};

use crate::channels::Channels;
use crate::pump::{BUFFER, Flow};
use crate::{At, Place};

/// Streams, with what has to be pumped.
pub(crate) struct Stdio {
    workload: [Fd; 3],
    /// Towards the workload's input.
    pub(crate) input: Option<Flow>,
    /// From the workload's outputs.
    pub(crate) outputs: [Option<Flow>; 2],
    /// The terminal's two sides. The other side is held open until the end: a workload that closes it for a
    /// moment must not look like one that ended.
    pub(crate) terminal: Option<(Fd, Fd)>,
    passed_on: bool,
}

/// Makes what the job asks for.
pub(crate) fn prepare(place: Place, job: &Job<'_>, channels: &Channels) -> Result<Stdio, Failure> {
    if job.has(flag::TTY) {
        return terminal(place, job, channels).at(Step::Terminal);
    }
    match place {
        Place::Container => Ok(Stdio {
            workload: channels.streams,
            input: None,
            outputs: [None, None],
            terminal: None,
            passed_on: true,
        }),
        Place::Guest => pipes(job, channels).at(Step::Channels),
    }
}

fn buffers() -> Result<[&'static mut [u8; BUFFER]; 3], Errno> {
    static BUFFERS: Once<[[u8; BUFFER]; 3]> = Once::new([[0; BUFFER]; 3]);
    BUFFERS.take().map(|b| b.each_mut()).ok_or(Errno::INVAL)
}

fn pipes(job: &Job<'_>, channels: &Channels) -> Result<Stdio, Errno> {
    let [for_input, for_output, for_error] = buffers()?;
    let [from_host, to_host, errors_to_host] = channels.streams;
    let (stdin, feed) = io::pipe(open::CLOEXEC)?;
    let (output, stdout) = io::pipe(open::CLOEXEC)?;
    let (error, stderr) = io::pipe(open::CLOEXEC)?;
    for ours in [feed, output, error] {
        io::set_flags(ours, open::NONBLOCK)?;
    }
    let input = if job.has(flag::STDIN) {
        Some(Flow::new(from_host, feed, for_input))
    } else {
        io::close(from_host);
        io::close(feed);
        None
    };
    Ok(Stdio {
        workload: [stdin, stdout, stderr],
        input,
        outputs: [
            Some(Flow::new(output, to_host, for_output)),
            Some(Flow::new(error, errors_to_host, for_error)),
        ],
        terminal: None,
        passed_on: false,
    })
}

fn terminal(place: Place, job: &Job<'_>, channels: &Channels) -> Result<Stdio, Errno> {
    let [for_input, for_output, _] = buffers()?;
    let [from_host, to_host, errors_to_host] = channels.streams;
    let flags = open::RDWR | open::NOCTTY | open::CLOEXEC | open::NONBLOCK;
    let master = io::open(CWD, c"/dev/pts/ptmx", flags, 0)?;
    let other = tty::open_peer(master)?;
    tty::set_window(master, Window::new(job.header.rows, job.header.cols))?;
    fs::chown_fd(other, job.header.uid, u32::MAX)?;
    io::close(errors_to_host);
    // A container's own 0 and 1 belong to others too.
    let shared = place == Place::Container;
    Ok(Stdio {
        workload: [other; 3],
        input: Some(Flow::new(from_host, master, for_input).sharing_source(shared).ending_with_control_d()),
        outputs: [Some(Flow::new(master, to_host, for_output).sharing_target(shared)), None],
        terminal: Some((master, other)),
        passed_on: false,
    })
}

impl Stdio {
    /// What becomes 0, 1 and 2 of the workload.
    pub(crate) const fn workload_side(&self) -> [Fd; 3] {
        self.workload
    }

    /// After the start: lets go of the workload's ends, so that their closing is seen.
    pub(crate) fn close_workload_side(&mut self) {
        if self.terminal.is_some() || self.passed_on {
            return;
        }
        for fd in self.workload {
            io::close(fd);
        }
    }

    /// Sets the terminal's size, which also tells its foreground processes.
    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        if let Some((master, _)) = self.terminal {
            let _ = tty::set_window(master, Window::new(rows, cols));
        }
    }

    /// After the workload's end: no more input, and the terminal's output ends when it is read out.
    pub(crate) fn finish_input(&mut self) {
        self.input = None;
        if let Some((_, other)) = self.terminal {
            io::close(other);
        }
    }

    /// Every flow that still runs.
    pub(crate) fn flows(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.input.iter_mut().chain(self.outputs.iter_mut().flatten()).filter(|f| !f.ended())
    }
}
