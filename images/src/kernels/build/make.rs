//! `make` in the source tree: its environment, its log, and its end.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::BuildKernel;

/// The whole environment besides `PATH`: what would differ between two builds is constant.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("ARCH", "x86_64"),
    ("LC_ALL", "C"),
    ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970"),
    ("KBUILD_BUILD_USER", "isolab"),
    ("KBUILD_BUILD_HOST", "isolab"),
    ("KBUILD_BUILD_VERSION", "1"),
];

/// How long what was started may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// A run of a tool of the build that failed.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The log can't be written.
    #[error("write {log}")]
    Log {
        /// Its path.
        log: String,
        /// Why.
        source: io::Error,
    },
    /// The tool can't be run.
    #[error("run {program}")]
    Run {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed: {message}; all that it said is in {log}")]
    Failed {
        /// Which tool, and what it was to make.
        program: String,
        /// Its first error.
        message: String,
        /// Path of the log.
        log: String,
    },
    /// As asked for.
    #[error("the build was stopped")]
    Stopped,
}

/// Runs the tools of a build, all into one log.
pub(super) struct Make<'a> {
    tree: &'a Path,
    log: File,
    log_path: PathBuf,
    how: &'a BuildKernel<'a>,
}

impl<'a> Make<'a> {
    pub(super) fn new(
        tree: &'a Path,
        log_path: PathBuf,
        how: &'a BuildKernel<'a>,
    ) -> Result<Self, MakeError> {
        let log = File::create(&log_path)
            .map_err(|source| MakeError::Log { log: log_path.display().to_string(), source })?;
        Ok(Self { tree, log, log_path, how })
    }

    /// `make TARGETS`; tells how many objects were compiled so far.
    pub(super) fn run(
        &mut self,
        targets: &[&str],
        environment: &[(&str, &OsStr)],
        compiled: &mut dyn FnMut(usize),
    ) -> Result<(), MakeError> {
        let mut command = Command::new("make");
        command.arg(format!("-j{}", self.how.jobs)).args(targets).envs(environment.iter().copied());
        self.execute(command, &format!("make {}", targets.join(" ")), compiled)
    }

    /// Takes symbols and build notes out of a file: a guest does not load them.
    pub(super) fn strip(&mut self, file: &str) -> Result<(), MakeError> {
        let mut command = Command::new("strip");
        command.args(["--strip-all", file]);
        self.execute(command, &format!("strip {file}"), &mut |_| {})
    }

    fn execute(
        &mut self,
        mut command: Command,
        program: &str,
        compiled: &mut dyn FnMut(usize),
    ) -> Result<(), MakeError> {
        let cannot = |source| MakeError::Run { program: program.into(), source };
        let asked: Vec<_> =
            command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
        command.env_clear().envs(ENVIRONMENT.iter().copied()).envs(asked);
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        let (output, input) = io::pipe().map_err(cannot)?;
        // A group of its own: it is ended with all that it started, and by nobody but us.
        command.current_dir(self.tree).process_group(0).stdin(Stdio::null());
        command.stdout(input.try_clone().map_err(cannot)?).stderr(input);
        let mut child = command.spawn().map_err(cannot)?;
        // Our copies of the pipe's end go with it.
        drop(command);
        let said = self.follow(&output, compiled);
        if said.is_err() {
            end(&child, output);
        }
        let status = child.wait().map_err(cannot)?;
        let message = said?;
        if status.success() {
            return Ok(());
        }
        let message = message.unwrap_or_else(|| status.to_string());
        Err(MakeError::Failed { program: program.into(), message, log: self.log_path.display().to_string() })
    }

