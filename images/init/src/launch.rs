//! The workload's process: everything between its start and `execve`.
//!
//! The child shares this program's memory while process 1 sleeps (`vfork`), so a failure is a plain store, and nothing
//! is copied. It calls only the kernel.

use core::ffi::CStr;

use isolab_bare::cell::Once;
use isolab_bare::mark::Marks;
use isolab_bare::sys::io::{self, open};
use isolab_bare::sys::{CWD, Errno, Fd, process, tty};
use isolab_bare::text::Text;
use isolab_wire::job::{Job, MAX_STRINGS, flag};
use isolab_wire::mark::{Failure, Step};
use isolab_wire::trace::Subphase;

use crate::channels::MARKS;
use crate::stdio::Stdio;
use crate::{At, privileges, timeline};

/// Where commands are searched for when the job does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Told to a workload in a guest.
const MARK_BY_PORT: &CStr = c"ISOLAB_MARK=port";
/// Told to a workload in a container.
const MARK_BY_PIPE: &CStr = c"ISOLAB_MARK=fd:4";

/// Pointers to strings with a 0 at the end: one more entry for the mark, one for the 0.
type Words = [usize; MAX_STRINGS + 2];

/// What the child works with.
struct Child<'a> {
    job: &'a Job<'a>,
    stdin: Option<Fd>,
    stdout: Fd,
    stderr: Fd,
    terminal: bool,
    marks: Marks,
    /// Time stamp of process 1's first instruction.
    born: u64,
    /// What to execute, where the job brings its own program.
    program: Option<Fd>,
    argv: &'a mut Words,
    env: &'a mut Words,
    /// What stands here when the child is gone is what became of it: nothing once it executes the command.
    failure: Option<Failure>,
}

/// It died of something before it executed the command (`ECHILD`), and could not say why.
const DIED: Failure = Failure { step: Step::Fork, errno: 10 };

/// Starts the workload: its process number, once `execve` has succeeded. `born` is the time stamp of our first instruction.
pub(crate) fn start(
    job: &Job<'_>,
    stdio: &Stdio,
    (marks, born): (Marks, u64),
    program: Option<Fd>,
) -> Result<i32, Failure> {
    static LISTS: Once<[Words; 2]> = Once::new([[0; MAX_STRINGS + 2]; 2]);
    static STACK: Once<[u8; 65536]> = Once::new([0; 65536]);
    let (Some([argv, env]), Some(stack)) = (LISTS.take(), STACK.take()) else {
        return Err(Failure { step: Step::Fork, errno: Errno::INVAL.0 });
    };
    let [stdin, stdout, stderr] = stdio.workload_side();
    let mut child = Child {
        job,
        stdin: job.has(flag::STDIN).then_some(stdin),
        stdout,
        stderr,
        terminal: job.has(flag::TTY),
        marks,
        born,
        program,
        argv,
        env,
        failure: Some(DIED),
    };
    let pid = process::spawn(stack, run, &mut child).at(Step::Fork)?;
    program.into_iter().for_each(io::close);
    child.failure.map_or(Ok(pid), Err)
}

extern "C" fn run(child: &mut Child<'_>) -> ! {
    let failure = match child.execute() {
        Err(failure) => failure,
        Ok(errno) => Failure { step: Step::Exec, errno: errno.0 },
    };
    child.failure = Some(failure);
    process::exit(127)
}

impl Child<'_> {
    /// The steps in order; comes back only with an error, at the end with that of `execve`.
    fn execute(&mut self) -> Result<Errno, Failure> {
        // A session of its own: no terminal of the host's can be its controlling terminal.
        process::new_session().at(Step::Terminal)?;
        if self.terminal {
            tty::make_controlling(self.stdout).at(Step::Terminal)?;
        }
        self.place_descriptors().at(Step::Channels)?;
        for (resource, soft, hard) in self.job.limits() {
            process::set_limit(resource, soft, hard).at(Step::Limits)?;
        }
        privileges::become_user(self.job)?;
        process::set_umask(0o022);
        self.fill_lists();
        timeline::fault(self.job, Subphase::Privileges).at(Step::Privileges)?;
        self.marks.write_exec(self.born);
        timeline::fault(self.job, Subphase::Exec).at(Step::Exec)?;
        process::block_signals(0).at(Step::Fork)?;
        if !self.job.filter.is_empty() {
            process::set_filter(self.job.filter).at(Step::Seccomp)?;
        }
        Ok(self.exec())
    }

    /// 0, 1 and 2 as the job says; everything else is gone at `execve`, but for the mark pipe where it is wanted.
    fn place_descriptors(&self) -> Result<(), Errno> {
        let stdin = match self.stdin {
            Some(fd) => fd,
            None => io::open(CWD, c"/dev/null", open::RDONLY | open::CLOEXEC, 0)?,
        };
        for (from, to) in [(stdin, Fd(0)), (self.stdout, Fd(1)), (self.stderr, Fd(2))] {
            if from != to {
                io::dup_to(from, to)?;
            }
        }
        io::close_range(3, u32::MAX, true)?;
        if self.job.has(flag::MARKS) && self.marks == Marks::Pipe(MARKS) {
            io::set_close_on_exec(MARKS, false)?;
        }
        Ok(())
    }

    fn fill_lists(&mut self) {
        for (slot, arg) in self.argv.iter_mut().zip(self.job.args()) {
            *slot = arg.as_ptr() as usize;
        }
        let mark = match self.marks {
            Marks::Port => Some(MARK_BY_PORT),
            Marks::Pipe(_) => Some(MARK_BY_PIPE),
            Marks::Off => None,
        };
        let mark = mark.filter(|_| self.job.has(flag::MARKS)).map(CStr::to_bytes_with_nul);
        for (slot, entry) in self.env.iter_mut().zip(self.job.env().chain(mark)) {
            *slot = entry.as_ptr() as usize;
        }
    }

    /// `execve`, searched in the job's PATH as a shell does.
    fn exec(&mut self) -> Errno {
        self.failure = None;
        if let Some(program) = self.program {
            return process::execute_open(program, self.argv, self.env);
        }
        let Some(Ok(name)) = self.job.args().next().map(CStr::from_bytes_with_nul) else {
            return Errno::NOENT;
        };
        if name.is_empty() {
            return Errno::NOENT;
        }
        if name.to_bytes().contains(&b'/') {
            return process::execve(name, self.argv, self.env);
        }
        let path = self.job.env().find_map(|e| e.strip_prefix(b"PATH=")?.strip_suffix(b"\0"));
        let mut result = Errno::NOENT;
        for dir in path.unwrap_or(DEFAULT_PATH).split(|&c| c == b':') {
            let mut full = Text::<4096>::new();
            // An empty part means the working directory.
            full.push(if dir.is_empty() { b"." } else { dir }).push(b"/").push(name.to_bytes());
            let Some(full) = full.c_str() else { continue };
            match process::execve(full, self.argv, self.env) {
                Errno::NOENT | Errno::NOTDIR => {}
                // Something is there that may not be executed: say so unless a later directory has it.
                Errno::ACCES => result = Errno::ACCES,
                other => return other,
            }
        }
        result
    }
}
