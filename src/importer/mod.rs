//! The importer: a process that reads an image of unknown origin and has the rights to nothing else.
//!
//! isolab opens the source and a file in the store, and starts the importer (a copy of itself) with these two, a spool and a pipe. The
//! importer gives up its rights ([`rights`]), reads the source, writes the image, and says what it found ([`message`]). What it wrote and
//! said is believed as little as the source: the store checks the file and takes its digest anew before it has a name.

mod message;
mod rights;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use isolab_container::child::{SpawnOptions, keep_only, spawn};
use isolab_images::erofs;
use isolab_images::source::{self, ImportError, Options, Progress, Source};
use isolab_images::store::{self, Draft, Store};
use isolab_images::tree::Spool;
use isolab_wire::trace::Tracer;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitIdStatus, getpid};

pub(crate) use self::message::Converted;
use self::message::{MOST_BYTES, Message};
use self::rights::Limits;

/// Reads what a path holds, in a process of its own; the image that it wrote, and what it says of it.
///
/// # Errors
/// The step that failed, with what to do about it.
pub(crate) fn convert<'s>(
    store: &'s Store,
    path: &Path,
    options: Options<'_>,
    show: &mut dyn FnMut(Progress),
) -> anyhow::Result<(Draft<'s>, Converted)> {
    let fd = source::open(path).map_err(|error| anyhow!(with_remedy(error)))?;
    let draft = store.draft()?;
    let (spool, image) = (store.spool()?, draft.writer()?);
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
    let limits = Limits::of(&options.budgets);
    let work = Work { path, fd, options, spool, image, launcher: getpid() };
    let spawned = SpawnOptions { namespaces: 0, cgroup: None, report: None, tracer: Tracer::OFF };
    let held =
        spawn(&spawned, |_handed| work.run(limits, &File::from(write))).context("start the importer")?;
    let mut child = held.release(None, &[]).context("start the importer")?;
    let told = listen(read, show);
    // It has said all that it has to say, or something that it should not.
    if told.is_err() {
        child.kill();
    }
    let status = child.wait().context("wait for the importer")?;
    match told? {
        Some(Message::Done(converted)) if status.exit_status() == Some(0) => Ok((draft, *converted)),
        Some(Message::Refused { full: true, .. }) => Err(store.full().into()),
        Some(Message::Refused { text, .. }) => bail!(text),
        _ => bail!("{}", died(path, &status, limits)),
    }
}

/// Why there is no last word of it.
fn died(path: &Path, status: &WaitIdStatus, limits: Limits) -> String {
    let path = path.display();
    let how = match status.terminating_signal().and_then(Signal::from_named_raw) {
        Some(Signal::XCPU) => {
            return format!(
                "{path} takes more than {} s of processor time to import; nothing was changed; where it is to be trusted, raise \
                 --max-size, by which the limit grows",
                limits.cpu_s
            );
        }
        Some(Signal::SYS) => {
            return format!(
                "the importer of {path} asked for a system call that it has no right to; nothing was changed; the image is hostile, \
                 or this is a bug"
            );
        }
        Some(signal) => format!("signal {}", signal.as_raw()),
        None => "an error".to_owned(),
    };
    format!(
        "the importer of {path} ended without a word ({how}); nothing was changed; it may have at most {} MiB of memory, or this is \
         a bug",
        limits.memory_bytes >> 20
    )
}

/// Reads messages to the last one, or to the end.
fn listen(pipe: OwnedFd, show: &mut dyn FnMut(Progress)) -> anyhow::Result<Option<Message>> {
    let mut from = BufReader::new(File::from(pipe));
    loop {
        let mut line = Vec::new();
        let read = from.by_ref().take(MOST_BYTES).read_until(b'\n', &mut line);
        if read.context("listen to the importer")? == 0 {
            return Ok(None);
        }
        match serde_json::from_slice(&line).context("the importer says what means nothing")? {
            Message::Progress(progress) => show(progress),
            last => return Ok(Some(last)),
        }
    }
}

/// A step that failed, with its causes, and what to do about it.
fn with_remedy(error: ImportError) -> String {
    let remedy = error.remedy();
    format!("{:#}; {remedy}", anyhow::Error::from(error))
}

/// What the importer is started with.
struct Work<'a> {
    path: &'a Path,
    fd: OwnedFd,
    options: Options<'a>,
    spool: Spool,
    image: File,
    launcher: Pid,
}

impl Work<'_> {
    /// *Importer*: the whole of its life; its status.
    fn run(self, limits: Limits, pipe: &File) -> i32 {
        let kept = [self.fd.as_fd(), self.spool.file.as_fd(), self.image.as_fd(), pipe.as_fd()];
        if keep_only(&kept).is_err() {
            return 1;
        }
        let message = match rights::give_up(self.fd.as_fd(), limits, self.launcher) {
            Err(error) => Message::Refused {
                text: format!("{:#}", anyhow::Error::from(error).context("confine the importer")),
                full: false,
            },
            Ok(()) => self.convert(&mut |progress| {
                // Nobody listens any more: the launcher is about to end this process.
                let _gone = send(pipe, &Message::Progress(progress));
            }),
        };
        i32::from(send(pipe, &message).is_err())
    }

    fn convert(self, show: &mut dyn FnMut(Progress)) -> Message {
        let Self { path, fd, options, spool, image, .. } = self;
        let budgets = options.budgets.clone();
        let imported = Source::of(fd, path, budgets).and_then(|source| source.read(options, spool, show));
        let imported = match imported {
            Ok(imported) => imported,
            Err(error) => {
                let full = store::no_space(&error);
                return Message::Refused { text: with_remedy(error), full };
            }
        };
        match erofs::write(&imported.tree, &imported.spool, &image) {
            Ok(_) => Message::Done(Box::new(Converted {
                config: imported.config,
                report: imported.report,
                source_digest: imported.source_digest,
            })),
            Err(error) => Message::Refused {
                full: store::no_space(&error),
                text: format!("{:#}", anyhow::Error::from(error)),
            },
        }
    }
}

fn send(mut pipe: &File, message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    pipe.write_all(&line)
}
