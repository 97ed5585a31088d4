//! Process 1 of the lab: builds a small system around isolab, runs it, sends back what it said.
//!
//! In order: own root file system, modules, mounts, the store's view, ports, "up", isolab as a child, reaping until it
//! has ended, its output to the end, the files asked for, "ended". Then isolab on the host ends the machine; if it is
//! gone, the machine turns itself off.

mod pump;
mod store_view;
mod system;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, WaitOptions, wait};

use self::pump::{Control, Sender};
use super::protocol::{FileSum, FromLab, HOME, JOB_FILE, LabJob, NotStarted, frame, port, sha256};
use crate::terminal;

/// Name (argument 0) under which isolab starts itself to get the lab's terminal as its own.
pub(super) const TERMINAL_CHILD: &str = "isolab-lab-terminal";

/// What isolab is started as inside.
const ISOLAB: &str = "/lab/isolab";

/// The lab's process 1. Returns only if the machine can't be turned off.
pub(super) fn main() {
    if let Err(error) = serve() {
        // The console is all there is before the ports are open.
        eprintln!("isolab lab: {error:#}");
    }
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
}

fn serve() -> Result<()> {
    let json = fs::read(JOB_FILE).context("read the job")?;
    let job: LabJob = serde_json::from_slice(&json).context("understand the job")?;
    let mut warnings = system::set_up(&job)?;
    let mut ports = system::open_ports()?;
    let control = Arc::new(Control::new(take(&mut ports, port::CONTROL)?));
    let result = system::place_images(&job.images).and_then(|more| {
        warnings.extend(more);
        run(&job, &control, &mut ports, warnings)
    });
    match result {
        Ok(ended) => control.send(&ended)?,
        Err(error) => control.send(&match error.downcast() {
            Ok(program) => FromLab::NotStarted(program),
            Err(error) => FromLab::Failed { message: format!("{error:#}") },
        })?,
    }
    // The host ends the machine now; this returns only when the host's isolab is gone.
    control.wait_for_end();
    Ok(())
}

fn take(ports: &mut BTreeMap<u32, File>, number: u32) -> Result<File> {
    ports.remove(&number).with_context(|| format!("port {number} is missing"))
}

fn run(
    job: &LabJob,
    control: &Arc<Control>,
    ports: &mut BTreeMap<u32, File>,
    warnings: Vec<String>,
) -> Result<FromLab> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let uptime = fs::read_to_string("/proc/uptime").context("read the uptime")?;
    let uptime = uptime.split_whitespace().next().unwrap_or_default().to_owned();
    control.send(&FromLab::Up { kernel, uptime, warnings })?;
    let mut child = Child::start(job)?;
    control.send(&FromLab::Started)?;
    control.listen(child.pid, child.terminal.clone());
    let mut stdin = take(ports, port::STDIN)?;
    // Waits for the host's side; and only then does a read of nothing mean the end.
    stdin.write_all(&frame(&[])).context("greet on the port of standard input")?;
    if let Some(sink) = child.stdin.take() {
        let control = Arc::clone(control);
        thread::spawn(move || pump::input(stdin, sink, &control));
    }
    let mut pumps = Vec::new();
    for (number, source) in [(port::STDOUT, child.stdout.take()), (port::STDERR, child.stderr.take())] {
        let sender = Sender::new(take(ports, number)?);
        let closed = control.closed(number);
        pumps.push(thread::spawn(move || pump::output(source, sender, &closed)));
    }
    let status = reap(child.pid)?;
    // What isolab left behind must not hold its output open.
    system::kill_all_others();
    for pump in pumps {
        let result = pump.join().unwrap_or_else(|_| Err(anyhow::anyhow!("pump panicked")));
        result.context("send isolab's output")?;
    }
    let files = send_files(&job.returns, Sender::new(take(ports, port::FILES)?))?;
    Ok(FromLab::Ended { status, files })
}

/// The isolab inside.
struct Child {
    pid: Pid,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<Arc<OwnedFd>>,
}

impl Child {
    fn start(job: &LabJob) -> Result<Self> {
        let (program, args) = match job.args.split_first() {
            Some((program, args)) if job.exec => (program.as_str(), args),
            _ => (ISOLAB, job.args.as_slice()),
        };
        let mut command = Command::new(if job.terminal.is_some() { ISOLAB } else { program });
        command.env_clear().env("ISOLAB_HOME", HOME).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(job.env.iter().map(|(name, value)| (name, value))).current_dir("/root");
        let pair = match job.terminal {
            Some((rows, cols)) => Some(terminal::open(rows, cols).context("open a terminal")?),
            None => None,
        };
        if let Some((_, user)) = &pair {
            let user = || user.try_clone().map(Stdio::from).context("share the terminal");
            command.arg0(TERMINAL_CHILD).arg(program);
            command.stdin(user()?).stdout(user()?).stderr(user()?);
        } else {
            command.arg0(name_of(program));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.args(args).spawn().map_err(|error| NotStarted::new(program, &error))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("read its id")?;
        if let Some((master, _)) = pair {
            let master = Arc::new(master);
            let copy = || master.try_clone().context("share the terminal");
            let (stdin, stdout) = (Some(copy()?), Some(copy()?));
            return Ok(Self { pid, stdin, stdout, stderr: None, terminal: Some(master) });
        }
        Ok(Self {
            pid,
            stdin: child.stdin.take().map(OwnedFd::from),
            stdout: child.stdout.take().map(OwnedFd::from),
            stderr: child.stderr.take().map(OwnedFd::from),
            terminal: None,
        })
    }
}

/// Argument 0 of a program: isolab goes by its name.
fn name_of<P: AsRef<OsStr> + ?Sized>(program: &P) -> &OsStr {
    let program = program.as_ref();
    if program == ISOLAB { OsStr::new("isolab") } else { program }
}

/// What isolab does under the name [`TERMINAL_CHILD`]: makes its standard input its controlling terminal and becomes
/// the program of the first argument. Returns only with an error.
pub(super) fn exec_with_terminal(mut args: impl Iterator<Item = OsString>) -> anyhow::Error {
    let program = args.next().unwrap_or_default();
    let prepared = rustix::process::setsid()
        .and_then(|_| rustix::process::ioctl_tiocsctty(std::io::stdin()))
        .context("take the terminal");
    match prepared {
        Ok(()) => {
            let error = Command::new(&program).arg0(name_of(&program)).args(args).exec();
            NotStarted::new(&program.to_string_lossy(), &error).into()
        }
        Err(error) => error,
    }
}

/// Reaps everything that ends until isolab has; its status, 128+n for signal n.
fn reap(isolab: Pid) -> Result<u8> {
    loop {
        let ended = match wait(WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => continue,
            ended => ended.context("wait for isolab")?,
        };
        if let Some((pid, status)) = ended
            && pid == isolab
        {
            let code = status.exit_status().or_else(|| status.terminating_signal().map(|n| 128 + n));
            return u8::try_from(code.unwrap_or(125)).context("read isolab's status");
        }
    }
}

fn send_files(paths: &[String], mut sender: Sender) -> Result<Vec<Option<FileSum>>> {
    let mut sums = Vec::new();
    for path in paths {
        let Ok(content) = fs::read(path) else {
            sums.push(None);
            continue;
        };
        sender.send(&content).and_then(|()| sender.end()).context("send a file")?;
        let len = u64::try_from(content.len()).unwrap_or(u64::MAX);
        sums.push(Some(FileSum { len, sha256: sha256(&content) }));
    }
    Ok(sums)
}
