//! What was typed, validated: defaults and checks in one place, before anything is touched.

use std::time::Duration;

use isolab_images::job::Stdio;
use serde::Serialize;

use crate::cli::JobArgs;
use crate::supervise::START;
use crate::units::{UnitError, parse_duration, parse_size};

/// Least memory of a job: below it not even init starts at the container level.
pub(crate) const MIN_MEMORY: u64 = 4 << 20;
/// Memory of a job that asks for none in particular.
const DEFAULT_MEMORY: &str = "128M";
/// CPUs of such a job.
const DEFAULT_CPUS: &str = "1";
/// Host name of such a job.
const DEFAULT_HOSTNAME: &str = "isolab";
/// Processes of such a job.
const DEFAULT_PIDS: u32 = 1024;
/// Most CPUs of a job: what the virtual machine is built and tested for.
pub(crate) const MAX_CPUS: u32 = 8;

/// Which options were typed that not every level has: those have their effect or the run is refused. The others are
/// defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Asked {
    /// `--memory`.
    pub(crate) memory: bool,
    /// `--cpus`.
    pub(crate) cpus: bool,
    /// `--pids`.
    pub(crate) pids: bool,
    /// `--hostname`.
    pub(crate) hostname: bool,
    /// `--kernel`.
    pub(crate) kernel: bool,
    /// `--from-snapshot`.
    pub(crate) from_snapshot: bool,
    /// `--free-page-reporting`.
    pub(crate) free_page_reporting: bool,
}

/// The job options, checked; what depends on the image is resolved later.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobConfig {
    /// Image as typed.
    pub(crate) image: String,
    /// Command as typed; empty: the image's own.
    pub(crate) command: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    /// Working directory; else the image's.
    pub(crate) workdir: Option<String>,
    /// User; else the image's.
    pub(crate) user: Option<String>,
    /// Host name.
    pub(crate) hostname: String,
    /// Memory limit.
    pub(crate) memory_bytes: u64,
    /// CPUs.
    pub(crate) cpus: u32,
    /// Processes.
    pub(crate) pids: u32,
    /// Which of those that not every level has were asked for.
    pub(crate) asked: Asked,
    /// No overlay.
    pub(crate) read_only: bool,
    /// Standard input, output, error.
    pub(crate) stdio: Stdio,
    /// Deadline.
    pub(crate) timeout: Option<Duration>,
    /// How long it may take until its command runs.
    pub(crate) start_timeout: Duration,
    /// Guest kernel entry; else the default.
    pub(crate) kernel: Option<String>,
    /// Continue a snapshot instead of starting a guest kernel.
    pub(crate) from_snapshot: bool,
    /// Memory that a guest frees returns to the host.
    pub(crate) free_page_reporting: bool,
}

/// An option that is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Size or time.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// Out of range.
    #[error("{option} {value} is out of range: give {range}")]
    Range {
        /// Which option.
        option: &'static str,
        /// What was typed.
        value: String,
        /// What would do.
        range: String,
    },
    /// Not of the option's form.
    #[error("{option} {value:?} {problem}")]
    Form {
        /// Which option.
        option: &'static str,
        /// What was typed.
        value: String,
        /// What is wrong and what would do.
        problem: &'static str,
    },
    /// `-t` without a terminal.
    #[error("-t needs a terminal on standard input; leave -t out, or use -i alone for a pipe")]
    NoTerminal,
}

