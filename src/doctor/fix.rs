//! `isolab doctor --fix`: installs what is missing, after saying what it will do.

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command, ExitStatus, Stdio};

use super::facts::{TEST_TOOLS, find_program};
use super::{Facts, Inputs, Report, examine};

/// How much to install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What `run`, `compare` and the lab need.
    Run,
    /// And what the test suite needs.
    Tests,
}

/// What would be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Commands in their order, each with its arguments.
    pub commands: Vec<Vec<String>>,
    /// Run `isolab kernel fetch` after them.
    pub fetch_kernel: bool,
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.commands.is_empty() && !self.fetch_kernel
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for command in &self.commands {
            writeln!(f, "  {}", command.join(" "))?;
        }
        if self.fetch_kernel {
            writeln!(f, "  isolab kernel fetch")?;
        }
        Ok(())
    }
}

/// A fix that was not made.
#[derive(Debug, thiserror::Error)]
pub enum FixError {
    /// No known package manager.
    #[error("no apt-get, dnf or pacman here; install these with your own package manager: {}", packages.join(" "))]
    Manager {
        /// What is missing, by Debian's names.
        packages: Vec<String>,
    },
    /// Not root, and no sudo.
    #[error("installing packages needs root and there is no sudo; run this as root:\n{plan}")]
    Root {
        /// What would be done.
        plan: Plan,
    },
    /// Nobody to ask.
    #[error("standard input is not a terminal, so nobody can confirm; add --yes")]
    NoTerminal,
    /// Read the answer.
    #[error("read the answer")]
    Answer(#[source] io::Error),
    /// The answer was no.
    #[error("nothing was changed")]
    Declined,
    /// Start a command.
    #[error("start {command}")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A command failed.
    #[error("{command} failed with {status}")]
    Failed {
        /// The command line.
        command: String,
        /// How.
        status: ExitStatus,
    },
    /// Fetch the kernel.
    #[error("fetch the guest kernel")]
    Kernel(#[source] anyhow::Error),
}

/// Missing packages by Debian's names, required ones first.
fn missing(report: &Report, scope: Scope) -> Vec<&'static str> {
    let qemu = report.facts.qemu.is_none() && !report.lab;
    let tools = TEST_TOOLS.iter().filter(|(program, _)| {
        scope == Scope::Tests && report.facts.test_tools.get(*program) == Some(&false)
    });
    let mut packages: Vec<&str> = qemu.then_some("qemu-system-x86").into_iter().collect();
    packages.extend(tools.map(|(_, package)| *package));
    packages
}

/// A package's name in other distributions, where it differs from Debian's.
fn renamed(manager: &str, package: &str) -> String {
    let name = match (manager, package) {
        ("dnf", "qemu-system-x86") => "qemu-system-x86-core",
        ("dnf" | "pacman", "busybox-static") => "busybox",
        ("pacman", "docker-registry") => "distribution",
        _ => package,
    };
    name.to_owned()
}

/// What would install that which is missing, and nothing else.
///
/// # Errors
/// Something is missing, but there is no way to install it from here.
pub fn plan(report: &Report, scope: Scope) -> Result<Plan, FixError> {
    let sudo = report.facts.euid != 0;
    let plan =
        compose(&report.facts, &missing(report, scope), !report.stock_kernel.present && !report.lab, sudo)?;
    if sudo && !plan.commands.is_empty() && find_program("sudo").is_none() {
        return Err(FixError::Root { plan });
    }
    Ok(plan)
}

fn compose(facts: &Facts, packages: &[&str], fetch_kernel: bool, sudo: bool) -> Result<Plan, FixError> {
    if packages.is_empty() {
        return Ok(Plan { commands: Vec::new(), fetch_kernel });
    }
    let Some(manager) = facts.package_manager.as_deref() else {
        let packages = packages.iter().map(|&package| package.to_owned()).collect();
        return Err(FixError::Manager { packages });
    };
    let (prepare, install): (&[&[&str]], &[&str]) = match manager {
        "dnf" => (&[], &["dnf", "install", "-y", "--setopt=install_weak_deps=False"]),
        "pacman" => (&[], &["pacman", "-S", "--needed", "--noconfirm"]),
        // A fresh machine has no package lists at all.
        _ => (&[&["apt-get", "update"]], &["apt-get", "install", "-y", "--no-install-recommends"]),
    };
    let front = |words: &[&str]| {
        let sudo = sudo.then_some("sudo").into_iter();
        sudo.chain(words.iter().copied()).map(str::to_owned).collect::<Vec<String>>()
    };
    let mut commands: Vec<Vec<String>> = prepare.iter().map(|words| front(words)).collect();
    let mut last = front(install);
    last.extend(packages.iter().map(|package| renamed(manager, package)));
    commands.push(last);
    Ok(Plan { commands, fetch_kernel })
}

/// Installs what `report` misses: says what it will do, asks unless `yes`, does it, and looks again.
///
/// Everything that it says, and what the commands say, goes to standard error: standard output is the report's.
///
/// # Errors
/// [`FixError`] of the first step that failed; the steps before it stay done.
pub fn fix(
    report: Report,
    inputs: &Inputs,
    scope: Scope,
    yes: bool,
    fetch_kernel: &mut dyn FnMut() -> anyhow::Result<()>,
) -> Result<Report, FixError> {
    let plan = plan(&report, scope)?;
    if plan.is_empty() {
        eprintln!("nothing is missing that could be installed");
        return Ok(report);
    }
    eprintln!("this will run:\n{plan}");
    if !yes {
        confirm()?;
    }
    for command in &plan.commands {
        run(command)?;
    }
    if plan.fetch_kernel {
        fetch_kernel().map_err(FixError::Kernel)?;
    }
    Ok(examine(inputs))
}

fn confirm() -> Result<(), FixError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(FixError::NoTerminal);
    }
    let mut stderr = io::stderr();
    write!(stderr, "go ahead? [y/N] ").and_then(|()| stderr.flush()).map_err(FixError::Answer)?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(FixError::Answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(FixError::Declined) }
}

/// Runs one command with its output on our standard error.
fn run(command: &[String]) -> Result<(), FixError> {
    let line = command.join(" ");
    let start = |source| FixError::Start { command: line.clone(), source };
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    eprintln!("+ {line}");
    let stderr = rustix::io::dup(rustix::stdio::stderr()).map_err(|e| start(e.into()))?;
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::from(stderr))
        .status()
        .map_err(start)?;
    if status.success() { Ok(()) } else { Err(FixError::Failed { command: line, status }) }
}

#[cfg(test)]
#[path = "fix_tests.rs"]
mod tests;