    /// Copies what is said into the log until the end of it; returns the first line that speaks of an error.
    fn follow(
        &mut self,
        mut output: &PipeReader,
        compiled: &mut dyn FnMut(usize),
    ) -> Result<Option<String>, MakeError> {
        let failed = |source| MakeError::Log { log: self.log_path.display().to_string(), source };
        let mut lines = Lines::default();
        let mut buffer = [0; 4096];
        loop {
            let stop = self.how.stop;
            let mut ends =
                [PollFd::new(&stop, PollFlags::IN), PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
            match poll(&mut ends, None) {
                Err(rustix::io::Errno::INTR) => continue,
                ready => ready.map_err(io::Error::from).map_err(failed)?,
            };
            if !ends[0].revents().is_empty() {
                return Err(MakeError::Stopped);
            }
            let len = output.read(&mut buffer).map_err(failed)?;
            let bytes = buffer.get(..len).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(lines.error);
            }
            self.log.write_all(bytes).map_err(failed)?;
            let before = lines.objects;
            lines.take(bytes);
            if lines.objects != before {
                compiled(lines.objects);
            }
        }
    }
}

/// Ends a group and waits until the last of it is gone: what they write must not come back after it is removed.
fn end(child: &Child, mut output: PipeReader) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // It may be gone already.
        let _ = kill_process_group(group, Signal::TERM);
    }
    let until = Instant::now() + GRACE;
    let mut buffer = [0; 4096];
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap_or_default();
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(ready) if ready > 0 => {
                if !output.read(&mut buffer).is_ok_and(|len| len > 0) {
                    return;
                }
            }
            _ => break,
        }
    }
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// What is looked for in the output.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    objects: usize,
    error: Option<String>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if line.starts_with("  CC ") || line.starts_with("  AS ") {
                self.objects += 1;
            }
            if self.error.is_none() && (line.contains("rror:") || line.contains("*** ")) {
                self.error = Some(line.trim().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A tree whose Makefile is this.
    fn tree(makefile: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Makefile"), makefile).unwrap();
        dir
    }

    fn made(tree: &Path, stop: impl AsFd, objects: &mut usize) -> Result<(), MakeError> {
        let how = BuildKernel { jobs: 1, stop: stop.as_fd() };
        let mut make = Make::new(tree, tree.join("log"), &how)?;
        make.run(&["all"], &[("GIVEN", OsStr::new("by us"))], &mut |count| *objects = count)
    }

    #[test]
    fn output_is_counted_and_logged_and_the_environment_is_ours() {
        let dir =
            tree("all:\n\t@echo '  CC      a.o'; echo '  CC      b.o' >&2; echo \"$$GIVEN $$ARCH $$HOME\"\n");
        let (never, _open) = io::pipe().unwrap();
        let mut objects = 0;
        made(dir.path(), never, &mut objects).unwrap();
        assert_eq!(objects, 2);
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        assert_eq!(log, "  CC      a.o\n  CC      b.o\nby us x86_64 \n");
    }

    #[test]
    fn a_failure_is_told_with_its_first_error_and_the_log() {
        let dir = tree("all:\n\t@echo 'a.c:1:2: error: no such thing'; echo 'later error: x'; false\n");
        let (never, _open) = io::pipe().unwrap();
        let error = made(dir.path(), never, &mut 0).unwrap_err().to_string();
        let log = dir.path().join("log");
        let expected = "make all failed: a.c:1:2: error: no such thing; all that it said is in ";
        assert_eq!(error, format!("{expected}{}", log.display()));
    }

    #[test]
    fn a_build_that_is_stopped_ends_with_all_that_it_started() {
        let dir = tree("all:\n\t@echo '  CC      a.o'; sleep 1000 & sleep 1000\n");
        let (asked, asks) = io::pipe().unwrap();
        let mut asks = Some(asks);
        let how = BuildKernel { jobs: 1, stop: asked.as_fd() };
        let mut make = Make::new(dir.path(), dir.path().join("log"), &how).unwrap();
        // The end of the pipe makes it readable, as soon as something has been compiled.
        let result = make.run(&["all"], &[], &mut |_| drop(asks.take()));
        assert!(matches!(result, Err(MakeError::Stopped)));
    }
}