impl JobConfig {
    /// Checks the job options. `window` is the size of the terminal on standard input, where it is one.
    ///
    /// # Errors
    /// The first option that is refused.
    pub(crate) fn new(args: &JobArgs, window: Option<(u16, u16)>) -> Result<Self, ConfigError> {
        let pids = args.pids.unwrap_or(DEFAULT_PIDS);
        let hostname = args.hostname.as_deref().unwrap_or(DEFAULT_HOSTNAME);
        let asked = Asked {
            hostname: args.hostname.is_some(),
            kernel: args.kernel.is_some(),
            from_snapshot: args.from_snapshot,
            free_page_reporting: args.free_page_reporting,
            memory: args.memory.is_some(),
            cpus: args.cpus.is_some(),
            pids: args.pids.is_some(),
        };
        let (memory_bytes, cpus) = machine(args.memory.as_deref(), args.cpus.as_deref())?;
        if pids < 2 {
            return Err(ConfigError::Range {
                option: "--pids",
                value: pids.to_string(),
                range: "at least 2 (process 1 and the command)".into(),
            });
        }
        for entry in &args.env {
            let named = entry.split_once('=').is_some_and(|(name, _)| !name.is_empty());
            check(named, "--env", entry, "is not NAME=value")?;
        }
        if let Some(dir) = &args.workdir {
            check(dir.starts_with('/'), "--workdir", dir, "is not an absolute path")?;
        }
        check(is_hostname(hostname), "--hostname", hostname, "is not 1 to 64 of A-Z a-z 0-9 . -")?;
        let stdio = match (args.tty, args.interactive) {
            (true, _) => {
                let (rows, cols) = window.ok_or(ConfigError::NoTerminal)?;
                Stdio::Terminal { rows, cols }
            }
            (false, true) => Stdio::Interactive,
            (false, false) => Stdio::Output,
        };
        Ok(Self {
            image: args.image.clone(),
            command: args.command.clone(),
            env: args.env.clone(),
            workdir: args.workdir.clone(),
            user: args.user.clone(),
            hostname: hostname.to_owned(),
            memory_bytes,
            cpus,
            pids,
            asked,
            read_only: args.read_only,
            stdio,
            timeout: args.timeout.as_deref().map(|t| parse_duration("--timeout", t)).transpose()?,
            start_timeout: match args.start_timeout.as_deref() {
                Some(time) => parse_duration("--start-timeout", time)?,
                None => START,
            },
            kernel: args.kernel.clone(),
            from_snapshot: args.from_snapshot,
            free_page_reporting: args.free_page_reporting,
        })
    }
}

/// Memory and CPUs as typed, or the defaults of a job.
///
/// # Errors
/// The one that is refused.
pub(crate) fn machine(memory: Option<&str>, cpus: Option<&str>) -> Result<(u64, u32), ConfigError> {
    Ok((memory_of(memory.unwrap_or(DEFAULT_MEMORY))?, cpus_of(cpus.unwrap_or(DEFAULT_CPUS))?))
}

fn memory_of(text: &str) -> Result<u64, ConfigError> {
    let bytes = parse_size("--memory", text)?;
    if bytes < MIN_MEMORY {
        let meant =
            if text.parse::<u64>().is_ok_and(|n| n > 0) { format!(" ({text}M?)") } else { String::new() };
        let range = format!("at least {} MiB{meant}", MIN_MEMORY >> 20);
        return Err(ConfigError::Range { option: "--memory", value: text.to_owned(), range });
    }
    Ok(bytes)
}

fn cpus_of(text: &str) -> Result<u32, ConfigError> {
    let found = text.parse().ok().filter(|n| (1..=MAX_CPUS).contains(n));
    found.ok_or_else(|| ConfigError::Range {
        option: "--cpus",
        value: text.to_owned(),
        range: format!("a whole number from 1 to {MAX_CPUS}"),
    })
}

fn check(ok: bool, option: &'static str, value: &str, problem: &'static str) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError::Form { option, value: value.to_owned(), problem }) }
}

fn is_hostname(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'.' || c == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_without_a_unit_is_asked_back() {
        let refused = |text| memory_of(text).expect_err(text).to_string();
        assert_eq!(refused("128"), "--memory 128 is out of range: give at least 4 MiB (128M?)");
        assert_eq!(refused("1M"), "--memory 1M is out of range: give at least 4 MiB");
    }
}
